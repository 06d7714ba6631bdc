"""Train one run, or many in one program.

    python -m experiments.train --config=experiments/configs/quickstart.py --workdir=runs/quickstart

Any field of the config can be overridden, `--config.strategy.noise_std=0.05` say; a config's short
variant stands behind a colon, `--config=experiments/configs/quickstart.py:smoke`. The same command
goes on with a run that was stopped or killed, and comes to the same bits.

`--config.seeds=10` trains ten seeds in one program, `--config.sweep.strategy.noise_std=[0.1,0.2]`
each of them with both numbers. Several processes run the same command, each with its
`--process_id`, and `--coordinator` and `--num_processes`.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from esenas_jax import _checks
from esenas_jax.answer import Answer, Front, choose_answer, exams, pareto_front
from esenas_jax.controllers import Host
from esenas_jax.runs import MAX_DISCARDED, Runs, by_run, runs
from esenas_jax.search import Metrics, SearchState
from esenas_jax.types import Shared
from experiments import command_line, hosts
from experiments.build import ConfigError, Plan, plan
from experiments.checkpoints import Checkpoint, hollow
from experiments.command_line import RunError, failure, xla_flags
from experiments.profiling import ProfileError, Profiler, named_program
from experiments.progress import Progress, say
from experiments.record import Record, Totals
from experiments.results import summary
from experiments.stopping import Stopping
from experiments.workdir import Workdir, WorkdirError, finite

RESUME = ("auto", "never", "must")
DISPATCH_SECONDS = 0.5  # between two looks at a run; a longer generation is one by itself
CAPACITY = 64  # generations between two looks, at most


def train(
    config: ConfigDict,
    workdir: Workdir,
    resume: str = "auto",
    stopping: Stopping | None = None,
    profile: int = 0,
) -> dict[str, Any]:
    """Carry out a run, or what is left of it, and return its result, as in `result.json`.

    Args:
        config: the complete config.
        workdir: where the run is written to; of several processes, process 0 alone does that.
        resume: "auto" goes on from the newest checkpoint if there is one, "never" refuses a folder
            that holds a run, "must" one without a checkpoint.
        stopping: asks the run to stop after a generation.
        profile: how many generations to trace, into `profile/` of the workdir, and to tell of
            where their time went; at least 0.

    Returns:
        The result; {} in processes that do not write.

    Raises:
        ValueError: if there is no such way to resume, or less than nothing to trace.
        ConfigError, WorkdirError, CheckpointError, RunError: in one sentence.
    """
    resume = _checks.known("resume", resume, RESUME)
    profile = _checks.integer("profile", profile, 0)
    with hosts.Watch("the same command goes on from the newest checkpoint, if there is one."):
        hosts.agree(config.to_dict())
        planned = _plan(config)
        stopping = stopping or Stopping()
        if not hosts.first():
            finished = hosts.tell(np.array([False]))[0]
            return {} if finished else Run(planned, None, stopping, profile).carry_out(False)
        if resume == "must" and not list((workdir.path / "checkpoints").glob("[0-9]*")):
            raise WorkdirError(
                f"{workdir.path} holds no checkpoint to go on from, and --resume=must."
            )
        with workdir.claim():
            begun = workdir.holds(config.to_dict(), _may_differ(config))
            if begun and resume == "never":
                raise WorkdirError(
                    f"{workdir.path} holds a run, and --resume=never: choose another --workdir, or "
                    "remove that folder."
                )
            found = workdir.finished() if begun else None
            hosts.tell(np.array([found is not None]))
            if found:
                say(f"The run in {workdir.path} is finished. Remove that folder to train it again.")
                return found
            record = Record(config, planned, workdir)
            record.begin(begun)
            return Run(planned, record, stopping, profile).carry_out(begun)


def _plan(config: ConfigDict) -> Plan:
    planned = plan(config)
    if jax.process_count() > 1 and planned.devices != jax.device_count():
        raise ConfigError(
            f"devices must be all {jax.device_count()} of the {jax.process_count()} processes, "
            f"got {planned.devices}."
        )
    if jax.process_count() > 1 and planned.search.host:
        raise ConfigError(
            f"a controller on the host needs a run of one process, got {jax.process_count()}."
        )
    missing = [f for f in xla_flags(config) if f not in os.environ.get("XLA_FLAGS", "").split()]
    if missing:
        say(f"Note: the same bits are promised only with XLA_FLAGS={' '.join(missing)}.")
    return planned


def _may_differ(config: ConfigDict) -> set[str]:
    """Return the fields that change nothing of what the run comes to."""
    return {"checkpoint_every"} | ({"devices"} if config.virtual_shards else set())


class Run:
    """A run under way, or many in one program.

    Args:
        planned: what the config says.
        record: what is written; None in processes that do not write.
        stopping: asks to stop.
        profile: how many generations to trace.
    """

    def __init__(
        self, planned: Plan, record: Record | None, stopping: Stopping, profile: int = 0
    ) -> None:
        self.plan = planned
        self.record = record
        self.stopping = stopping
        self.seconds = record.seconds if record else {}
        self.tracing = Tracing(record and record.workdir.path / "profile", profile)
        self.host: Host | None = None  # of a controller that has a half on the host
        self.runs: Runs = runs(
            planned.searcher,
            planned.number,
            devices=planned.devices_for_runs,
            capacity=CAPACITY,
        )

    def carry_out(self, begun: bool) -> dict[str, Any]:
        """Run what is left of it, and return the result."""
        saved, totals = self._saved(begun)
        generation = 0 if saved is None else int(saved.generation.max())
        with self.record.open_log(generation) if self.record else nullcontext():
            state, advance = self._compile()
            if saved is not None:
                state = jax.tree.map(_put, saved, state, is_leaf=lambda x: isinstance(x, Shared))
            state = self._generations(state, advance, totals)
        try:
            return self._answer(state)
        finally:
            self.tracing.tell(advance)  # when the results are safe

    def _saved(self, begun: bool) -> tuple[SearchState | None, Totals]:
        """Return the newest checkpoint's state and totals, before anything is compiled."""
        try:
            like = jax.eval_shape(self.runs.init, self.plan.run_key, self.plan.values)
        except Exception as error:
            raise self._failed("the first state", error) from error
        found = self.record.latest(like) if self.record and begun else None
        if self.plan.search.host and not (found and found.generation == self.plan.generations):
            self.host = self._start_host(self.plan.search.host, found)
        totals = found.totals if found else {n: [0] * len(self.plan.runs) for n in _TOTALS}
        if not hosts.tell(np.array([found is not None]))[0]:
            return None, totals
        return hosts.tell(found.state if found else hollow(like)), totals

    def _start_host(self, start: Callable[[], Host], found: Checkpoint | None) -> Host:
        """Return the controller's half on the host, as it was at a checkpoint."""
        say("Starting the controller on the host; PyGlove takes half a minute for a large space.")
        try:
            host = start()
            if found:
                say("Replaying its history, for which it takes as long as it did.")
                host.replay(found.state.controller, found.history)
        except Exception as error:
            raise self._failed("starting the controller on the host", error) from error
        return host

    def _exchange(self, state: SearchState, generation: int) -> tuple[SearchState, float | None]:
        """Let the controller on the host say what is to be evaluated next.

        Returns:
            The state with that in it, and the proposals a second, if there were any.
        """
        host = self.host
        if host is None:
            return state, None
        proposals, seconds = host.proposals, host.seconds
        try:
            state = state._replace(controller=host.exchange(state.controller))
        except Exception as error:
            what = f"the controller on the host, before generation {generation},"
            raise self._failed(what, error) from error
        if host.proposals == proposals:
            return state, None
        if self.record:
            self.record.origin["proposals_per_second"] = host.proposals / host.seconds
        return state, (host.proposals - proposals) / (host.seconds - seconds)

    def _compile(self) -> tuple[SearchState, jax.stages.Compiled]:
        cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
        later = f"later starts find it in {cache}" if cache else "the compilation cache is off"
        long = "A Brax program takes about 20 s; " * bool(self.record and self.record.uses_brax)
        say(f"Compiling a generation. {long}{later}.")
        started = time.perf_counter()
        run_key, values = self.plan.run_key, self.plan.values
        try:
            state = jax.jit(self.runs.init)(run_key, values)
            # The state is used up: there is room for one.
            advance = jax.jit(self.runs.advance, donate_argnums=1)
            with named_program() if self.tracing.left else nullcontext():
                compiled = advance.lower(run_key, state, np.int32(1)).compile()
        except Exception as error:
            raise self._failed("compiling a generation", error) from error
        self._took("compile", started)
        say(f"Compiled in {time.perf_counter() - started:.1f} s.")
        return state, compiled

    def _generations(
        self, state: SearchState, advance: jax.stages.Compiled, totals: Totals
    ) -> SearchState:
        """Carry out the generations that are left; return the last state."""
        generation, last = int(hosts.fetch(state.generation).max()), self.plan.generations
        every, record = self.plan.checkpoint_every, self.record
        watched = Watched(self.plan, totals, generation)
        step = 1
        with Progress(last, generation, self.plan.number) as progress:
            self.stopping.saves = True
            while generation < last:
                if self.tracing.left:
                    step = 1  # until the last is traced: a trace is of one generation
                tracing = self.tracing.next(generation)
                limit = min(step, last - generation, every - generation % every)
                state, rate = self._exchange(state, generation)
                timed = {} if rate is None else {"controller_proposals_per_second": rate}
                with tracing or nullcontext():
                    started = time.perf_counter()
                    try:
                        state, metrics = advance(self.plan.run_key, state, np.int32(limit))
                        seen = hosts.fetch((state.generation, metrics))
                    except Exception as error:
                        more = f" to {generation + limit - 1}" if limit > 1 else ""
                        raise self._failed(f"generation {generation}{more}", error) from error
                    took = self._took("run", started)
                    middle = time.perf_counter()
                    done, metrics = int(seen[0].max()) - generation, seen[1]
                    for k in range(done):
                        rows = watched.rows(jax.tree.map(lambda x, k=k: x[k], metrics))
                        if record:
                            record.log.add(rows, timed)
                        progress.update(rows)
                        if watched.hopeless:
                            self._save(state, watched)
                            raise RunError(watched.discarded())
                    generation += done
                    asked = self._asked()
                    if generation == last or generation % every == 0 or asked:
                        self._save(state, watched)
                    if asked and generation < last:
                        self._stop(generation, asked, watched)
                    step = self._next(took / done)
                    self._took("host", middle)
                if not tracing:
                    self.tracing.untraced(time.perf_counter() - started, done)
            self.stopping.saves = False
            if asked := self._asked():
                self._stop(last, asked, watched)
        return state

    def _next(self, seconds: float) -> int:
        """Return how many generations to carry out before the next look; all do as many."""
        if self.host:
            return 1
        wanted = int(np.clip(DISPATCH_SECONDS / seconds, 1, CAPACITY))
        return int(hosts.tell(np.array([wanted]))[0])

    def _asked(self) -> int:
        """Return the number of a signal that any process heard, or 0."""
        return int(hosts.gather(np.array([self.stopping.asked or 0])).max())

    def _stop(self, done: int, signal: int, watched: "Watched") -> None:
        where = "there" if watched.good == done else f"generation {watched.good}"
        say(
            f"Stopped after generation {done} of {self.plan.generations}. The same command goes on "
            f"from {where}."
        )
        raise SystemExit(128 + signal)

    def _save(self, state: SearchState, watched: "Watched") -> None:
        """Save the state as it stood after the last generation that was not discarded."""
        state = hosts.fetch(hollow(state))
        # In a generation that all runs discard nothing but counters changes.
        state = state.rewound(jnp.full(state.discarded.shape, state.discarded.min()))
        if self.record and int(state.generation.max()) == watched.good:
            history = self.host.history() if self.host else {}
            self.record.save(state, watched.good_totals, history)

    def _answer(self, state: SearchState) -> dict[str, Any]:
        """Choose the answer, and write all that a finished run has."""
        episodes = self.plan.answer_episodes
        each = f" of each of the {self.plan.number} runs" if self.plan.number else ""
        several = self.plan.search.controller.num_objectives > 1
        front = ", and as many for each architecture of its front" * several
        exam = exams(self.plan.search.task)[1]
        on = (
            f"untouched seeds, {episodes} episodes each{front}"
            if exam is None
            else f"{exam.size} {exam.name} examples, which neither trained nor selected"
        )
        say(
            f"Choosing the answer{each}, then measuring it on {on}; the program for that is "
            "compiled first."
        )
        started = time.perf_counter()
        try:
            answers, fronts = hosts.fetch(self._choose(hosts.fetch(hollow(state))))
        except Exception as error:
            raise self._failed("choosing the answer", error) from error
        self._took("answer", started)
        return self.record.conclude(answers, fronts) if self.record else {}

    def _choose(self, state: SearchState) -> tuple[Answer, Front | None]:
        state, search = jax.tree.map(jnp.asarray, state), self.plan.search
        episodes = self.plan.answer_episodes

        def choose(run_key: jax.Array, state: Any) -> tuple[Answer, Front | None]:
            state = self.plan.searcher.deployed(state)
            several = search.controller.num_objectives > 1
            front = pareto_front(search, run_key, state, episodes) if several else None
            return choose_answer(search, run_key, state, episodes), front

        if self.plan.number is not None:
            choose = jax.vmap(choose, in_axes=(0, by_run(self.plan.searcher, 0)))
        return choose(self.plan.run_key, state)

    def _took(self, what: str, started: float) -> float:
        seconds = time.perf_counter() - started
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds
        return seconds

    def _failed(self, what: str, error: Exception) -> RunError:
        """Return one sentence for an error in what the user brought."""
        where = f" (see {self.record.trace(error)})" if self.record else ""
        return failure(what, error, where)


