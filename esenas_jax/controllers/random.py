"""Random architecture search: a fresh uniform architecture for every candidate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key, PyTree


class State(NamedTuple):
    """The best of the last generation that brought any; proposals do not depend on it."""

    genotypes: Genotype  # [A]
    valid: Array  # bool [A]


def random(space: Space, num_best: int = 8) -> Controller:
    """Return the controller that proposes uniformly and learns nothing (released "random").

    Args:
        space: of the policy.
        num_best: how many architectures of the latest generation `best` offers for re-evaluation,
            at least 1. Scores of earlier generations belong to other weights.
    """
    num_best = _checks.integer("num_best", num_best, 1)

    def init(key: Key) -> State:
        return State(space.sample(key, (num_best,)), jnp.zeros(num_best, bool))

    def update(
        key: Key, state: State, genotypes: Genotype, info: PyTree, scores: Array, valid: Array
    ) -> tuple[State, Metrics]:
        del key, info
        order = jnp.argsort(jnp.where(valid, scores, -jnp.inf), descending=True)[:num_best]
        top, is_valid = jax.tree.map(lambda x: x[order], (genotypes, valid))
        new = jax.tree.map(
            lambda fresh, old: jnp.concatenate([fresh, old])[:num_best],
            (top, is_valid),
            (state.genotypes, jnp.zeros_like(state.valid)),
        )
        return jax.tree.map(lambda x, y: jnp.where(valid.any(), x, y), State(*new), state), {}

    return Controller(
        space=space,
        init=init,
        prepare=lambda key, state: (),
        propose=lambda key, plan, i: (space.sample(key), ()),
        update=update,
        best=lambda state: (state.genotypes, state.valid),
    )
