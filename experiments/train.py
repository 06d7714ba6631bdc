"""Train one run.

    python -m experiments.train --config=experiments/configs/quickstart.py --workdir=runs/quickstart

Any field of the config can be overridden, `--config.strategy.noise_std=0.05` say; a config's short
variant stands behind a colon, `--config=experiments/configs/quickstart.py:smoke`. The same command
goes on with a run that was stopped or killed, and comes to the same bits.
"""

import dataclasses
import os
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from esenas_jax import _checks
from esenas_jax.answer import Answer, choose_answer
from esenas_jax.search import Metrics, Search, SearchState
from experiments import command_line
from experiments.build import Plan, describe, plan
from experiments.checkpoints import Checkpoints
from experiments.command_line import RunError, failure, xla_flags
from experiments.metrics_log import MetricsLog, read_rows
from experiments.policy_file import save_policy
from experiments.progress import Progress, say
from experiments.provenance import changed, peak_memory, provenance
from experiments.report import draw_network, learning_curve
from experiments.results import measured, result, table
from experiments.stopping import Stopping
from experiments.workdir import Workdir, WorkdirError, finite

MAX_DISCARDED = 3  # generations in a row
RESUME = ("auto", "never", "must")

Step = Callable[[jax.Array, SearchState], tuple[SearchState, Metrics]]
Totals = dict[str, int]  # of the metrics so far: Python integers, always exact


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
        ValueError: if there is no such way to resume.
        ConfigError, WorkdirError, CheckpointError, RunError: in one sentence.
    """
    resume = _checks.known("resume", resume, RESUME)
    planned = plan(config)
    missing = [f for f in xla_flags(config) if f not in os.environ.get("XLA_FLAGS", "").split()]
    if missing:
        say(f"Note: the same bits are promised only with XLA_FLAGS={' '.join(missing)}.")
    if resume == "must" and not list((workdir.path / "checkpoints").glob("[0-9]*")):
        raise WorkdirError(f"{workdir.path} holds no checkpoint to go on from, and --resume=must.")
    with workdir.claim():
        begun = workdir.holds(config.to_dict(), _may_differ(config))
        if begun and resume == "never":
            raise WorkdirError(
                f"{workdir.path} holds a run, and --resume=never: choose another --workdir, or "
                "remove that folder."
            )
        if begun and (found := workdir.finished()):
            say(f"The run in {workdir.path} is finished. Remove that folder to train it again.")
            return found
        run = Run(
            config=config,
            plan=planned,
            workdir=workdir,
            checkpoints=Checkpoints(workdir.path / "checkpoints"),
            stopping=stopping or Stopping(),
            origin=provenance() | {"devices_used": planned.search.population.devices},
        )
        run.begin(begun)
        return run.carry_out(begun)


def _may_differ(config: ConfigDict) -> set[str]:
    """Return the fields that change nothing of what a run comes to."""
    return {"checkpoint_every"} | ({"devices"} if config.virtual_shards else set())


@dataclasses.dataclass
class Run:
    """A run under way."""

    config: ConfigDict
    plan: Plan
    workdir: Workdir
    checkpoints: Checkpoints
    stopping: Stopping
    origin: dict[str, Any]  # its provenance
    seconds: dict[str, float] = dataclasses.field(  # of this start
        default_factory=lambda: {"compile": 0.0, "run": 0.0, "host": 0.0, "answer": 0.0}
    )

    def begin(self, begun: bool) -> None:
        """Write down what is going to be run, and say it."""
        if begun:
            self.origin["earlier"] = _earlier(self.workdir, self.origin)
        else:
            self.workdir.write("config.json", self.config.to_dict())
        self.account()
        search = self.plan.search
        say(
            f"{describe(self.config)} on {_devices(self.origin)}:\n"
            f"{search.num_candidates} candidates a generation, {search.policy.num_params} "
            f"parameters, architectures from {search.policy.space}."
        )

    def account(self) -> None:
        """Write down where the run comes from, and what it took so far."""
        spent = {"seconds": self.seconds, "peak_memory": peak_memory()}
        self.workdir.write("provenance.json", self.origin | spent)

    def carry_out(self, begun: bool) -> dict[str, Any]:
        """Run what is left of it, and return the result."""
        saved, totals = self._saved() if begun else (None, {"env_steps": 0, "episodes": 0})
        self.origin["from_generation"] = 0 if saved is None else int(saved.generation)
        with MetricsLog(self.workdir, self.origin["from_generation"]) as log:
            state, step = self._compile()
            if saved is not None:
                # As the compiled program wants them: on all devices.
                state = jax.tree.map(
                    lambda new, old: jax.device_put(new, old.sharding), saved, state
                )
            state = self._generations(log, state, step, totals)
        return self._conclude(state)

    def _saved(self) -> tuple[SearchState | None, Totals]:
        """Return the newest checkpoint's state and totals, before anything is compiled."""
        try:
            like = jax.eval_shape(self.plan.search.init, self.plan.run_key)
        except Exception as error:
            raise self._failed("the first state", error) from error
        found = self.checkpoints.latest(like)
        if found is None:
            return None, {"env_steps": 0, "episodes": 0}
        for damaged in found.damaged:
            say(f"A checkpoint is damaged and was set aside: {damaged}.")
        say(f"Going on from the checkpoint of generation {found.generation}.")
        return found.state, found.totals

    def _compile(self) -> tuple[SearchState, Step]:
        cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
        later = f"later starts find it in {cache}" if cache else "the compilation cache is off"
        say(f"Compiling a generation. A Brax program takes about 20 s; {later}.")
        started = time.perf_counter()
        search, run_key = self.plan.search, self.plan.run_key
        try:
            state = jax.jit(search.init)(run_key)
            step = jax.jit(search.step).lower(run_key, state).compile()
        except Exception as error:
            raise self._failed("compiling a generation", error) from error
        self.seconds["compile"] = time.perf_counter() - started
        say(f"Compiled in {self.seconds['compile']:.1f} s.")
        return state, step

    def _generations(
        self, log: MetricsLog, state: SearchState, step: Step, totals: Totals
    ) -> SearchState:
        """Carry out the generations that are left; return the last state."""
        first, last = int(state.generation), self.plan.generations
        good = (state, totals)  # a discarded generation is not saved: it learnt nothing
        told = False
        with Progress(last, first) as progress:
            self.stopping.saves = True
            for generation in range(first, last):
                try:
                    state, row = self._generation(step, state, totals)
                except Exception as error:
                    raise self._failed(f"generation {generation}", error, log, good) from error
                started = time.perf_counter()
                totals = {name: row[name] for name in totals}
                log.add(row)
                progress.update(row)
                if not told and not row["failed"] and row["fitness_min"] == row["fitness_max"]:
                    told = True
                    say(_ALL_EQUAL.format(**row))
                if row["discarded"] >= MAX_DISCARDED:
                    self._save(log, *good)
                    raise RunError(_discarded(row, int(good[0].generation)))
                if not row["discarded"]:
                    good = (state, totals)
                done = generation + 1
                if done == last or done % self.plan.checkpoint_every == 0:
                    self._save(log, *good)
                if self.stopping.asked is not None and done < last:
                    self._save(log, *good)
                    self._stop(done, int(good[0].generation))
                self.seconds["host"] += time.perf_counter() - started
            self.stopping.saves = False
            if self.stopping.asked is not None:
                self._stop(last, int(good[0].generation))
        return state

    def _stop(self, done: int, saved: int) -> None:
        where = "there" if saved == done else f"generation {saved}"
        say(
            f"Stopped after generation {done} of {self.plan.generations}. The same command goes on "
            f"from {where}."
        )
        raise SystemExit(128 + (self.stopping.asked or 0))

    def _generation(
        self, step: Step, state: SearchState, totals: Totals
    ) -> tuple[SearchState, dict[str, Any]]:
        started = time.perf_counter()
        state, metrics = step(self.plan.run_key, state)
        row = _row(jax.device_get(metrics), totals)
        self.seconds["run"] += time.perf_counter() - started
        return state, row

    def _save(self, log: MetricsLog, state: SearchState, totals: Totals) -> None:
        log.sync()
        self.checkpoints.save(state, totals)
        self.account()

    def _conclude(self, state: SearchState) -> dict[str, Any]:
        """Choose the answer, and write all that a finished run has."""
        search, episodes = self.plan.search, self.plan.answer_episodes
        say(
            f"Choosing the answer, then measuring it on untouched seeds, {episodes} episodes each; "
            "the program for that is compiled first."
        )
        started = time.perf_counter()
        try:
            answer = jax.device_get(choose_answer(search, self.plan.run_key, state, episodes))
        except Exception as error:
            raise self._failed("choosing the answer", error) from error
        self.seconds["answer"] = time.perf_counter() - started
        self.account()
        rows = read_rows(self.workdir.path)
        with self.workdir.writing():
            save_policy(self.workdir.path / "policy.npz", search, self.config, answer.chosen)
        try:
            with self.workdir.writing():
                _pictures(self.workdir, rows, search, answer, describe(self.config))
        finally:
            # The last of all: with it the run is finished.
            self.workdir.write("result.json", result(search, answer, rows[0], rows[-1]))
        return self.workdir.read("result.json")

    def _failed(
        self,
        what: str,
        error: Exception,
        log: MetricsLog | None = None,
        good: tuple[SearchState, Totals] | None = None,
    ) -> RunError:
        """Return one sentence for an error in what the user brought; save what there is."""
        path = self.workdir.path / "traceback.txt"
        with self.workdir.writing():
            path.write_text("".join(traceback.format_exception(error)))
        if log and good:
            try:
                self._save(log, *good)
            except Exception as second:  # a lost device takes the state with it
                say(f"The state before it could not be saved: {type(second).__name__}.")
        return failure(what, error, f" (see {path})")


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