class Tracing:
    """The generations of a run that are traced, after the first two looks at it.

    Args:
        folder: where traces go; None in processes that do not write, and only keep step.
        generations: how many to trace; none may be.
    """

    def __init__(self, folder: Path | None, generations: int) -> None:
        self.left = generations
        self._profiler = Profiler(folder) if folder else None
        self._looks: list[tuple[float, int]] = []  # seconds and generations, without a trace

    def next(self, generation: int) -> AbstractContextManager[None] | None:
        """Return what traces the generation to come, or None if it is not traced."""
        if self.left == 0 or len(self._looks) < 2:
            return None
        self.left -= 1
        if self._profiler is None:
            return nullcontext()
        return self._profiler.tracing(f"generation_{generation}")

    def untraced(self, seconds: float, generations: int) -> None:
        """Hear of generations that were not traced."""
        self._looks.append((seconds, generations))

    def tell(self, program: jax.stages.Compiled) -> None:
        """Say where the time of the traced generations went."""
        if self._profiler is None or not self._profiler.traces:
            if self.left:
                say("No generation was traced: the run was over too soon.")
            return
        seconds, generations = map(sum, zip(*self._looks[1:], strict=True))
        try:
            found = self._profiler.profile(program.as_text() or "")
        except Exception as error:  # of the reader, or of JAX, whose traces change with its release
            why = str(error) if isinstance(error, ProfileError) else repr(error)
            say(f"The traces in {self._profiler.folder} do not tell where time went: {why}")
            return
        say(found.table(seconds / generations))
        say(f"Traces for TensorBoard or Perfetto are in {self._profiler.folder}.")


