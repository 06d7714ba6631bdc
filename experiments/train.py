"""Train one run.

    python -m experiments.train --config=experiments/configs/quickstart.py --workdir=runs/quickstart

Any field of the config can be overridden, `--config.strategy.noise_std=0.05` say; a config's short
variant stands behind a colon, `--config=experiments/configs/quickstart.py:smoke`. The same command
goes on with a run that was stopped or killed, and comes to the same bits. All side effects of a run
are here: the library computes, and this file reads, prints, times and writes.
"""

import dataclasses
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from numpy.typing import ArrayLike

from esenas_jax import _checks
from esenas_jax.answer import Answer, choose_answer
from esenas_jax.search import Metrics, Search, SearchState
from esenas_jax.types import Evaluation
from experiments import command_line
from experiments.build import ConfigError, build, describe, require
from experiments.checkpoints import Checkpoints
from experiments.command_line import RunError, xla_flags
from experiments.metrics_log import MetricsLog, read_rows
from experiments.policy_file import save_policy
from experiments.progress import Progress
from experiments.provenance import changed, peak_memory, provenance
from experiments.report import draw_network, learning_curve
from experiments.stopping import STOPPED, Stopping
from experiments.workdir import Workdir, WorkdirError, finite

MAX_DISCARDED = 3  # generations in a row
RESUME = ("auto", "never", "must")

Step = Callable[[jax.Array, SearchState], tuple[SearchState, Metrics]]


@dataclasses.dataclass
class Run:
    """A run under way: what its config says, checked, and where it is written to."""

    config: ConfigDict
    search: Search
    run_key: jax.Array
    generations: int
    checkpoint_every: int
    answer_episodes: int
    workdir: Workdir
    checkpoints: Checkpoints
    stopping: Stopping
    origin: dict[str, Any]  # its provenance
    seconds: dict[str, float]  # of this start

    def account(self) -> None:
        """Write down where the run comes from, and what it took so far."""
        spent = {"seconds": self.seconds, "peak_memory": peak_memory()}
        self.workdir.write("provenance.json", self.origin | spent)


def train(
    config: ConfigDict, workdir: Workdir, resume: str = "auto", stopping: Stopping | None = None
) -> dict[str, Any]:
    """Carry out a run, or what is left of it, and return its result, as in `result.json`.

    Args:
        config: the complete config.
        workdir: where the run is written to.
        resume: "auto" goes on from the newest checkpoint if there is one, "never" refuses a folder
            that holds a run, "must" one without a checkpoint.
        stopping: asks the run to stop after a generation.

    Raises:
        ConfigError, WorkdirError, CheckpointError, RunError: in one sentence.
    """
    resume = _checks.known("resume", resume, RESUME)
    with workdir.claim():
        begun = workdir.holds(config.to_dict(), _may_differ(config))
        if begun and resume == "never":
            raise WorkdirError(
                f"{workdir.path} holds a run, and --resume=never: choose another --workdir, or "
                "remove that folder."
            )
        if begun and (result := workdir.finished()):
            print(f"The run in {workdir.path} is finished. Remove that folder to train it again.")
            return result
        checkpoints = Checkpoints(workdir.path / "checkpoints")
        if resume == "must" and not (begun and checkpoints.generations()):
            raise WorkdirError(
                f"{workdir.path} holds no checkpoint to go on from, and --resume=must."
            )
        fields = checked(config)
        run = Run(
            **fields,
            config=config,
            workdir=workdir,
            checkpoints=checkpoints,
            stopping=stopping or Stopping(),
            origin=provenance() | {"devices_used": fields["search"].population.devices},
            seconds={"compile": 0.0, "run": 0.0, "host": 0.0, "answer": 0.0},
        )
        try:
            return _carry_out(run, begun)
        except OSError as error:
            raise RunError(
                f"cannot write to {workdir.path} ({error.strerror or error}); what was saved is "
                "intact: make room, and run the same command again."
            ) from error


