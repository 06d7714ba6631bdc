"""A policy from three functions of the user's own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.policies.costs import cost
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key, PyTree


def custom(
    obs_size: int,
    action_size: int,
    space: Space,
    init: Callable[[Key], Array],
    bind: Callable[[Array, Genotype], PyTree],
    apply: Callable[[PyTree, Array], Array],
) -> Policy:
    """Return a policy over any space, whose every parameter counts as a weight on an edge.

    `_replace` its `used` and `cost` by functions that know more of the network.

    Args:
        obs_size: O, at least 1.
        action_size: A, at least 1.
        space: what an architecture can be.
        init: key -> parameters float32 [P].
        bind: parameters [P], genotype -> network, once an episode.
        apply: network, observation float32 [O] -> action float32 [A], once a step.

    Raises:
        TypeError, ValueError: if the functions do not fit together; found without computing.
    """
    _checks.integer("obs_size", obs_size, 1)
    _checks.integer("action_size", action_size, 1)
    if not isinstance(space, Space):
        raise TypeError(f"space must be a search space, got {space!r}.")
    key = jax.eval_shape(jax.random.key, 0)
    params = jax.eval_shape(init, key)
    if not _is_float32(params) or params.ndim != 1:
        raise ValueError(f"init must return float32 [P], got {_described(params)}.")
    obs = jax.ShapeDtypeStruct((obs_size,), jnp.float32)
    network = jax.eval_shape(bind, params, jax.eval_shape(space.sample, key))
    action = jax.eval_shape(apply, network, obs)
    if not _is_float32(action) or action.shape != (action_size,):
        raise ValueError(
            f"apply must return an action float32 of shape ({action_size},), got "
            f"{_described(action)}."
        )
    size = params.size
    return Policy(
        obs_size=obs_size,
        action_size=action_size,
        num_params=size,
        max_edges=size,
        space=space,
        init=init,
        bind=bind,
        apply=apply,
        used=lambda genotype: jnp.ones(size, bool),
        cost=lambda genotype: cost(edges=size, weights=size, biases=0),
    )


def _is_float32(x: PyTree) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct) and x.dtype == jnp.float32


def _described(x: PyTree) -> str:
    if isinstance(x, jax.ShapeDtypeStruct):
        return f"{x.dtype} of shape {x.shape}"
    return f"a {type(x).__name__}"
