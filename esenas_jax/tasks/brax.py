"""Brax environments behind this package's own protocol."""

import contextlib
import functools
import importlib
import inspect
import io
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.tasks.environment import Environment, Transition
from esenas_jax.types import Array, Key, PyTree

BACKENDS = ("generalized", "positional", "spring", "mjx")
# The metric that holds the reward for being alive; environments that have none pay none.
_BONUS_METRICS = ("reward_healthy", "reward_alive", "reward_survive")
# Those whose episodes never end before the horizon.
_ENDLESS = ("fast", "halfcheetah", "humanoidstandup", "pusher", "reacher", "swimmer")


def brax_environments() -> list[str]:
    """Return the names of all environments that are registered with Brax."""
    return sorted(_imported()._envs)


def brax_environment(name: str, backend: str | None = None, **kwargs: Any) -> Environment:
    """Return a registered Brax environment.

    None of Brax's training wrappers are used: they double the state and simulate the dead.

    Args:
        name: as registered with `brax.envs`, "hopper" say; environments of the user's own are
            found once `brax.envs.register_environment` has been called.
        backend: one of `BACKENDS`; by default the environment's own choice.
        **kwargs: passed to the environment's constructor.

    Raises:
        ValueError: if Brax knows no such environment or backend (the known ones are listed), or
            the environment does not support the backend, or its observations are not one vector.
    """
    _checks.known("environment", name, brax_environments())
    envs = _imported()
    if backend is not None:
        _checks.known("backend", backend, BACKENDS)
        kwargs["backend"] = backend
    try:
        with _border():
            env: Any = envs.get_environment(name, **kwargs)
            action_size = env.action_size

        # Brax is slow to trace, and a program traces it many times: a trace is kept, and goes into
        # each program as if it were made anew.
        @functools.partial(jax.jit, inline=True)
        def reset(key: Key) -> tuple[PyTree, Array]:
            # Brax's own code wants the raw key data.
            with _border():
                state = env.reset(jax.random.key_data(key))
            return state, state.obs

        # `env.observation_size` would run a reset, and compile each of its operations.
        obs = jax.eval_shape(reset, jax.random.key(0))[1]
    except (ValueError, NotImplementedError, AssertionError, TypeError) as error:
        chosen = ", ".join(f"{k}={v!r}" for k, v in kwargs.items())
        raise ValueError(f"Brax cannot make {name} with {chosen}: {error}") from error

    if getattr(obs, "ndim", None) != 1:
        raise ValueError(f"observations must be one vector; those of {name} are {obs}.")

    def transition(state: Any) -> Transition:
        bonus = sum(
            (state.metrics[m] for m in _BONUS_METRICS if m in state.metrics),
            start=jnp.zeros((), jnp.float32),
        )
        return Transition(state.obs, state.reward, bonus, state.done > 0.5)

    @functools.partial(jax.jit, inline=True)
    def step(state: PyTree, action: Array) -> tuple[PyTree, Transition]:
        with _border():
            new = env.step(state, action)
        return new, transition(new)

    endless = name in _ENDLESS or kwargs.get("terminate_when_unhealthy") is False
    return Environment(obs.shape[-1], action_size, reset, step, endless)


def _imported() -> Any:
    """Return `brax.envs`, imported here because that takes seconds and brings MuJoCo.

    MJX prints that it has no Warp, which says nothing of the user's run.
    """
    with _border(), contextlib.redirect_stdout(_OthersAlone(sys.stdout)):
        envs = importlib.import_module("brax.envs")
        _repair_fluid()
    return envs


class _OthersAlone(io.TextIOBase):
    """A stream that drops what the thread that made it writes, and passes on what others write."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write a text, or drop it; return its length."""
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def flush(self) -> None:
        """Flush what others wrote."""
        self._stream.flush()


def _repair_fluid() -> None:
    """Give Brax's fluid forces, which Swimmer alone uses, the `clip` they were written for.

    Brax 0.14.2 calls it with a keyword that JAX 0.10 no longer has; a Brax that does not is left
    alone.
    """
    fluid: Any = importlib.import_module("brax.fluid")
    if "a_min=" in inspect.getsource(fluid):
        names = {**vars(jnp), "clip": lambda x, a_min: x.clip(a_min)}
        fluid.jp = types.SimpleNamespace(**names)


@contextlib.contextmanager
def _border() -> Iterator[None]:
    """Let Brax mix dtypes and ranks as it does, and keep back what says nothing of the user's run.

    Brax warns that it and what it needs are not developed further, MuJoCo writes its warnings about
    Brax's models to a file in the current folder.
    """
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        mujoco: Any = importlib.import_module("mujoco")
        mujoco.set_mju_user_warning(lambda message: None)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(None)