def _may_differ(config: ConfigDict) -> set[str]:
    """Return the fields that change nothing of what a run comes to."""
    return {"checkpoint_every"} | ({"devices"} if config.get("virtual_shards") else set())


def checked(config: ConfigDict) -> dict[str, Any]:
    """Return what a config says, as fields of a Run; raise ConfigError if it cannot be."""
    require(config, "generations", "checkpoint_every", "answer_episodes", "seed", "deterministic")
    try:
        if not isinstance(config.deterministic, bool):
            raise TypeError(f"deterministic must be True or False, got {config.deterministic!r}.")
        out = {
            "generations": _checks.integer("generations", config.generations, 1, 2**31 - 1),
            "checkpoint_every": _checks.integer("checkpoint_every", config.checkpoint_every, 1),
            "answer_episodes": _checks.integer("answer_episodes", config.answer_episodes, 2),
            "run_key": jax.random.key(_checks.integer("seed", config.seed, 0, 2**32 - 1)),
            "search": build(config),
        }
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    missing = [f for f in xla_flags(config) if f not in os.environ.get("XLA_FLAGS", "").split()]
    if missing:
        print(f"Note: the same bits are promised only with XLA_FLAGS={' '.join(missing)}.")
    return out


def _carry_out(run: Run, begun: bool) -> dict[str, Any]:
    config, search, workdir = run.config, run.search, run.workdir
    if begun:
        run.origin["earlier"] = _earlier(workdir, run.origin)
    else:
        workdir.write("config.json", config.to_dict())
    run.account()
    print(f"{describe(config)} on {_devices(run.origin)}:")
    print(
        f"{search.num_candidates} candidates a generation, {search.policy.num_params} parameters, "
        f"architectures from {search.policy.space}."
    )
    state, step = _compile(run)
    totals = {"env_steps": 0, "episodes": 0}
    if begun and (found := run.checkpoints.latest(state)):
        for damaged in found.damaged:
            print(f"A checkpoint is damaged and was removed: {damaged}.")
        print(f"Going on from the checkpoint of generation {found.generation}.", flush=True)
        # As the compiled program wants them: on all devices.
        state = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), found.state, state)
        totals = found.totals
    run.origin["from_generation"] = int(state.generation)
    with MetricsLog(workdir.path, int(state.generation)) as log:
        state = _generations(run, log, state, step, totals)

    print(
        f"Choosing the answer, then measuring it on untouched seeds, {run.answer_episodes} "
        "episodes each; the program for that is compiled first.",
        flush=True,
    )
    started = time.perf_counter()
    answer = jax.device_get(choose_answer(search, run.run_key, state, run.answer_episodes))
    run.seconds["answer"] = time.perf_counter() - started
    run.account()
    rows = read_rows(workdir.path)
    save_policy(workdir.path / "policy.npz", search, config, answer.chosen)
    try:
        _pictures(workdir, rows, search, answer, describe(config))
    finally:
        # The last of all: with it the run is finished.
        workdir.write("result.json", _result(search, answer, rows[0], rows[-1]))
    return workdir.read("result.json")


