"""What is kept of a run: every file of its workdir is written from here, by one process."""

import dataclasses
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from esenas_jax.answer import Answer, Front, exams
from esenas_jax.learners import Learners
from esenas_jax.search import Search, SearchState
from experiments.build import CLASSIC, Plan, describe
from experiments.checkpoints import Checkpoint, Checkpoints
from experiments.metrics_log import MetricsLog, read_rows
from experiments.policy_file import save_policy
from experiments.progress import say
from experiments.provenance import changed, peak_memory, provenance
from experiments.report import draw_front, draw_network, learning_curve, many_curves
from experiments.results import measured, result, results
from experiments.workdir import Workdir, WorkdirError

Totals = dict[str, list[int]]  # of the metrics so far, of every run: Python integers, always exact


@dataclasses.dataclass
class Record:
    """The files of one workdir, while a run is under way."""

    config: ConfigDict
    plan: Plan
    workdir: Workdir
    origin: dict[str, Any] = dataclasses.field(default_factory=provenance)
    seconds: dict[str, float] = dataclasses.field(  # of this start
        default_factory=lambda: {"compile": 0.0, "run": 0.0, "host": 0.0, "answer": 0.0}
    )

    def begin(self, begun: bool) -> None:
        """Write down what is going to be run, and say it."""
        plan, search, several = self.plan, self.plan.search, self.plan.searcher
        population = search.population
        each = -(-search.num_candidates // search.shards) * search.task.episodes * len(plan.runs)
        self.origin |= {
            "devices_used": plan.devices,
            "virtual_shards": population.virtual_shards,
            "processes": jax.process_count(),
            "lanes": population.lanes_for(search.task, each),
            "refill_every": population.refill_used,
        }
        if begun:
            self.origin["earlier"] = _earlier(self.workdir, self.origin)
        else:
            self.workdir.write("config.json", self.config.to_dict())
        self.account()
        self.checkpoints = Checkpoints(self.workdir.path / "checkpoints")
        say(
            f"{describe(self.config)} on {_devices(self.origin)}:\n"
            + (f"{len(plan.runs)} runs in one program, each of " if plan.number else "")
            + (f"{several.number} learners of " if isinstance(several, Learners) else "")
            + f"{search.num_candidates} candidates a generation, {search.policy.num_params} "
            f"parameters, architectures from {search.policy.space}."
        )

    @property
    def uses_brax(self) -> bool:
        """Whether the task is an environment of Brax."""
        task = self.config.task
        return task.name == "environment" and task.environment not in CLASSIC

    def account(self) -> None:
        """Write down where the run comes from, and what it took so far."""
        spent = {"seconds": self.seconds, "peak_memory": peak_memory()}
        self.workdir.write("provenance.json", self.origin | spent)

    def latest(self, like: SearchState) -> Checkpoint | None:
        """Return the newest checkpoint, and say so."""
        found = self.checkpoints.latest(like)
        if found:
            for damaged in found.damaged:
                say(f"A checkpoint is damaged and was set aside: {damaged}.")
            say(f"Going on from the checkpoint of generation {found.generation}.")
        return found

    def open_log(self, generation: int) -> MetricsLog:
        """Return the metrics, cut back to what is before a generation."""
        self.origin["from_generation"] = generation
        self.log = MetricsLog(self.workdir, generation, len(self.plan.runs))
        return self.log

    def save(self, state: SearchState, totals: Totals, history: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint that the metrics are not behind of."""
        self.log.sync()
        self.checkpoints.save(state, totals, history)
        self.account()

    def conclude(self, answers: Answer, fronts: Front | None = None) -> dict[str, Any]:
        """Write all that a finished run has; return its result.

        Args:
            answers: of the run, or [M] of many.
            fronts: likewise, of controllers of several objectives.
        """
        self.account()
        search, path = self.plan.search, self.workdir.path
        rows = read_rows(path)
        title = describe(self.config)
        if self.plan.number is None:
            best, front = answers, fronts
            chosen = shown = result(search, answers, rows[0], rows[-1], fronts)
            with self.workdir.writing():
                save_policy(path / "policy.npz", search, self.config, best.chosen)
        else:
            each = [
                jax.tree.map(lambda x, r=r: x[r], (answers, fronts))
                for r in range(len(self.plan.runs))
            ]
            found, theirs = zip(*each, strict=True)
            chosen = results(search, self.plan.runs, found, rows, fronts and theirs)
            best, front = each[chosen["best_run"]]
            shown = chosen["runs"][chosen["best_run"]]
            with self.workdir.writing():
                (path / "policies").mkdir(exist_ok=True)
                for r, (answer, _) in enumerate(each):
                    save_policy(path / "policies" / f"{r}.npz", search, self.config, answer.chosen)
                save_policy(path / "policy.npz", search, self.config, best.chosen)
        try:
            with self.workdir.writing():
                if front is not None:
                    (path / "front").mkdir(exist_ok=True)
                    for k in range(len(shown["front"])):
                        one = jax.tree.map(lambda x, k=k: x[k], front.contenders)
                        save_policy(path / "front" / f"{k}.npz", search, self.config, one)
                _pictures(path / "report", rows, search, best, title, shown)
        finally:
            # The last of all: with it the run is finished.
            self.workdir.write("result.json", chosen)
        return self.workdir.read("result.json")

    def trace(self, error: Exception) -> Path:
        """Write down where an error comes from; return the file."""
        path = self.workdir.path / "traceback.txt"
        with self.workdir.writing():
            path.write_text("".join(traceback.format_exception(error)))
        return path


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
    used, there, processes = (origin[k] for k in ("devices_used", "device_count", "processes"))
    more = f" (of {there}; --config.devices chooses how many)" if there > used else ""
    return f"{used} x {origin['device']}{more}" + (
        f" of {processes} processes" if processes > 1 else ""
    )


def _pictures(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    search: Search,
    found: Answer,
    title: str,
    shown: Mapping[str, Any],
) -> None:
    exam = exams(search.task)[1]
    many = "run" in rows[0]
    if exam is not None:
        which = " of the best run" * many
        lines = list(measured(shown, "").items())[:-1]
        told = [f"{name.lower()}{which} {value}" for name, value in lines]
        title = ", ".join([title, *told])
    (many_curves if many else learning_curve)(
        rows,
        folder / "curve.png",
        title=title,
        value="return" if exam is None else "minus the loss on mini-batches",
    )
    if "front" in shown:
        draw_front(shown["front"], shown["front_cost"], folder / "front.png", title=title)
    if search.policy.matrices is None:
        return
    bound = search.policy.bind(found.chosen.params, found.chosen.genotype)
    matrices = [np.asarray(w) for w in search.policy.matrices(bound)]
    draw_network(matrices, folder / "network.png", title=title)
