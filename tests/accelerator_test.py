"""`python -m benchmarks.accelerator`: with measurements made up, and, slowly, as it is called."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import kernels, schedule, trace
from benchmarks.accelerator.compiling import Ahead
from benchmarks.accelerator.rows import (
    Figure,
    Measurement,
    Named,
    OutOfTime,
    Program,
    RowFile,
    RowsError,
    as_json,
    lacking,
    names,
)
from tests.support.commands import wait_until

ROOT = Path(__file__).parent.parent
ORIGIN = {"device": "NVIDIA H200", "jax": "0.11.2", "commit": "0123456789", "quick": False}


class Clock:
    """Time that passes only when something is measured."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self.measured: list[str] = []

    def time_left(self) -> float:
        return self.left

    def measurement(self, name: str, seconds: float = 10.0, **fields) -> Measurement:
        """Return a measurement of two rows that takes so long."""

        def measure(found, *compiled):
            self.left -= seconds
            self.measured.append(name)
            return [Figure(seconds, (1.0, 2.0)), Figure(2.0)]

        rows = (Named(f"{name}: a", "s"), Named(f"{name}: b", "s"))
        return Measurement(
            "Stage", rows, measure, **{"kind": "children", "work": lambda found: seconds, **fields}
        )


@pytest.fixture
def ahead():
    made = Ahead(1)
    yield made
    made.close()


def carry_out(plan, file, ahead, clock, **options):
    schedule.carry_out(plan, file, ahead, clock.time_left, say=lambda line: None, **options)


# --- the file of rows -----------------------------------------------------------------------------


def row(name, value=1.0):
    return as_json("Stage", Named(name, "s"), Figure(value), kind="", work=1.0)


@pytest.mark.parametrize("torn", [b"", b'{"stage": "Stage", "na', b'{"stage": "Stage"}'])
def test_a_torn_last_line_is_cut_off_and_rows_before_it_stay(tmp_path, torn):
    path = tmp_path / "deep" / "rows.jsonl"
    RowFile(path, ORIGIN).append([row("one"), row("two")])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    file = RowFile(path, ORIGIN)
    assert list(file.found) == ["one", "two"]
    file.append([row("two", 5.0), row("three")])
    assert path.read_bytes().startswith(whole)
    again = RowFile(path, ORIGIN).found
    assert {name: again[name]["value"] for name in again} == {"one": 1.0, "two": 1.0, "three": 1.0}