class Watched:
    """What is known on the host of the generations so far.

    Args:
        planned: what is run.
        totals: of the metrics before.
        generation: how many there were before.
    """

    def __init__(self, planned: Plan, totals: Totals, generation: int) -> None:
        self._runs = planned.runs if planned.number is not None else None
        self._totals = totals
        self._told = False
        self._last: list[dict[str, Any]] = []
        self.good = generation  # generations until the last that any run learnt from
        self.good_totals = totals

    def rows(self, metrics: Metrics) -> list[dict[str, Any]]:
        """Return a generation's lines of metrics.jsonl, one for each run."""
        if self._runs is None:
            rows = [_row(metrics, {name: x[0] for name, x in self._totals.items()})]
        else:
            rows = [
                {"run": r, **about}
                | _row(
                    jax.tree.map(lambda x, r=r: x[r], metrics),
                    {name: x[r] for name, x in self._totals.items()},
                )
                for r, about in enumerate(self._runs)
            ]
        self._totals = {name: [row[name] for row in rows] for name in self._totals}
        if not all(row["discarded"] for row in rows):
            self.good, self.good_totals = rows[0]["generation"] + 1, self._totals
        if not self._told and all(
            not row["failed"] and row["fitness_min"] == row["fitness_max"] for row in rows
        ):
            self._told = True
            say(_ALL_EQUAL.format(**rows[0]))
        self._last = rows
        return rows

    @property
    def hopeless(self) -> bool:
        """Whether no run has learnt for so long that the program stops."""
        return all(row["discarded"] >= MAX_DISCARDED for row in self._last)

    def discarded(self) -> str:
        """Return why it stops."""
        failed = sum(row["failed"] for row in self._last)
        why = (
            f"the scores of {failed} candidates were not finite"
            if failed
            else "all scores were finite, but the update of the weights was not"
        )
        runs = "" if len(self._last) == 1 else f" in each of the {len(self._last)} runs"
        return (
            f"{MAX_DISCARDED} generations in a row were discarded{runs}; in the last, {why}. The "
            f"checkpoint of generation {self.good} is from before them."
        )


