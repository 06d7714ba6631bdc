"""The cross-entropy method: fit a factorised distribution to the best of every generation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.controllers.distribution import as_genotype
from esenas_jax.controllers.factorised import counted, factorised
from esenas_jax.controllers.latest import Latest, after, latest, nothing_yet
from esenas_jax.spaces import Conditional, Product, Repeat, Space, SubsetOf
from esenas_jax.strategies.shaping import spread
from esenas_jax.types import Array, Genotype, Key, PyTree

ALMOST_SURE = 1.0 - 2.0**-20  # the largest probability of an item, whose weight would be infinite


class Hyper(NamedTuple):
    """Numbers that can vary from run to run without a new compilation, float32 []."""

    smoothing: Array
    floor: Array


class State(NamedTuple):
    """What the next generation needs."""

    # Of every decision's options, the last axis: how likely each is, or to be among the k chosen.
    probabilities: PyTree
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

    The probabilities p of every decision's n options move towards the frequencies f they have among
    the best candidates of a generation, `elite_share` of them, and keep a floor:

        q <- (1 - smoothing) q + smoothing f,    p = (1 - floor) q + floor k / n.

    Of a choice k is 1. Of a set without repetition p and f are the shares of sets that have an
    item; it is drawn item by item with weights -log(1 - p) (a race of exponential clocks that
    would each have rung by now with probability p), which comes close to p. Decisions that no elite
    was asked stay as they are, and so does everything after a generation of equal scores.
    Candidates tied at the border are elites all.

    Args:
        space: of the policy; of choices among options, without sets whose order matters: shares
            of items say nothing of it.
        elite_share: of the candidates of a generation, in (0, 1]; there is one at least.
        smoothing: in (0, 1]; 1 forgets all earlier generations.
        floor: in [0, 1], the share of the probabilities that stays uniform.
        num_best: how many architectures `best` offers, at least 1: the likeliest, then the best of
            the latest generation.

    Raises:
        ValueError: if a number is outside its range, or the space has numbers from a range or sets
            in order.
    """
    distribution, chosen = factorised(space), _chosen(space)
    share = _checks.share("elite_share", elite_share)
    smoothing = _checks.share("smoothing", smoothing)
    floor = _checks.real("floor", floor, 0.0, 1.0)
    num_best = _checks.integer("num_best", num_best, 1)

    def init(key: Key) -> State:
        k_params, k_latest = jax.random.split(key)
        return State(
            probabilities=jax.tree.map(
                lambda x, k: k * jax.nn.softmax(x, axis=-1), distribution.init(k_params), chosen
            ),
            latest=nothing_yet(space, k_latest, num_best),
            hyper=Hyper(jnp.asarray(smoothing, jnp.float32), jnp.asarray(floor, jnp.float32)),
        )

    def prepare(key: Key, state: State) -> PyTree:
        del key

        def logits(q: Array, k: float) -> Array:
            floor = state.hyper.floor
            p = (1.0 - floor) * q + floor * k / q.shape[-1]
            return jnp.log(p if k == 1 else -jnp.log1p(-jnp.minimum(p, ALMOST_SURE)))

        return jax.tree.map(logits, state.probabilities, chosen)

    def update(
        key: Key, state: State, genotypes: Genotype, info: PyTree, scores: Array, valid: Array
    ) -> tuple[State, Metrics]:
        del key, info
        scores = jnp.where(valid, scores, -jnp.inf)
        border = jax.lax.top_k(scores, max(1, round(share * scores.size)))[0][-1]
        elite = valid & (scores >= border)
        told = spread(scores, valid) > 0

        def fit(q: Array, k: float, counts: Array) -> Array:
            total = jnp.tensordot(elite.astype(jnp.float32), counts, axes=1)
            asked = jnp.sum(total, axis=-1, keepdims=True)
            frequency = k * total / jnp.maximum(asked, 1.0)
            return jnp.where(told & (asked > 0), q + state.hyper.smoothing * (frequency - q), q)

        counts = jax.vmap(lambda one: counted(space, one))(genotypes)
        fitted = jax.tree.map(fit, state.probabilities, chosen, counts)
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
        propose=lambda key, plan, i: (as_genotype(space, distribution.sample(key, plan)[0]), ()),
        update=update,
        best=best,
    )


def _chosen(space: Space) -> PyTree:
    """Return how many of every decision's options are chosen, in the tree of the parameters."""
    match space:
        case SubsetOf(distinct=True, ordered=True):
            raise ValueError(
                f"cross_entropy can handle no sets whose order matters, got {space}: random, "
                "hill_climbing, regularized_evolution, nsga2, reinforce and ppo can."
            )
        case SubsetOf(distinct=True, num_chosen=k):
            return float(k)
        case Repeat():
            return _chosen(space.space)
        case Product():
            return [_chosen(leaf) for leaf in space.leaves]
        case Conditional():
            own = [() if option is None else _chosen(option) for option in space.options]
            return _chosen(space.choice), own
    return 1.0
