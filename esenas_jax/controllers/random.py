"""Random architecture search: a fresh uniform architecture for every candidate."""

from esenas_jax import _checks
from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.controllers.latest import Latest, latest, nothing_yet
from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key, PyTree


def random(space: Space, num_best: int = 8) -> Controller:
    """Return the controller that proposes uniformly and learns nothing (released "random").

    Args:
        space: of the policy.
        num_best: how many architectures of the latest generation `best` offers for re-evaluation,
            at least 1. Scores of earlier generations belong to other weights.
    """
    num_best = _checks.integer("num_best", num_best, 1)

    def update(
        key: Key, state: Latest, genotypes: Genotype, info: PyTree, scores: Array, valid: Array
    ) -> tuple[Latest, Metrics]:
        del key, info
        return latest(state, genotypes, scores, valid), {}

    return Controller(
        space=space,
        init=lambda key: nothing_yet(space, key, num_best),
        prepare=lambda key, state: (),
        propose=lambda key, plan, i: (space.sample(key), ()),
        update=update,
        best=lambda state: (state.genotypes, state.valid),
    )
