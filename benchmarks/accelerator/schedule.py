"""Which rows are measured in the time there is: in order of value, none that cannot end in time."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.accelerator.compiling import Ahead, Executable
from benchmarks.accelerator.rows import Figure, Found, Measurement, OutOfTime, RowFile, as_json


class Cost(NamedTuple):
    """What is expected of programs of a kind before one was measured."""

    compile_seconds: float  # of a program
    seconds: float  # of a unit of work


# A unit of work is an environment step; of a sphere a weight of a candidate, of children a second,
# of several devices a generation that is compiled where it is run.
KINDS = {
    "": Cost(0.0, 0.0),
    "children": Cost(0.0, 1.0),
    "toy": Cost(8.0, 1.0),
    "copy": Cost(3.0, 1.0),
    "sphere": Cost(8.0, 1e-10),
    "pendulum": Cost(15.0, 1e-8),
    "spring": Cost(45.0, 1e-6),
    "mjx": Cost(120.0, 1e-5),
    "devices": Cost(0.0, 60.0),
}
OVERHEAD = 4.0  # seconds of a measurement that are neither
MARGIN = 1.25  # on what was learned: the next program may be a little larger
AHEAD = 6  # measurements that follow, whose programs are compiled at the same time
ALONE = "mjx"  # a kind that takes so long to compile that no other measurement waits for it


def cost_of(kind: str, work: float, found: Found) -> Cost:
    """Return what programs of a kind cost: what the rows so far show, or what is expected.

    Of compiling the most that a program took. Of a unit of work what it took in the measurement
    whose work was the most like this: a small one mostly waits. A measurement that failed shows
    nothing.
    """
    seen = [row["details"] for row in found.values() if row["value"] is not None]
    seen = [details for details in seen if details["kind"] == kind]
    compiled = [d["slowest_compile_seconds"] for d in seen if d["slowest_compile_seconds"]]
    timed = [d for d in seen if "unit_seconds" in d]
    nearest = min(timed, key=lambda d: abs(math.log(d["work"] / work)), default=None)
    known = KINDS[kind]
    return Cost(
        MARGIN * max(compiled) if compiled else known.compile_seconds,
        MARGIN * nearest["unit_seconds"] if nearest else known.seconds,
    )


def estimate(measurement: Measurement, found: Found, ahead: Ahead) -> float:
    """Return the seconds that a measurement will take from now on, 0 if it cannot be measured."""
    if measurement.absent:
        return 0.0
    work = measurement.work(found)
    cost = cost_of(measurement.kind, work, found)
    waves = math.ceil(ahead.missing(measurement.programs(found)) / ahead.threads)
    return OVERHEAD + waves * cost.compile_seconds + work * cost.seconds


def missing(plan: Sequence[Measurement], found: Found) -> list[Measurement]:
    """Return the measurements of a plan that have a row which is not there yet."""
    return [m for m in plan if any(row.name not in found for row in m.rows)]


def fewest_seconds(plan: Sequence[Measurement], found: Found, ahead: Ahead) -> float:
    """Return the least time in which a row that is missing can be measured; 0 if none is."""
    left = [m for m in missing(plan, found) if not m.absent and _ready(m, found)]
    return min((estimate(m, found, ahead) for m in left), default=0.0)


def carry_out(
    plan: Sequence[Measurement],
    file: RowFile,
    ahead: Ahead,
    time_left: Callable[[], float],
    lookahead: int = AHEAD,
    say: Callable[[str], None] = print,
) -> None:
    """Measure the rows of a plan that a file lacks, in order, as long as there is time.

    A measurement that is estimated to take longer than what is left is passed over, and so is one
    that needs a row which was passed over: their rows stay missing. One that fails has rows that
    say why. Programs are compiled for several measurements at a time, and nothing is timed before
    that is done.

    Args:
        plan: what there is to measure, in order of value.
        file: of the rows.
        ahead: compiles.
        time_left: returns the seconds that are left.
        lookahead: for how many measurements that follow programs are compiled as well; 0 where
            they would have to share few cores.
        say: is given a line for each row.
    """
    left = missing(plan, file.found)
    for place, measurement in enumerate(left):
        if not _fits(measurement, file.found, ahead, time_left()):
            continue
        if not (measurement.timed and _compiled(measurement, file.found, ahead)):
            _compile_ahead(left[place : place + 1 + lookahead], file.found, ahead, time_left())
        try:
            rows = measured(measurement, file.found, ahead)
        except OutOfTime:
            continue
        file.append(rows)
        for row in rows:
            shown = "-" if row["value"] is None else f"{row['value']:,.6g} {row['unit']}"
            say(f"{row['name']}: {shown}{' (' + row['note'] + ')' if row['note'] else ''}")


def _compiled(measurement: Measurement, found: Found, ahead: Ahead) -> bool:
    return bool(measurement.absent) or not ahead.missing(measurement.programs(found))


def _compile_ahead(
    following: Sequence[Measurement], found: Found, ahead: Ahead, seconds: float
) -> None:
    """Begin with the programs of all measurements that there is time for."""
    for place, m in enumerate(following):
        if place and m.kind == ALONE:
            continue
        if not m.absent and _fits(m, found, ahead, seconds):
            seconds -= estimate(m, found, ahead)
            ahead.start(m.programs(found))


def _ready(measurement: Measurement, found: Found) -> bool:
    return all(name in found for name in measurement.needs)


def _fits(measurement: Measurement, found: Found, ahead: Ahead, seconds: float) -> bool:
    if measurement.absent:
        return True
    return _ready(measurement, found) and estimate(measurement, found, ahead) <= seconds


def measured(measurement: Measurement, found: Found, ahead: Ahead) -> list[dict[str, Any]]:
    """Return the rows of a measurement, as JSON; an error is a row that says what it was.

    Raises:
        OutOfTime: if the measurement does.
    """
    programs, began, others = [], time.monotonic(), 0
    nothing = Figure(None, note=measurement.absent)
    figures: Sequence[Figure] = [nothing] * len(measurement.rows)
    if not measurement.absent:
        try:
            programs = [ahead.get(program) for program in measurement.programs(found)]
            if measurement.timed:
                ahead.finish()
            began, others = time.monotonic(), ahead.busy
            figures = measurement.measure(found, *(program.run for program in programs))
        except OutOfTime:
            raise
        except Exception as error:
            figures = [Figure(None, note=first_line(error))] * len(measurement.rows)
    details = _spent(measurement, found, programs, time.monotonic() - began, others)
    return [
        as_json(measurement.stage, row, figure, **details)
        for row, figure in zip(measurement.rows, figures, strict=True)
    ]


def _spent(
    measurement: Measurement,
    found: Found,
    programs: Sequence[Executable],
    run_seconds: float,
    others: int,
) -> dict[str, Any]:
    """Return what a measurement cost, compiling apart from running."""
    compiled = [program.seconds for program in programs]
    return {
        "kind": measurement.kind,
        "work": measurement.work(found),
        "compile_seconds": sum(compiled),
        "slowest_compile_seconds": max(compiled, default=0.0),
        "run_seconds": run_seconds,
        "compiling_meanwhile": others,  # programs, when the measurement began
    }


def first_line(error: Exception) -> str:
    """Return an error in one line."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    if "RESOURCE_EXHAUSTED" in str(error):
        return f"does not fit into the device's memory ({line.strip()[:160]})"
    return f"{type(error).__name__}: {line.strip()[:200]}"