def _generations(
    run: Run, log: MetricsLog, state: SearchState, step: Step, totals: dict[str, int]
) -> SearchState:
    """Carry out the generations that are left; return the last state."""
    first, last = int(state.generation), run.generations
    good, good_totals = state, totals  # a discarded generation is not saved: it learnt nothing

    def save() -> None:
        log.sync()
        run.checkpoints.save(good, good_totals)
        run.account()

    with Progress(last, first) as progress:
        run.stopping.saves = True
        all_equal = False
        began = time.perf_counter()
        for generation in range(first, last):
            started = time.perf_counter()
            try:
                state, metrics = step(run.run_key, state)
                row = _row(jax.device_get(metrics), totals)
            except Exception as error:
                save()
                raise _failed(run, f"generation {generation}", error) from error
            run.seconds["run"] += time.perf_counter() - started
            totals = {name: row[name] for name in totals}
            log.add(row)
            progress.update(row)
            if not all_equal and row["fitness_min"] is not None:
                all_equal = row["fitness_min"] == row["fitness_max"]
                if all_equal:
                    print(_ALL_EQUAL.format(**row))
            if row["discarded"] >= MAX_DISCARDED:
                save()
                raise RunError(_discarded(row, int(good.generation)))
            if not row["discarded"]:
                good, good_totals = state, totals
            run.seconds["host"] = time.perf_counter() - began - run.seconds["run"]
            if (generation + 1) % run.checkpoint_every == 0 or generation + 1 == last:
                save()
            if run.stopping.asked is not None and generation + 1 < last:
                save()
                print(
                    f"Stopped after generation {generation + 1} of {last}. The same command goes "
                    "on from there."
                )
                raise SystemExit(128 + run.stopping.asked)
        run.stopping.saves = False
    return state


_ALL_EQUAL = (
    "Generation {generation}: every candidate scored {fitness_max:.6g}; nothing can be learnt "
    "while all scores are equal."
)


def _discarded(row: Mapping[str, Any], good: int) -> str:
    why = (
        f"the scores of {row['failed']} candidates were not finite"
        if row["failed"]
        else "all scores were finite, but the update of the weights was not"
    )
    return (
        f"{MAX_DISCARDED} generations in a row were discarded; in the last, {why}. The checkpoint "
        f"of generation {good} is from before them."
    )


def _failed(run: Run, what: str, error: Exception) -> RunError:
    """Return one sentence for an error in what the user brought: a task, a policy, a space."""
    path = run.workdir.path / "traceback.txt"
    path.write_text("".join(traceback.format_exception(error)))
    lines = str(error).strip().splitlines() or [""]
    # What is raised on the host by a compiled program carries its traceback in its message.
    line = lines[-1] if "Traceback" in lines[0] else f"{type(error).__name__}: {lines[0]}"
    return RunError(f"{what} failed with {line.rstrip('.')} (see {path}).")


