"""What an architecture is expected to score: a baseline for every candidate of the strategy.

Where architectures differ, scores of a pair differ because its perturbations do and because its
architectures do; to the strategy the second is noise. What earlier generations foretell of it can
be taken away: the expectation b of architecture m_i depends on m_i and on the past, not on the
noise g_i, so E[b(m_i) g_i] = 0 and the estimated gradient keeps its expectation, of scores as they
are exactly, and up to 1/N where a shaping compares them within a generation.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.controllers.factorised import counted, factorised
from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, PyTree


class Expectation(NamedTuple):
    """Foretells scores of architectures, and learns from what they come to."""

    init: Callable[[], PyTree]  # -> state
    foretell: Callable[[PyTree, Genotype], Array]  # state, genotypes [N] -> float32 [N]
    # state, genotypes [N], scores [N], valid [N] -> state
    update: Callable[[PyTree, Genotype, Array, Array], PyTree]


class State(NamedTuple):
    """An additive model of the scores."""

    mean: Array  # float32 [], of the generation before; 0 before the first
    worth: Array  # float32 [options], of every option of every decision


def additive_expectation(space: Space, baseline_rate: float) -> Expectation:
    """Return the expectation: the mean, and what each of an architecture's options adds to it.

    The mean is that of the generation before. What option j adds moves, every generation, by

        baseline_rate * sum_i x_ij residual_i / sum_i x_ij |x_i|,

    x_ij being how often candidate i has option j, |x_i| the number of its options, and the residual
    by how much its score differed from the generation's mean and what its options add: a damped
    Jacobi step of least squares, which no rate makes unstable, and which forgets as fast as it
    learns, since the weights move on. The order of sets is not seen.

    Args:
        space: of the policy; of choices among options.
        baseline_rate: in (0, 1].

    Raises:
        ValueError: if the rate is outside its range, or the space has numbers from a range.
    """
    rate = _checks.share("baseline_rate", baseline_rate)
    try:
        distribution = factorised(space)
    except ValueError:
        raise ValueError(
            f"baseline_rate must be None for a space with numbers from a range, got {space}."
        ) from None
    options = jax.eval_shape(distribution.init, jax.random.key(0))

    def features(genotypes: Genotype) -> Array:
        """Return how often each genotype has every option, float32 [N, options]."""
        counts = jax.vmap(lambda one: counted(space, one))(genotypes)
        rows = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(counts)]
        return jnp.concatenate(rows, axis=1)

    def init() -> State:
        number = sum(x.size for x in jax.tree.leaves(options))
        return State(jnp.zeros((), jnp.float32), jnp.zeros(number, jnp.float32))

    def foretell(state: State, genotypes: Genotype) -> Array:
        return state.mean + features(genotypes) @ state.worth

    def update(state: State, genotypes: Genotype, scores: Array, valid: Array) -> State:
        x, weight = features(genotypes), valid.astype(jnp.float32)
        number = jnp.maximum(jnp.sum(weight), 1.0)
        mean = jnp.sum(jnp.where(valid, scores, 0.0)) / number
        residual = jnp.where(valid, scores - mean - x @ state.worth, 0.0)
        having = (weight * jnp.sum(x, axis=1)) @ x
        moved = rate * (residual @ x) / jnp.maximum(having, 1.0)
        return State(jnp.where(valid.any(), mean, state.mean), state.worth + moved)

    return Expectation(init, foretell, update)
