"""Every Brax environment on each of its backends: one generation under the runner.

    python -m benchmarks.environments [--quick] [--json=PATH]

A functional check, not a timing: five candidates of 16 steps each, then the answer. It takes about
an hour on two cores, nearly all of it compiling; with --json, rows that the file has are not run
again. --quick runs one environment on each backend.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from benchmarks.measure import Row, command_line, report
from esenas_jax import tasks
from esenas_jax.tasks.brax import BACKENDS
from experiments.build import section
from experiments.command_line import configure_jax
from experiments.configs.base import base
from experiments.train import train
from experiments.workdir import Workdir

# Brax makes each of these on all four backends, except for those that say otherwise.
ENVIRONMENTS = (
    "ant", "fast", "halfcheetah", "hopper", "humanoid", "humanoidstandup",
    "inverted_double_pendulum", "inverted_pendulum", "pusher", "reacher", "swimmer", "walker2d",
)  # fmt: skip
ONLY = {"swimmer": ("generalized",)}


def combinations() -> Iterator[tuple[str, str]]:
    """Yield every environment and backend that Brax has."""
    for backend in BACKENDS:
        for name in ENVIRONMENTS:
            if backend in ONLY.get(name, BACKENDS):
                yield name, backend


def small_config(name: str, backend: str) -> ConfigDict:
    """Return the config of one generation: five candidates of at most 16 steps."""
    world = tasks.brax_environment(name, backend)
    config = base()
    config.generations = 1
    config.answer_episodes = 2
    config.task = section("task", environment=name, backend=backend, horizon=16, normalizer="es")
    edges = min(8, world.obs_size * world.action_size)
    config.policy = section("policy", "edge_pruned", hidden=(), num_edges=edges)
    config.strategy = section("strategy", "es", num_directions=2, num_exact=1)
    config.controller = section("controller", "random")
    config.population = section("population", lanes=5, refill_every=16)
    return config


def one_generation(name: str, backend: str, folder: str | Path) -> dict[str, Any]:
    """Run one generation in a folder and return the result, as in `result.json`."""
    return train(small_config(name, backend), Workdir(folder))


def main() -> None:
    """Run what was not run yet, print, write after every row."""
    arguments = command_line(__doc__)
    configure_jax()
    done: dict[str, Row] = {}
    if arguments.json and arguments.json.exists():
        for row in json.loads(arguments.json.read_text())["rows"]:
            row.pop("holds")
            done[row["name"]] = Row(**row)
    rows = []
    for name, backend in combinations():
        title = f"{name}, {backend}"
        if title in done:
            rows.append(done[title])
            continue
        if arguments.quick and name != "inverted_pendulum":
            rows.append(Row(title, None, None, "return", None, None))
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = one_generation(name, backend, folder)
        rows.append(Row(title, result["return"]["mean"], None, "return", None, None))
        jax.clear_caches()
        if not arguments.quick:
            report("environments", rows, arguments.json)
    report("environments", rows, arguments.json)


if __name__ == "__main__":
    main()
