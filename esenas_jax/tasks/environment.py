"""An environment: a world that goes on step by step.

What its functions return is checked while they are traced, which costs nothing: JAX would refuse
most of it later, deep inside a loop, in its own words.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax.types import Array, Key, PyTree


class Transition(NamedTuple):
    """What an environment returns from a step."""

    obs: Array  # float32 [O]
    reward: Array  # float32 []
    bonus: Array  # float32 [], the part of the reward paid for not having failed yet
    done: Array  # bool [], the episode has ended by itself (not by the horizon)


class Environment(NamedTuple):
    """A world that goes on step by step, as pure functions of one environment.

    Actions are in units of the actuators: [-1, 1] is their full range, and the environment clips
    what is outside where its definition does. Time limits are not the environment's affair.
    """

    obs_size: int
    action_size: int
    reset: Callable[[Key], tuple[PyTree, Array]]  # key -> (state, first observation [O])
    step: Callable[[PyTree, Array], tuple[PyTree, Transition]]  # state, action [A] -> ...
    # Whether `done` is never true. Nothing but the speed depends on it: more episodes are simulated
    # at a time where none ends before the others.
    endless: bool = False


def reset(environment: Environment, key: Key) -> tuple[PyTree, Array]:
    """Return an environment's first state, and its first observation, float32 [O].

    Raises:
        TypeError, ValueError: in one sentence, if the environment's reset returns something else.
    """
    state, obs = _pair("reset", "(state, observation)", environment.reset(key))
    return state, _observation("reset", environment, obs)


def step(environment: Environment, state: PyTree, action: Array) -> tuple[PyTree, Transition]:
    """Return the next state, and what an environment's step returns: float32, and bool for `done`.

    Raises:
        TypeError, ValueError: in one sentence, if the environment's step returns something else.
    """
    new, seen = _pair("step", "(state, Transition)", environment.step(state, action))
    if not isinstance(seen, Transition):
        raise TypeError(
            f"the environment's step must return (state, Transition), got (state, {_kind(seen)})."
        )
    _same_form(state, new)
    return new, Transition(
        obs=_observation("step", environment, seen.obs),
        reward=_scalar("reward", seen.reward).astype(jnp.float32),
        bonus=_scalar("bonus", seen.bonus).astype(jnp.float32),
        done=_scalar("done", seen.done).astype(bool),
    )


def _pair(function: str, wanted: str, found: Any) -> tuple[Any, Any]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise TypeError(f"the environment's {function} must return {wanted}, got {_kind(found)}.")
    return found[0], found[1]


def _observation(function: str, environment: Environment, obs: Any) -> Array:
    shape = (environment.obs_size,)
    if not _is_array(obs):
        raise TypeError(
            f"the environment's {function} must return an observation that is one array of shape "
            f"{shape}, got {_kind(obs)}."
        )
    if jnp.shape(obs) != shape:
        raise ValueError(
            f"the environment's {function} must return an observation of shape {shape}, got "
            f"{jnp.shape(obs)}."
        )
    return jnp.asarray(obs).astype(jnp.float32)


def _scalar(name: str, value: Any) -> Array:
    if not _is_array(value) and not isinstance(value, bool | int | float):
        raise TypeError(f"the environment's step must return one number as {name}, got {value!r}.")
    if jnp.shape(value) != ():
        raise ValueError(
            f"the environment's step must return one number as {name}, got an array of shape "
            f"{jnp.shape(value)}."
        )
    return jnp.asarray(value)


def _same_form(before: PyTree, after: PyTree) -> None:
    """Raise ValueError unless a state has the tree, shapes and dtypes of the one before it.

    A Python number in the first state has no dtype of its own yet: it takes that of the next.
    """
    old, new = _entries(before), _entries(after)
    for path in [*old, *new]:
        if (path in old) != (path in new):
            where = "only in the new one" if path in new else "missing in the new one"
            raise ValueError(
                f"the environment's step must return a state with the entries of the old one, got "
                f"state{path}, which is {where}."
            )
        if jnp.shape(old[path]) == jnp.shape(new[path]) and _same_dtype(old[path], new[path]):
            continue
        was, found = (_described(entries[path]) for entries in (old, new))
        raise ValueError(
            f"the environment's step must return a state that keeps the shape and dtype of every "
            f"entry, got {found} for state{path}, which was {was}."
        )
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(
            f"the environment's step must return a state of the same types, got {_kind(after)} "
            f"for {_kind(before)}."
        )


def _entries(state: PyTree) -> dict[str, Any]:
    """Return the leaves of a state, by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _same_dtype(old: Any, new: Any) -> bool:
    dtype, weak = jax.dtypes.result_type(old, return_weak_type_flag=True)
    following = jax.dtypes.result_type(new)
    return dtype == following or (weak and jnp.promote_types(dtype, following) == following)


def _described(x: Any) -> str:
    return f"{jax.dtypes.result_type(x)} of shape {jnp.shape(x)}"


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _kind(value: Any) -> str:
    """Return what a value is, in a few words."""
    if _is_array(value):
        return f"an array of shape {tuple(value.shape)}"
    if type(value) is tuple:
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"