def test_a_file_whose_first_line_is_torn_is_begun_anew(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"origin": {"devi')
    file = RowFile(path, ORIGIN)
    file.append([row("one")])
    assert list(RowFile(path, ORIGIN).found) == ["one"]


@pytest.mark.parametrize(
    ("change", "theirs"),
    [
        ({"device": "cpu"}, "cpu, JAX 0.11.2, commit 0123456"),
        ({"jax": "0.12.0"}, "NVIDIA H200, JAX 0.12.0, commit 0123456"),
        ({"commit": None}, "NVIDIA H200, JAX 0.11.2, commit unknown"),
        ({"quick": True}, "NVIDIA H200, JAX 0.11.2, commit 0123456, --quick"),
    ],
)
def test_rows_of_another_machine_or_commit_are_refused_in_one_sentence(tmp_path, change, theirs):
    path = tmp_path / "rows.jsonl"
    RowFile(path, ORIGIN | change).append([row("one")])
    with pytest.raises(RowsError) as error:
        RowFile(path, ORIGIN)
    ours = "NVIDIA H200, JAX 0.11.2, commit 0123456"
    assert str(error.value) == (
        f"{path} has rows of {theirs}, and this is {ours}: name another file with --rows."
    )


@pytest.mark.parametrize("content", ["a letter", "[1, 2]\n", '{"name": "x"}\n', "\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(RowsError, match="is not a file of rows: name another"):
        RowFile(path, ORIGIN)
    assert path.read_text() == content


def test_a_value_that_is_not_finite_is_none_and_says_so():
    assert row("one", np.nan)["value"] is None
    assert row("one", np.inf)["note"] == "it is inf"


def test_a_peer_that_is_not_installed_is_named():
    assert lacking("jax") == ""
    assert lacking("jax", "no_such_package") == "no_such_package is not installed"


# --- the schedule ---------------------------------------------------------------------------------


def test_nothing_is_begun_that_cannot_end_in_time_and_what_can_comes_in_order(tmp_path, ahead):
    clock = Clock(33.0)
    plan = [clock.measurement("long", 100.0), *(clock.measurement(n, 10.0) for n in "abc")]
    file = RowFile(tmp_path / "rows.jsonl", ORIGIN)
    carry_out(plan, file, ahead, clock)
    # Of 33 s two measurements take 10 each; the third would take 10, and 4 besides.
    assert clock.measured == ["a", "b"]
    assert names(plan[1:3]) == list(file.found)
    table = command.table_rows(plan, file, judged=True)
    assert [r.name for r in table] == [f"Stage {name}" for name in names(plan)]
    assert [r.note for r in table] == ["no time left"] * 2 + [""] * 4 + ["no time left"] * 2
    clock.left = 1000.0
    carry_out(plan, file, ahead, clock)
    assert clock.measured == ["a", "b", "long", "c"]


def test_what_compiling_costs_is_learned_from_the_rows_and_only_of_its_kind(ahead):
    found = {"large": row("large"), "small": row("small"), "failed": row("failed", None)}
    shown = {"kind": "spring", "slowest_compile_seconds": 100.0, "unit_seconds": 1e-7, "work": 1e7}
    found["large"]["details"] |= shown
    found["small"]["details"] |= shown | {
        "slowest_compile_seconds": 20.0, "unit_seconds": 1e-5, "work": 1e3
    }  # fmt: skip
    found["failed"]["details"] |= shown | {"kind": "mjx"}
    cost = schedule.cost_of("spring", 1e6, found)
    assert cost.compile_seconds == pytest.approx(schedule.MARGIN * 100.0)
    assert cost.seconds == pytest.approx(schedule.MARGIN * 1e-7)
    assert schedule.cost_of("spring", 1e4, found).seconds == pytest.approx(schedule.MARGIN * 1e-5)
    assert schedule.cost_of("mjx", 1e6, found) == schedule.KINDS["mjx"]
    two = [Program(key, lambda: None) for key in ("one", "two")]
    made = Clock(0.0).measurement(
        "x", programs=lambda found: two, kind="spring", work=lambda found: 1e6
    )
    expected = schedule.OVERHEAD + 2 * cost.compile_seconds + 1e6 * cost.seconds
    assert schedule.estimate(made, found, ahead) == pytest.approx(expected)


def test_rows_that_decide_what_is_measured_come_first(tmp_path, ahead):
    clock = Clock(30.0)
    first = clock.measurement("first", 100.0)
    second = clock.measurement("second", needs=("first: a",))
    file = RowFile(tmp_path / "rows.jsonl", ORIGIN)
    carry_out([first, second], file, ahead, clock)
    assert clock.measured == []
    clock.left = 1000.0
    carry_out([first, second], file, ahead, clock)
    assert clock.measured == ["first", "second"]


def test_an_error_is_a_row_and_the_run_goes_on(tmp_path, ahead):
    clock = Clock(100.0)

    def fails(found, *compiled):
        raise RuntimeError("\nRESOURCE_EXHAUSTED: out of memory\nwhile trying")

    def does_not_compile():
        raise ValueError("no such operation\nand more")

    broken = Program("broken", lambda: SimpleNamespace(compile=does_not_compile))
    untraced = Program("untraced", does_not_compile)
    plan = [
        clock.measurement("large")._replace(measure=fails),
        clock.measurement("broken", programs=lambda found: [broken]),
        clock.measurement("untraced", programs=lambda found: [untraced]),
        clock.measurement("absent", absent="evosax is not installed"),
        clock.measurement("good"),
    ]
    file = RowFile(tmp_path / "rows.jsonl", ORIGIN)
    carry_out(plan, file, ahead, clock)
    notes = [file.found[f"{name}: a"]["note"] for name in ("large", "broken", "untraced", "absent")]
    assert notes == [
        "does not fit into the device's memory (RESOURCE_EXHAUSTED: out of memory)",
        "ValueError: no such operation",
        "ValueError: no such operation",
        "evosax is not installed",
    ]
    assert all(file.found[f"{name}: b"]["value"] is None for name in ("large", "broken", "absent"))
    assert clock.measured == ["good"]
    assert list(file.found) == names(plan)


def test_what_is_stopped_for_lack_of_time_is_measured_by_the_next_call(tmp_path, ahead):
    def stopped(found, *compiled):
        raise OutOfTime

    clock = Clock(1000.0)
    plan = [clock.measurement("a"), clock.measurement("b")]
    file = RowFile(tmp_path / "rows.jsonl", ORIGIN)
    carry_out([plan[0]._replace(measure=stopped), plan[1]], file, ahead, clock)
    assert list(file.found) == names(plan[1:])
    carry_out(plan, file, ahead, clock)
    assert clock.measured == ["b", "a"]


def test_an_interrupted_run_that_is_called_again_ends_with_the_rows_of_a_whole_one(tmp_path, ahead):
    plan = [Clock(0.0).measurement(name) for name in "abcd"]
    whole = RowFile(tmp_path / "whole.jsonl", ORIGIN)
    carry_out(plan, whole, ahead, Clock(1000.0))

    def interrupted(found, *compiled):
        raise KeyboardInterrupt

    path = tmp_path / "cut.jsonl"
    cut = [*plan[:2], plan[2]._replace(measure=interrupted), plan[3]]
    with pytest.raises(KeyboardInterrupt):
        carry_out(cut, RowFile(path, ORIGIN), ahead, Clock(1000.0))
    # As if it had been killed within the second of the two rows of "b", too.
    path.write_bytes(path.read_bytes()[:-20])
    clock = Clock(1000.0)
    again = [clock.measurement(name) for name in "abcd"]
    file = RowFile(path, ORIGIN)
    assert list(file.found) == ["a: a", "a: b", "b: a"]
    carry_out(again, file, ahead, clock)
    assert clock.measured == ["b", "c", "d"]
    assert list(RowFile(path, ORIGIN).found) == list(whole.found) == names(plan)


def test_too_few_minutes_for_any_row_are_refused_with_the_number_that_works(tmp_path, ahead):
    clock = Clock(1000.0)
    plan = [clock.measurement("a", 100.0), clock.measurement("b", 56.0)]
    file = RowFile(tmp_path / "rows.jsonl", ORIGIN)
    with pytest.raises(SystemExit) as error:
        command.refuse_too_little(plan, file, ahead, minutes=0.2, spent=6.0)
    # 56 s, 4 s besides, and the 6 s that were spent already.
    assert str(error.value) == (
        f"error: --minutes must be at least 1.1 for the next row that {file.path} lacks, got 0.2."
    )
    command.refuse_too_little(plan, file, ahead, minutes=1.1, spent=6.0)
    carry_out(plan, file, ahead, clock)
    command.refuse_too_little(plan, file, ahead, minutes=0.1, spent=6.0)  # none is missing


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "soon"])
def test_minutes_that_are_none_are_refused(minutes, capsys):
    with pytest.raises(SystemExit):
        command.command_line([f"--minutes={minutes}"])
    assert "--minutes" in capsys.readouterr().err.splitlines()[-1]


# --- compiling ahead ------------------------------------------------------------------------------


def test_the_next_programs_are_compiled_while_something_is_measured(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def compile_next():
        begun.set()
        go_on.wait(10.0)
        return "next"

    now = Program("now", lambda: SimpleNamespace(compile=lambda: "now"))
    following = Program("next", lambda: SimpleNamespace(compile=compile_next))
    seen = []

    def measure(found, compiled):
        if compiled == "now":
            assert begun.wait(10.0)  # while this measures, that compiles
            go_on.set()
        seen.append(compiled)
        return [Figure(1.0), Figure(1.0)]

    clock, ahead = Clock(1000.0), Ahead(1)
    plan = [
        clock.measurement(p.key, programs=lambda found, p=p: [p])._replace(
            measure=measure, timed=False
        )
        for p in (now, following)
    ]
    file = RowFile(tmp_path / "rows.jsonl", ORIGIN)
    carry_out(plan, file, ahead, clock, lookahead=1)
    ahead.close()
    assert seen == ["now", "next"]
    assert file.found["now: a"]["details"]["compiling_meanwhile"] == 1


def test_nothing_is_compiled_while_something_is_timed(tmp_path):
    """Programs are compiled for the measurement and those that follow, and are waited for."""
    started, busy = [], []

    def program(key):
        def compile_it():
            started.append(key)
            time.sleep(0.05)
            return key

        return Program(key, lambda: SimpleNamespace(compile=compile_it))

    def measure(found, compiled):
        busy.append((compiled, ahead.busy, sorted(started)))
        return [Figure(1.0), Figure(1.0)]

    clock, ahead = Clock(1000.0), Ahead(2)
    plan = [
        clock.measurement(key, programs=lambda found, key=key: [made[key]])._replace(
            measure=measure
        )
        for key in "abcd"
    ]
    made = {key: program(key) for key in "abcd"}
    carry_out(plan, RowFile(tmp_path / "rows.jsonl", ORIGIN), ahead, clock, lookahead=1)
    ahead.close()
    first, second = ["a", "b"], ["a", "b", "c", "d"]
    assert busy == [("a", 0, first), ("b", 0, first), ("c", 0, second), ("d", 0, second)]


def test_without_looking_ahead_nothing_is_compiled_while_something_is_measured(tmp_path, ahead):
    programs = [Program(key, lambda key=key: SimpleNamespace(compile=lambda: key)) for key in "abc"]
    missing = []

    def measure(found, compiled):
        missing.append(ahead.missing(programs))
        return [Figure(1.0), Figure(1.0)]

    clock = Clock(1000.0)
    plan = [
        clock.measurement(p.key, programs=lambda found, p=p: [p])._replace(measure=measure)
        for p in programs
    ]
    carry_out(plan, RowFile(tmp_path / "rows.jsonl", ORIGIN), ahead, clock, lookahead=0)
    assert missing == [2, 1, 0]


def test_a_program_is_traced_and_compiled_once(ahead):
    traced = []

    def trace_it():
        traced.append(1)
        return SimpleNamespace(compile=lambda: "executable")

    program = Program("key", trace_it)
    ahead.start([program, program])
    assert ahead.get(program).run == ahead.get(Program("key", trace_it)).run == "executable"
    assert ahead.get(program).seconds >= 0.0
    assert (traced, ahead.busy, ahead.missing([program])) == ([1], 0, 0)


# --- the trace ------------------------------------------------------------------------------------


def event(name, start, end, **stats):
    return SimpleNamespace(name=name, start_ns=start, end_ns=end, stats=list(stats.items()))


def plane(name, **lines):
    made = [SimpleNamespace(name=key.replace("_", " "), events=lines[key]) for key in lines]
    return SimpleNamespace(name=name, lines=made)


def test_a_gpus_kernels_are_counted_on_its_streams_and_their_gaps_are_idle():
    ran = [event("loop_1", 0, 40), event("dot", 30, 50), event("loop_1", 80, 100)]
    planes = [
        plane("/host:CPU", python=[event("loop", 0, 1000, hlo_op="loop")]),
        plane("/device:GPU:0", Stream_7=ran, XLA_Ops=[event("all", 0, 1000)]),
    ]
    found = kernels.summed_up(kernels.kernels_of(planes))
    assert found.number == 3
    assert found.seconds == pytest.approx(100e-9)
    assert found.idle == pytest.approx(30e-9)  # from 50 to 80: both streams' kernels have ended
    assert found.busy == pytest.approx(80e-9)
    assert found.spent == pytest.approx({"loop_1": 60e-9, "dot": 20e-9})
    program = """
  %loop.1 = f32[4]{0} fusion(%x), kind=kLoop, metadata={op_name="jit(step)/esenas_jax.physics/add"}
  ROOT %dot = f32[4]{0} fusion(%x), metadata={op_name="jit(step)/esenas_jax.policy/dot_general"}
"""
    figures = trace.figures(found, trace.operations(program), steps=6, details={})
    # Kernels a step, idle, physics, and the two kernels.
    assert [f.value for f in figures[:5]] == pytest.approx([0.5, 0.3, 0.75, 0.75, 0.25])
    assert [f.note for f in figures[3:6]] == [
        "loop_1, physics, add",
        "dot, policy, dot_general",
        "there are fewer kernels",
    ]
    assert len(figures) == len(trace.rows_of("ant spring"))


def test_a_short_kernel_within_a_long_one_does_not_end_it():
    events = [kernels.Event("a", 0, 100), kernels.Event("b", 10, 20), kernels.Event("c", 150, 200)]
    assert kernels.summed_up(events).idle == pytest.approx(50e-9)


def test_a_cpus_operations_are_those_that_run_no_others():
    events = [
        event("while.3", 0, 100, hlo_op="while.3"),
        event("fusion.1", 10, 40, hlo_op="fusion.1"),
        event("end: fusion.1", 40, 40),
        event("Execute", 0, 100),
    ]
    shown = kernels.kernels_of([plane("/host:CPU", XLA=events)])
    assert [kernel.name for kernel in shown] == ["fusion.1"]


def test_a_trace_that_is_not_there_is_an_error_of_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^the trace shows no kernel\.$"):
        kernels.summed_up([])
    with pytest.raises(RuntimeError, match=r"^the trace cannot be read: there is no trace\.$"):
        trace.read_in_a_child(tmp_path)


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_leaves_the_device_to_its_children_until_it_makes_the_plan():
    code = (
        "from jax._src import xla_bridge\n"
        "import benchmarks.accelerator.__main__ as command\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "command.children.measurement(command.FULL)\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_quick_rows_are_those_of_the_plan_whether_killed_or_not(tmp_path):
    """Five minutes on two cores with an empty cache of programs; a crowded machine has its time."""
    rows, table = tmp_path / "rows.jsonl", tmp_path / "table.json"
    call = [
        sys.executable, "-m", "benchmarks.accelerator", "--quick", "--minutes=90",
        f"--rows={rows}", f"--json={table}",
    ]  # fmt: skip
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    environment["XLA_FLAGS"] = ""
    first = subprocess.Popen(call, cwd=ROOT, env=environment, start_new_session=True)
    wait_until(lambda: rows.exists() and rows.read_bytes().count(b"\n") >= 25, first, "row 24", 600)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = rows.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    subprocess.run(call, cwd=ROOT, env=environment, check=True)
    assert rows.read_bytes().startswith(kept)
    found = [json.loads(line) for line in rows.read_text().splitlines()[1:]]
    plan = command.make_plan(quick=True, devices=1)
    assert sorted(r["name"] for r in found) == sorted(names(plan))
    assert {r["stage"] for r in found if r["value"] is not None} == {m.stage for m in plan}
    assert [r["name"] for r in found if r["value"] is None and not r["note"]] == []
    assert [r["name"] for r in json.loads(table.read_text())["rows"]] == [
        f"{m.stage} {named.name}" for m in plan for named in m.rows
    ]
