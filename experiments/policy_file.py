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

from esenas_jax.answer import Contender
from esenas_jax.policies import Policy
from esenas_jax.search import Search
from esenas_jax.tasks.normalizer import Moments
from esenas_jax.tasks.task import Episodes
from esenas_jax.types import Genotype
from experiments.build import build_policy, trained_policy
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


def load_policy(path: str | os.PathLike[str]) -> Callable[[jax.Array], jax.Array]:
    """Return observation [O] -> action [A], with nothing but the file; it can be jitted.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it holds no policy.
    """
    arrays = _arrays(path)
    described = json.loads(str(arrays["config"]))
    if "trained" in arrays:
        described["policy"]["trained"] = arrays["trained"].tolist()
    policy = build_policy(described, described["obs_size"], described["action_size"])
    network = policy.bind(jnp.asarray(arrays["weights"]), _genotype(policy, arrays))
    mean, scale = jnp.asarray(arrays["normalizer_mean"]), jnp.asarray(arrays["normalizer_scale"])
    return lambda obs: policy.apply(network, (obs - mean) * scale)


def load_contender(path: str | os.PathLike[str], search: Search) -> Contender:
    """Return what a file holds, to be evaluated by the search that found it.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it is not of this search.
    """
    arrays = _arrays(path)
    wanted = (search.policy.num_params,)
    if arrays["weights"].shape != wanted:
        raise ValueError(f"{path} must hold weights {wanted}, got {arrays['weights'].shape}.")
    return Contender(
        params=jnp.asarray(arrays["weights"]),
        genotype=_genotype(search.policy, arrays),
        moments=Moments(*(jnp.asarray(arrays[f"moments_{name}"]) for name in Moments._fields)),
    )


def _arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    needed = {"weights", "normalizer_mean", "normalizer_scale", "config"}
    needed |= {f"moments_{name}" for name in Moments._fields}
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no policy: {error}.") from error
    if missing := needed - set(arrays):
        raise ValueError(f"{path} holds no policy: {', '.join(sorted(missing))} is missing.")
    return arrays


def _genotype(policy: Policy, arrays: dict[str, np.ndarray]) -> Genotype:
    structure = jax.tree.structure(jax.eval_shape(policy.space.sample, jax.random.key(0)))
    leaves = [jnp.asarray(arrays[f"genotype_{i}"]) for i in range(structure.num_leaves)]
    genotype = structure.unflatten(leaves)
    policy.space.validate(genotype)
    return genotype