_ALL_EQUAL = (
    "Generation {generation}: every candidate scored {fitness_max:.6g}; nothing can be learnt "
    "while all scores are equal."
)
_TOTALS = {"env_steps": "steps", "episodes": "episodes"}


def _row(metrics: Metrics, before: Mapping[str, int]) -> dict[str, Any]:
    """Return a generation's line of metrics.jsonl; its totals are Python integers: always exact."""
    values = metrics._asdict()
    row = {"generation": values.pop("generation")}
    row |= {name: before[name] + int(values.pop(new)) for name, new in _TOTALS.items()}
    learners = values.pop("strategy")
    learners |= {f"controller_{k}": v for k, v in values.pop("controller").items()}
    return finite({**row, **values, **learners})


def _put(old: Any, new: Any) -> Any:
    """Return a saved leaf as the compiled program wants it: on its devices."""
    return new if isinstance(new, Shared) else jax.device_put(old, new.sharding)


def main() -> None:
    """Train, and tell what was found."""
    workdir = Workdir(_WORKDIR.value or "")
    with Stopping() as stopping:
        found = train(_CONFIG.value, workdir, _RESUME.value, stopping, _PROFILE.value)
    if found:
        say(summary(found, workdir))


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file(
        "config", None, "The config file, see experiments/configs."
    )
    _WORKDIR = flags.DEFINE_string("workdir", None, "The folder that the run writes to.")
    _RESUME = flags.DEFINE_enum(
        "resume", "auto", RESUME, "Go on with the run in the workdir: if there is one, never, must."
    )
    _PROFILE = flags.DEFINE_integer(
        "profile", 0, "Trace that many generations, and tell where their time went.", lower_bound=0
    )
    command_line.define_host_flags()
    for name in command_line.HOST_FLAGS:
        flags.declare_key_flag(name)  # else --help leaves it out
    command_line.run(main, "config", "workdir")
