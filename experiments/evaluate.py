"""Measure what a run has found, finished or not, on fresh seeds.

    python -m experiments.evaluate --workdir=runs/quickstart --episodes=100 --seed=1

Of a finished run the policy in `policy.npz`; of another one the best contender of its newest
checkpoint, chosen as the run itself would. Nothing is written: the run may be going on. Seeds are
those of no training, choice or report, whatever the run's own seed.
"""

import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from esenas_jax import _checks
from esenas_jax.answer import Contender, choose_answer, examine, exams, reevaluate
from esenas_jax.search import Search
from esenas_jax.types import Evaluation, Key, Stream, stream
from experiments import command_line
from experiments.build import ConfigError, Plan, describe, plan
from experiments.checkpoints import CheckpointError, Checkpoints
from experiments.command_line import failure
from experiments.policy_file import load_contender
from experiments.progress import EVERY_SECONDS, say
from experiments.results import measured, table, worth
from experiments.workdir import Workdir, WorkdirError

AT_A_TIME = 256  # episodes of one call; between two it is said how far they are


def evaluate(workdir: Workdir, episodes: int = 100, seed: int = 1) -> dict[str, Any]:
    """Return what the run is worth, as `worth` does, and `run`: what was measured.

    Args:
        workdir: of a run.
        episodes: at least 2; a task that is reported on an exam has its examples for episodes.
        seed: of their starts, in [0, 2^32).

    Raises:
        ConfigError, WorkdirError, CheckpointError, RunError: in one sentence.
    """
    try:
        episodes = _checks.integer("episodes", episodes, 2)
        seed = _checks.integer("seed", seed, 0, 2**32 - 1)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    # On one device, whatever the run has: the same seed gives the same number.
    alone = {
        "devices": 1, "devices_share": "candidates", "virtual_shards": None, "deterministic": False
    }  # fmt: skip
    stored = workdir.read("config.json") | alone
    if "trained" in stored.get("policy", {}) and workdir.finished():
        # The run that it was trained in may be gone: what it found is in this one's file.
        stored["policy"]["trained"] = _trained(workdir.path / "policy.npz")
    config = ConfigDict(stored)
    run = plan(config)
    try:
        about, chosen = _chosen(workdir, run)
        key = stream(jax.random.key(seed), 0, Stream.EVALUATE)
        field = jax.tree.map(lambda x: jnp.asarray(x)[None], chosen)
        exam = exams(run.search.task)[1]
        if exam is None:
            seen = _measured(run.search, key, field, episodes)
        else:  # it is the same for every seed, and has a length of its own
            seen = jax.jit(partial(examine, run.search, exam))(field)
            seen = jax.device_get(jax.tree.map(jnp.ravel, seen))
    except (CheckpointError, WorkdirError):
        raise
    except Exception as error:
        raise failure("measuring", error) from error
    return {"run": f"{describe(config)}, {about}"} | worth(seen)


def _measured(search: Search, key: Key, field: Contender, episodes: int) -> Evaluation:
    """Return the evaluations [episodes] of a contender [1], and say how far they are."""
    at_a_time = min(episodes, AT_A_TIME)
    run = jax.jit(partial(reevaluate, search))
    began, due, parts = time.perf_counter(), EVERY_SECONDS, []
    for first in range(0, episodes, at_a_time):
        starts = first + np.arange(at_a_time, dtype=np.int32)[None]  # past the last: not counted
        parts.append(jax.device_get(jax.tree.map(jnp.ravel, run(key, field, starts))))
        done, took = min(first + at_a_time, episodes), time.perf_counter() - began
        if took >= due and done < episodes:
            due = took + EVERY_SECONDS
            left = took / done * (episodes - done)
            say(f"{done:,} of {episodes:,} episodes, {took:.0f} s, {left:.0f} s left")
    return jax.tree.map(lambda *x: np.concatenate(x)[:episodes], *parts)


def _trained(path: Path) -> list[float]:
    try:
        with np.load(path) as file:
            return file["trained"].tolist()
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise WorkdirError(f"cannot use the policy of a finished run: {error}") from error


def _chosen(workdir: Workdir, run: Plan) -> tuple[str, Contender]:
    if workdir.finished():
        try:
            chosen = load_contender(workdir.path / "policy.npz", run.search)
        except (OSError, ValueError, KeyError) as error:
            raise WorkdirError(f"cannot use the policy of a finished run: {error}") from error
        return f"finished after {run.generations} generations", chosen
    checkpoints = Checkpoints(workdir.path / "checkpoints", read_only=True)
    if run.number is not None:
        raise WorkdirError(
            f"{workdir.path} holds {run.number} runs that are not finished: only then can they be "
            "evaluated."
        )
    found = checkpoints.latest(jax.eval_shape(run.searcher.init, run.run_key))
    if found is None:
        raise WorkdirError(f"{workdir.path} has no checkpoint yet: there is nothing to evaluate.")
    for damaged in found.damaged:
        say(f"A checkpoint is damaged: {damaged}.")
    state = run.searcher.deployed(jax.tree.map(jnp.asarray, found.state))
    answer = choose_answer(run.search, run.run_key, state, run.answer_episodes)
    return f"generation {found.generation} of {run.generations}", answer.chosen


def main() -> None:
    """Measure and print."""
    found = evaluate(Workdir(_WORKDIR.value or ""), _EPISODES.value, _SEED.value)
    say(table({"Run": found["run"]} | measured(found, f"of seed {_SEED.value}")))


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run.")
    _EPISODES = flags.DEFINE_integer("episodes", 100, "How many episodes to measure, at least 2.")
    _SEED = flags.DEFINE_integer("seed", 1, "Of their starts.")
    command_line.run(main, "workdir")
