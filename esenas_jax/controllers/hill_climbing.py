"""Hill climbing: mutations of the single best, which is evaluated again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.spaces import Space, same
from esenas_jax.types import Array, Genotype, Key, PyTree


class State(NamedTuple):
    """The incumbent: the architecture to climb from."""

    genotype: Genotype
    score: Array  # float32 [], -inf before there is one


def hill_climbing(space: Space, num_incumbents: int = 2, local: bool = False) -> Controller:
    """Return hill climbing in batches (PyGlove's `hill_climb`, as Iris uses it).

    Proposals are uniform until a candidate has been evaluated: in the first generation. Afterwards
    the first `num_incumbents` candidates of a generation run the incumbent itself, and all others
    mutations of it. The best of them becomes the incumbent if its score is above the incumbent's;
    among equals, one at random.

    The incumbent's score is the mean over the candidates of the latest generation that ran its
    architecture, mutants that came out as it was among them; the score that it became the
    incumbent with holds only until then. So one lucky score does not reign for ever, and neither
    does one that belongs to weights of long ago. A generation in which all of them failed leaves
    the score as it was.

    Args:
        space: any.
        num_incumbents: how many candidates of a generation (pairs, where two halves share an
            architecture) run the incumbent, fewer than there are. Two are, by default, the halves
            of an antithetic pair: to first order their perturbations cancel in the mean. With 0,
            as released, the best score ever seen stands until it is beaten.
        local: mutations change one value, and always do, see `Space.mutate`; released False,
            PyGlove's `Uniform`.

    Raises:
        TypeError, ValueError: if `num_incumbents` is no integer, or negative.
    """
    num_incumbents = _checks.integer("num_incumbents", num_incumbents, 0)

    def init(key: Key) -> State:
        return State(space.sample(key), jnp.full((), -jnp.inf, jnp.float32))

    def propose(key: Key, plan: State, i: Array) -> tuple[Genotype, PyTree]:
        k_fresh, k_mutate = jax.random.split(key)

        def climbed() -> Genotype:
            return jax.tree.map(
                lambda incumbent, mutant: jnp.where(i < num_incumbents, incumbent, mutant),
                plan.genotype,
                space.mutate(k_mutate, plan.genotype, local),
            )

        # Of the two only one is carried out: the plan is the same for all candidates.
        genotype = jax.lax.cond(plan.score == -jnp.inf, lambda: space.sample(k_fresh), climbed)
        return genotype, ()

    def update(
        key: Key, state: State, genotypes: Genotype, info: PyTree, scores: Array, valid: Array
    ) -> tuple[State, Metrics]:
        del info
        known = (state.score > -jnp.inf) & (num_incumbents > 0)
        again = known & valid & jax.vmap(lambda x: same(x, state.genotype))(genotypes)
        times = jnp.sum(again, dtype=jnp.float32)
        seen = jnp.sum(jnp.where(again, scores, 0.0)) / jnp.maximum(times, 1.0)
        score = jnp.where(times > 0, seen, state.score)

        rivals = jnp.where(valid & ~again, scores, -jnp.inf)
        top = jnp.max(rivals)
        lots = jax.random.uniform(key, rivals.shape, dtype=jnp.float32)
        chosen = jnp.argmax(jnp.where(rivals == top, lots, -1.0))
        climbs = top > score
        new = jax.tree.map(
            lambda x, y: jnp.where(climbs, x, y),
            State(jax.tree.map(lambda x: x[chosen], genotypes), top),
            State(state.genotype, score),
        )
        return new, {
            "incumbent_score": new.score,
            "climbed": climbs.astype(jnp.float32),
            "incumbents": times,
        }

    def best(state: State) -> tuple[Genotype, Array]:
        alone = jax.tree.map(lambda x: x[None], state.genotype)
        return alone, (state.score > -jnp.inf)[None]

    return Controller(
        space=space,
        init=init,
        prepare=lambda key, state: state,
        propose=propose,
        update=update,
        best=best,
        num_incumbents=num_incumbents,
    )
