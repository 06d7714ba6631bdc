"""One clear sentence for bad input: the name, what is allowed, and the value that was given."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` if it is an integer in [low, high]; raise TypeError or ValueError if not."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    value = value.__index__()
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {allowed}, got {value}.")
    return value


def devices(value: Any) -> int:
    """Return `value` if JAX has as many devices; raise TypeError or ValueError if not."""
    wanted = integer("devices", value, 1)
    if wanted > 1 and wanted > (found := jax.device_count()):  # to count devices starts them
        each = -(-wanted // jax.process_count())
        more = (
            f"; to split the CPU into {each}, add --xla_force_host_platform_device_count={each} to "
            "XLA_FLAGS"
            if jax.default_backend() == "cpu"
            else ""
        )
        raise ValueError(f"devices must be in [1, {found}], got {wanted}{more}.")
    return wanted


def positive(name: str, value: Any) -> float:
    """Return `value` as a float if it is finite and above zero; raise ValueError if not."""
    number = real(name, value)
    # As float32, in which it will be computed with: 1e-50 is 0 there, and 1e39 infinite.
    with np.errstate(all="ignore"):
        rounded = np.float32(number)
    if not (np.isfinite(rounded) and rounded > 0):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}.")
    return number


def real(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a float if it is finite and in [low, high]; raise if not."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not (math.isfinite(value) and low <= value <= high):
        allowed = f"in [{low:g}, {high:g}]"
        if high == math.inf:
            allowed = "finite" if low == -math.inf else f"finite and at least {low:g}"
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")
    return float(value)


def share(name: str, value: Any, whole: bool = True) -> float:
    """Return `value` as a float if it is in (0, 1], as a float32 too; raise if not.

    `whole` is whether it may be 1.
    """
    number = real(name, value)
    if not (0.0 < number <= 1.0 and np.float32(number) > 0.0 and (whole or number < 1.0)):
        raise ValueError(f"{name} must be in (0, 1{']' if whole else ')'}, got {value!r}.")
    return number


def kind(name: str, value: Any, *wanted: type) -> None:
    """Raise TypeError unless `value` is of one of these types."""
    if not isinstance(value, wanted):
        allowed = " or ".join(t.__name__ for t in wanted)
        raise TypeError(
            f"{name} must be of type {allowed}, got {type(value).__name__}; are two arguments "
            "swapped?"
        )


def function_of(name: str, value: Any, what: str, example: str) -> None:
    """Raise TypeError unless `value` is a function of something, and not what one returned."""
    if not callable(value):
        raise TypeError(
            f"{name} must be a function of {what}, {example} say and not {example}(0.1), got a "
            f"{type(value).__name__}."
        )


def known(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """Return `value` if it is one of `allowed`; raise ValueError that lists them if not."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}.")
    return value


def sizes(policy: Any, task: Any) -> None:
    """Raise ValueError unless a policy has the observation and action sizes of a task."""
    for name, size, wanted in (
        ("observation", policy.obs_size, task.obs_size),
        ("action", policy.action_size, task.action_size),
    ):
        if size != wanted:
            raise ValueError(f"the policy's {name} size must be the task's, {wanted}, got {size}.")