def _earlier(workdir: Workdir, origin: Mapping[str, Any]) -> list[Any]:
    """Return the provenance of earlier starts, and say what has changed since the last."""
    try:
        last = workdir.read("provenance.json")
    except WorkdirError:
        return []
    if names := changed(last, origin):
        say(
            f"Note: {', '.join(names)} changed since the run was begun: it may end with other bits "
            "than an unbroken one."
        )
    before = last.pop("earlier", [])
    return [*(before if isinstance(before, list) else []), last]


def _devices(origin: Mapping[str, Any]) -> str:
    used, there = origin["devices_used"], origin["device_count"]
    more = f" (of {there}; --config.devices chooses how many)" if there > used else ""
    return f"{used} x {origin['device']}{more}"


def summary(found: dict[str, Any], workdir: Workdir) -> str:
    """Return the last lines of a run: what was found, and where to look at it."""
    origin = workdir.read("provenance.json")
    lines = measured(found, "on untouched seeds") | {
        "Edges": f"{found['edges']} of {found['possible_edges']}, "
        f"{found['weights']} distinct weights",
        "Devices": f"{origin['devices_used']} x {origin['device']}",
        "Pictures": f"{workdir.path / 'report'}: curve.png, network.png",
    }
    return table(lines)


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
    with Stopping() as stopping:
        found = train(_CONFIG.value, workdir, _RESUME.value, stopping)
    say(summary(found, workdir))


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file(
        "config", None, "The config file, see experiments/configs."
    )
    _WORKDIR = flags.DEFINE_string("workdir", None, "The folder that the run writes to.")
    _RESUME = flags.DEFINE_enum(
        "resume", "auto", RESUME, "Go on with the run in the workdir: if there is one, never, must."
    )
    command_line.run(main, "config", "workdir")
