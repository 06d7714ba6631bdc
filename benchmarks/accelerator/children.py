"""What is asked of child processes, which have come and gone before their parent uses the device.

    python -m benchmarks.accelerator.children device
    python -m benchmarks.accelerator.children generation WORLD CANDIDATES HORIZON LOCK

XLA reads its flags when a process first uses it, so each side of the deterministic setting has a
process of its own. A GPU's memory is taken by whoever comes first: children take what they need.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.rows import Figure, Found, Measurement, Named, OutOfTime, lacking
from benchmarks.accelerator.sizes import Sizes
from benchmarks.measure import seconds
from esenas_jax import Population, controllers, es_enas, policies, strategies, tasks
from experiments.command_line import DeviceError, configure_jax, find_devices, xla_flags
from experiments.configs.base import base
from experiments.provenance import provenance

CORRECT = "Correct?"  # the stage
ROOT = Path(__file__).parent.parent.parent
REPEATS = 5
GENERATIONS = 3
CORES = 4  # that a child compiles well with
PATIENCE = 240.0  # seconds that a child may take
SECONDS = 90.0  # that the children of the deterministic setting are expected to take


def ask(*arguments: str, flags: Sequence[str] = (), patience: float = PATIENCE) -> dict[str, Any]:
    """Return what a child process of this module prints.

    Args:
        arguments: see the module's text.
        flags: of XLA, besides those of this process.
        patience: seconds that it may take.

    Raises:
        OutOfTime: if it takes longer.
        DeviceError: if the child says why it found no device.
        RuntimeError: with the child's last line, if it failed otherwise.
    """
    environment: Mapping[str, str] = {
        **os.environ,
        "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.accelerator.children", *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(patience, 0.0),
        )
    except subprocess.TimeoutExpired as error:
        raise OutOfTime from error
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        if line.startswith("error: "):
            raise DeviceError(line.removeprefix("error: "))
        raise RuntimeError(f"a child process ended with status {done.returncode}: {line}")
    return json.loads(done.stdout.splitlines()[-1])


def device() -> dict[str, Any]:
    """Return what JAX runs on, as a child finds it.

    Raises:
        DeviceError: if it finds nothing.
    """
    try:
        return ask("device")
    except RuntimeError as error:
        raise DeviceError(f"{error}.") from error
    except OutOfTime as error:
        raise DeviceError(f"JAX found no device within {PATIENCE:.0f} seconds.") from error


def compile_quickly() -> None:
    """Let XLA leave out most of its optimizations, here and in children, before it is first used.

    Programs compute the same to rounding, and run two to four times as long.
    """
    flags = ["--xla_backend_optimization_level=0"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones have no such flag
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()


def measurement(sizes: Sizes, time_left: Callable[[], float] = lambda: PATIENCE) -> Measurement:
    """Return the measurement of the deterministic setting: twice the same, and what it costs.

    Args:
        sizes: of what is measured.
        time_left: returns the seconds that it may take from then on.
    """
    world, candidates, horizon = sizes.deterministic
    config = base()
    config.deterministic = True
    deterministic = xla_flags(config)

    def measure(found: Found) -> list[Figure]:
        with (
            tempfile.NamedTemporaryFile() as lock,
            ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // CORES)) as pool,
        ):
            arguments = ("generation", world, str(candidates), str(horizon), lock.name)
            one, other, free = pool.map(
                lambda flags: ask(*arguments, flags=flags, patience=time_left()),
                (deterministic, deterministic, ()),
            )
        differ = float(one["digest"] != other["digest"])
        ratio = one["seconds"] / free["seconds"]
        details = {
            "world": world,
            "candidates": candidates,
            "horizon": horizon,
            "generations": GENERATIONS,
            "flags": deterministic,
            "default_has_the_same_bits": free["digest"] == one["digest"],
            "seconds": [one["seconds"], other["seconds"], free["seconds"]],
        }
        return [
            Figure(differ, (differ, differ), details=details),
            Figure(ratio, details=details),
        ]

    rows = (
        Named(f"{world}: deterministic setting, second processes that differ", "", 0, "at_most"),
        Named(f"{world}: time of a generation, deterministic / default", "x"),
    )
    absent = "" if world == "pendulum" else lacking("brax")
    return Measurement(
        CORRECT, rows, measure, kind="children", work=lambda found: SECONDS, absent=absent
    )


def generation(world: str, candidates: int, horizon: int, lock: Path) -> dict[str, Any]:
    """Return a digest of all numbers after some generations, and the median seconds of one.

    Args:
        world: "pendulum", or an environment of Brax.
        candidates: of ARS over a linear policy that starts from zeros.
        horizon: steps.
        lock: who times holds it.
    """
    chosen = tasks.pendulum() if world == "pendulum" else tasks.brax_environment(world, "spring")
    task = tasks.episodes(chosen, horizon=horizon, normalizer=tasks.ars_normalizer())
    policy = policies.dense(task.obs_size, (), task.action_size, weight_init=policies.zeros)
    search = es_enas(
        policy,
        task,
        strategies.ars(candidates // 2, 0),
        controllers.constant(policy.space),
        population=Population(lanes=candidates),
    )
    key = jax.random.key(0)
    state, step = jax.jit(search.init)(key), jax.jit(search.step)
    for _ in range(GENERATIONS):
        state, _ = step(key, state)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        times = [seconds(lambda: step(key, state)) for _ in range(REPEATS)]
    return {"digest": digest.hexdigest(), "seconds": float(np.median(times))}


def main() -> None:
    """Answer, in one line of JSON."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(1, 9)  # ends with its parent, however that ends
    what, *arguments = sys.argv[1:]
    configure_jax()
    try:
        find_devices()
    except DeviceError as error:
        sys.exit(f"error: {error}")
    if what == "device":
        first = jax.devices()[0]
        answer = {"device": first.device_kind, "platform": first.platform}
        answer |= {"count": jax.device_count(), "commit": provenance()["commit"]}
    else:
        world, candidates, horizon, lock = arguments
        answer = generation(world, int(candidates), int(horizon), Path(lock))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
