"""The cross-entropy method: fit a factorised distribution to the best of every generation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.controllers.distribution import as_genotype
from esenas_jax.controllers.factorised import counted, factorised
from esenas_jax.controllers.latest import Latest, after, latest, nothing_yet
from esenas_jax.spaces import Space
from esenas_jax.strategies.shaping import spread
from esenas_jax.types import Array, Genotype, Key, PyTree


class Hyper(NamedTuple):
    """Numbers that can vary from run to run without a new compilation, float32 []."""

    smoothing: Array
    floor: Array


class State(NamedTuple):
    """What the next generation needs."""

    probabilities: PyTree  # of the options of every decision; each last axis sums to 1
    latest: Latest
    hyper: Hyper


def cross_entropy(
    space: Space,
    elite_share: float = 0.125,
    smoothing: float = 0.3,
    floor: float = 0.05,
    num_best: int = 8,
) -> Controller:
    """Return the cross-entropy method for combinatorial spaces (Rubinstein, 1999).

    The probabilities p of every decision's options move towards the frequencies f they have among
    the best candidates of a generation, `elite_share` of them, and keep a floor:

        q <- (1 - smoothing) q + smoothing f,    p = (1 - floor) q + floor / options.

    Sets without repetition are drawn by Plackett-Luce with weights p, and f are their items'
    shares. Decisions that no elite was asked stay as they are, and so does everything after a
    generation of equal scores. Candidates tied at the border are elites all.

    Args:
        space: of the policy; of choices among options.
        elite_share: of the candidates of a generation, in (0, 1]; there is one at least.
        smoothing: in (0, 1]; 1 forgets all earlier generations.
        floor: in [0, 1], the share of a proposal's decisions that stays uniform.
        num_best: how many architectures `best` offers, at least 1: the likeliest, then the best of
            the latest generation.

    Raises:
        ValueError: if a number is outside its range, or the space has numbers from a range.
    """
    distribution = factorised(space)
    share = _checks.real("elite_share", _checks.positive("elite_share", elite_share), 0.0, 1.0)
    smoothing = _checks.real("smoothing", _checks.positive("smoothing", smoothing), 0.0, 1.0)
    floor = _checks.real("floor", floor, 0.0, 1.0)
    num_best = _checks.integer("num_best", num_best, 1)

    def init(key: Key) -> State:
        k_params, k_latest = jax.random.split(key)
        return State(
            probabilities=jax.tree.map(
                lambda x: jax.nn.softmax(x, axis=-1), distribution.init(k_params)
            ),
            latest=nothing_yet(space, k_latest, num_best),
            hyper=Hyper(jnp.asarray(smoothing, jnp.float32), jnp.asarray(floor, jnp.float32)),
        )

    def prepare(key: Key, state: State) -> PyTree:
        del key

        def logits(q: Array) -> Array:
            floor = state.hyper.floor
            return jnp.log((1.0 - floor) * q + floor / q.shape[-1])

        return jax.tree.map(logits, state.probabilities)

    def update(
        key: Key, state: State, genotypes: Genotype, info: PyTree, scores: Array, valid: Array
    ) -> tuple[State, Metrics]:
        del key, info
        scores = jnp.where(valid, scores, -jnp.inf)
        border = jax.lax.top_k(scores, max(1, round(share * scores.size)))[0][-1]
        elite = valid & (scores >= border)
        told = spread(scores, valid) > 0

        def fit(q: Array, counts: Array) -> Array:
            total = jnp.tensordot(elite.astype(jnp.float32), counts, axes=1)
            asked = jnp.sum(total, axis=-1, keepdims=True)
            frequency = total / jnp.maximum(asked, 1.0)
            return jnp.where(told & (asked > 0), q + state.hyper.smoothing * (frequency - q), q)

        counts = jax.vmap(lambda one: counted(space, one))(genotypes)
        fitted = jax.tree.map(fit, state.probabilities, counts)
        elite_mean = jnp.sum(jnp.where(elite, scores, 0.0)) / jnp.maximum(
            jnp.sum(elite, dtype=jnp.float32), 1.0
        )
        found = latest(state.latest, genotypes, scores, valid)
        return State(fitted, found, state.hyper), {"elite_mean": elite_mean}

    def best(state: State) -> tuple[Genotype, Array]:
        return after(as_genotype(space, distribution.mode(state.probabilities)), state.latest)

    return Controller(
        space=space,
        init=init,
        prepare=prepare,
        propose=lambda key, plan, i: (as_genotype(space, distribution.sample(key, plan)), ()),
        update=update,
        best=best,
    )
