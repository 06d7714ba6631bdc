"""`policy.npz`: all that it takes to act."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax.answer import Contender
from esenas_jax.search import Search
from esenas_jax.tasks.task import Episodes
from experiments.build import build_policy


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
    arrays: dict[str, Any] = {
        f"genotype_{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(chosen.genotype))
    }
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        np.savez(
            file,
            weights=np.asarray(chosen.params),
            normalizer_mean=mean,
            normalizer_scale=scale,
            config=np.array(json.dumps(described)),
            **arrays,
        )
    partial.replace(path)


def load_policy(path: str | os.PathLike[str]) -> Callable[[jax.Array], jax.Array]:
    """Return observation [O] -> action [A], with nothing but the file; it can be jitted.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it holds no policy.
    """
    with np.load(path) as file:
        missing = {"weights", "normalizer_mean", "normalizer_scale", "config"} - set(file)
        if missing:
            raise ValueError(f"{path} holds no policy: {', '.join(sorted(missing))} is missing.")
        arrays = {name: file[name] for name in file}
    described = json.loads(str(arrays["config"]))
    policy = build_policy(described, described["obs_size"], described["action_size"])
    structure = jax.tree.structure(jax.eval_shape(policy.space.sample, jax.random.key(0)))
    leaves = [jnp.asarray(arrays[f"genotype_{i}"]) for i in range(structure.num_leaves)]
    genotype = structure.unflatten(leaves)
    policy.space.validate(genotype)
    network = policy.bind(jnp.asarray(arrays["weights"]), genotype)
    mean, scale = jnp.asarray(arrays["normalizer_mean"]), jnp.asarray(arrays["normalizer_scale"])
    return lambda obs: policy.apply(network, (obs - mean) * scale)