def _earlier(workdir: Workdir, origin: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the provenance of earlier starts, and say what has changed since the last."""
    try:
        last = workdir.read("provenance.json")
    except WorkdirError:
        return []
    if names := changed(last, origin):
        print(
            f"Note: {', '.join(names)} changed since the run was begun: it may end with other bits "
            "than an unbroken one."
        )
    return [*last.pop("earlier", []), last]


def _devices(origin: Mapping[str, Any]) -> str:
    used, there = origin["devices_used"], origin["device_count"]
    more = f" (of {there}; --config.devices chooses how many)" if there > used else ""
    return f"{used} x {origin['device']}{more}"


def summary(result: dict[str, Any], workdir: Workdir) -> str:
    """Return the last lines of a run: what was found, and where to look at it."""
    origin = workdir.read("provenance.json")
    lines = measured(result)
    lines |= {
        "Edges": f"{result['edges']} of {result['possible_edges']}, "
        f"{result['weights']} distinct weights",
        "Devices": f"{origin['devices_used']} x {origin['device']}",
        "Pictures": f"{workdir.path / 'report'}: curve.png, network.png",
    }
    return table(lines)


def measured(result: Mapping[str, Any], on: str = "on untouched seeds") -> dict[str, str]:
    """Return the lines that say what a policy is worth."""
    lines = {"Return": _pm(result["return"])}
    if result["return"] != result["return_without_bonus"]:
        before = result.get("first_return_without_bonus")
        lines |= {
            "Return without alive bonus": _pm(result["return_without_bonus"])
            + ("" if before is None else f" (first generation {before:.4g})"),
        }
    if result["episode_length"]["mean"]:
        lines["Episode length"] = f"{_pm(result['episode_length'])} steps"
    failed = result["failed_episodes"]
    return lines | {
        "Measured on": f"{result['report_episodes']} episodes {on}, ± standard error"
        + (f"; {failed} of them failed" if failed else "")
    }


def table(lines: Mapping[str, str]) -> str:
    """Return lines with their names in a column."""
    return "\n".join(f"{name:27s} {value}" for name, value in lines.items())


def _compile(run: Run) -> tuple[SearchState, Step]:
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    later = f"later starts find it in {cache}" if cache else "the compilation cache is off"
    print(f"Compiling a generation. A Brax program takes about 20 s; {later}.", flush=True)
    started = time.perf_counter()
    try:
        state = jax.jit(run.search.init)(run.run_key)
        step = jax.jit(run.search.step).lower(run.run_key, state).compile()
    except Exception as error:
        raise _failed(run, "compiling a generation", error) from error
    run.seconds["compile"] = time.perf_counter() - started
    print(f"Compiled in {run.seconds['compile']:.1f} s.", flush=True)
    return state, step


def _row(metrics: Metrics, before: Mapping[str, int]) -> dict[str, Any]:
    """Return a generation's line of metrics.jsonl; its totals are Python integers: always exact."""
    values = metrics._asdict()
    row = {
        "generation": values.pop("generation"),
        "env_steps": before["env_steps"] + int(values.pop("steps")),
        "episodes": before["episodes"] + int(values.pop("episodes")),
    }
    learners = values.pop("strategy")
    learners |= {f"controller_{k}": v for k, v in values.pop("controller").items()}
    return finite({**row, **values, **learners})


def _result(
    search: Search, found: Answer, first: dict[str, Any], last: dict[str, Any]
) -> dict[str, Any]:
    return worth(found.report) | {
        "first_return_without_bonus": first["return_without_bonus"],
        "edges": int(found.cost.edges),
        "possible_edges": search.policy.max_edges,
        "weights": int(found.cost.weights),
        "generations": last["generation"] + 1,
        "env_steps": last["env_steps"],
        "episodes": last["episodes"],
    }


def worth(report: Evaluation) -> dict[str, Any]:
    """Return what episodes [n] say of a policy, with standard errors."""
    return {
        "return": _mean(report.episode_return),
        "return_without_bonus": _mean(report.return_without_bonus),
        "episode_length": _mean(report.episode_length),
        "report_episodes": int(report.episode_return.size),
        "failed_episodes": int(report.failed.sum()),
    }


def _mean(per_episode: ArrayLike) -> dict[str, float]:
    values = np.asarray(per_episode)
    error = values.std(ddof=1) / np.sqrt(values.size)
    return {"mean": float(values.mean()), "standard_error": float(error)}


def _pm(value: dict[str, float | None]) -> str:
    if value["mean"] is None:
        return "not finite"
    return f"{value['mean']:.4g} ± {value['standard_error']:.2g}"


def _pictures(
    workdir: Workdir, rows: list[dict[str, Any]], search: Search, found: Answer, title: str
) -> None:
    learning_curve(rows, workdir.path / "report" / "curve.png", title=title)
    if search.policy.matrices is None:
        return
    bound = search.policy.bind(found.chosen.params, found.chosen.genotype)
    matrices = [np.asarray(w) for w in search.policy.matrices(bound)]
    draw_network(matrices, workdir.path / "report" / "network.png", title=title)


def main() -> None:
    """Train, and tell what was found."""
    workdir = Workdir(_WORKDIR.value or "")
    try:
        with Stopping() as stopping:
            result = train(_CONFIG.value, workdir, _RESUME.value, stopping)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    print(summary(result, workdir))


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file(
        "config", None, "The config file, see experiments/configs."
    )
    _WORKDIR = flags.DEFINE_string("workdir", None, "The folder that the run writes to.")
    _RESUME = flags.DEFINE_enum(
        "resume", "auto", RESUME, "Go on with the run in the workdir: if there is one, never, must."
    )
    command_line.run(main, "config", "workdir")
