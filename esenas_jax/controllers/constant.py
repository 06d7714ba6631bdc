"""One architecture for ever: ES-ENAS with this controller is plain ES, or plain ARS."""

import jax
import jax.numpy as jnp

from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key, PyTree


def constant(space: Space, genotype: Genotype | None = None) -> Controller:
    """Return the controller that always proposes the same architecture.

    Args:
        space: of the policy.
        genotype: the architecture; by default one drawn at random when the run starts (a random
            mask, a random colouring). Of a dense policy there is only one.

    Raises:
        ValueError: if `genotype` is none of the space's.
    """
    if genotype is not None:
        space.validate(genotype)

    def init(key: Key) -> Genotype:
        return space.sample(key) if genotype is None else jax.tree.map(jnp.asarray, genotype)

    def update(
        key: Key, state: Genotype, genotypes: Genotype, info: PyTree, scores: Array, valid: Array
    ) -> tuple[Genotype, Metrics]:
        del key, genotypes, info, scores, valid
        return state, {}

    return Controller(
        space=space,
        init=init,
        prepare=lambda key, state: state,
        propose=lambda key, plan, i: (plan, ()),
        update=update,
        best=lambda state: (jax.tree.map(lambda x: x[None], state), jnp.ones(1, bool)),
    )
