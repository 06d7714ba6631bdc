"""`policy.npz`: all that it takes to act."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from esenas_jax.answer import Contender, actor
from esenas_jax.policies import Policy
from esenas_jax.search import Search
from esenas_jax.tasks.normalizer import Moments
from esenas_jax.tasks.task import Episodes
from esenas_jax.types import Genotype
from experiments.build import build_policy, describes_a_policy, trained_policy
from experiments.workdir import write_whole


def save_policy(path: Path, search: Search, config: Any, chosen: Contender) -> None:
    """Write weights, genotype, normaliser and the policy's config.

    Args:
        path: of the file.
        search: that found it.
        config: that built the search.
        chosen: what to deploy.
    """
    task = search.task
    mean, scale = np.zeros(task.obs_size, np.float32), np.ones(task.obs_size, np.float32)
    if isinstance(task, Episodes) and task.normalizer.enabled:
        mean, scale = map(np.asarray, task.normalizer.affine(chosen.moments))
    described = {
        "policy": config.policy.to_dict(),
        "obs_size": task.obs_size,
        "action_size": task.action_size,
    }
    arrays: dict[str, Any] = {}
    if "trained" in config.policy:  # a file that may be gone one day: it is in this one
        arrays["trained"] = trained_policy(config.policy.trained).weights
    arrays |= {
        f"genotype_{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(chosen.genotype))
    }
    file = io.BytesIO()
    np.savez(
        file,
        weights=np.asarray(chosen.params),
        normalizer_mean=mean,
        normalizer_scale=scale,
        config=np.array(json.dumps(described)),
        **{f"moments_{name}": np.asarray(x) for name, x in chosen.moments._asdict().items()},
        **arrays,
    )
    write_whole(path, file.getvalue())


def load_policy(path: str | os.PathLike[str]) -> Callable[[ArrayLike], jax.Array]:
    """Return observation [O] -> action [A], with nothing but the file; it can be jitted.

    Observations [B, O] give actions [B, A]; the function refuses another shape with a ValueError.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it holds no policy.
    """
    arrays = _arrays(path)
    described = json.loads(str(arrays["config"]))
    if "trained" in arrays:
        described["policy"]["trained"] = arrays["trained"].tolist()
    try:
        policy = build_policy(described, described["obs_size"], described["action_size"])
    except ValueError as error:
        raise ValueError(f"{path} holds no policy: {error}") from error
    _check(path, policy, arrays)
    network = policy.bind(jnp.asarray(arrays["weights"]), _genotype(path, policy, arrays))
    mean, scale = jnp.asarray(arrays["normalizer_mean"]), jnp.asarray(arrays["normalizer_scale"])
    return actor(policy, network, mean, scale)


def load_contender(path: str | os.PathLike[str], search: Search) -> Contender:
    """Return what a file holds, to be evaluated by the search that found it.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it is not of this search.
    """
    arrays = _arrays(path)
    _check(path, search.policy, arrays)
    return Contender(
        params=jnp.asarray(arrays["weights"]),
        genotype=_genotype(path, search.policy, arrays),
        moments=Moments(*(jnp.asarray(arrays[f"moments_{name}"]) for name in Moments._fields)),
    )


def _arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a policy's file, whose config describes a policy."""
    needed = {"weights", "normalizer_mean", "normalizer_scale", "config"}
    needed |= {f"moments_{name}" for name in Moments._fields}
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no policy: {error}.") from error
    if missing := needed - set(arrays):
        raise ValueError(f"{path} holds no policy: {', '.join(sorted(missing))} is missing.")
    try:
        described = json.loads(str(arrays["config"]))
    except ValueError as error:
        raise ValueError(f"{path} holds no policy: its config is no JSON: {error}.") from error
    if not describes_a_policy(described):
        raise ValueError(f"{path} holds no policy: its config has none.")
    return arrays


def _check(path: str | os.PathLike[str], policy: Policy, arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless the numbers are finite, and as many as a policy has."""
    inputs = (policy.obs_size,)
    shapes = {
        "weights": (policy.num_params,), "normalizer_mean": inputs, "normalizer_scale": inputs,
        "moments_count": (), "moments_mean": inputs, "moments_deviation": inputs,
    }  # fmt: skip
    for name, shape in shapes.items():
        found = arrays[name]
        if found.shape != shape or not np.issubdtype(found.dtype, np.floating):
            raise ValueError(
                f"{path} must hold {name} of shape {shape}, got {found.dtype} of {found.shape}."
            )
        if not np.isfinite(found).all():
            raise ValueError(f"{path} must hold finite numbers, got others in {name}.")


def _genotype(
    path: str | os.PathLike[str], policy: Policy, arrays: dict[str, np.ndarray]
) -> Genotype:
    structure = jax.tree.structure(jax.eval_shape(policy.space.sample, jax.random.key(0)))
    names = [f"genotype_{i}" for i in range(structure.num_leaves)]
    if missing := set(names) - set(arrays):
        raise ValueError(f"{path} holds no policy: {', '.join(sorted(missing))} is missing.")
    genotype = structure.unflatten([jnp.asarray(arrays[name]) for name in names])
    try:
        policy.space.validate(genotype)
    except ValueError as error:
        raise ValueError(f"{path} must hold an architecture of the policy: {error}") from error
    return genotype
