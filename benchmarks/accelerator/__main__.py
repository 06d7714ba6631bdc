"""A machine with an accelerator that is at hand for ten minutes: a table of what it does.

    python -m benchmarks.accelerator [--minutes=8] [--rows=PATH] [--json=PATH] [--quick]

Four stages, in order of value: *Correct?* (the library's contracts on the device, and its numbers
beside the CPU's), *How fast?* (environment steps a second of whole generations, beside bare physics
and peers), *How far?* (many weights, candidates, seeds, devices) and *Where does the time go?* (a
trace). An environment step is one action, a physics step one step of the integrator. Live steps are
those of episodes that go on; simulated ones are all.

Each row is written to the file of rows when it is measured, by default runs/accelerator.jsonl (with
--quick runs/accelerator_quick.jsonl): a call that is cut off or runs out of time loses the row that
it is at, and the next call with the same file goes on. The rows of a file are of one kind of
device, JAX and commit. Nothing is started that cannot end in time. --quick has small sizes, leaves
out most of XLA's optimizations on a CPU, and ends there within five minutes on two cores; speeds
are then not judged.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax

from benchmarks.accelerator import children
from benchmarks.accelerator.compiling import Ahead
from benchmarks.accelerator.rows import Measurement, RowFile, RowsError
from benchmarks.accelerator.schedule import AHEAD, carry_out, fewest_seconds
from benchmarks.accelerator.sizes import FULL, QUICK
from benchmarks.measure import Row, report
from experiments.command_line import DeviceError, configure_jax

MINUTES, QUICK_MINUTES = 8.0, 4.5
ROWS = Path("runs/accelerator.jsonl")
QUICK_ROWS = Path("runs/accelerator_quick.jsonl")
NO_TIME = "no time left"


def command_line(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=_minutes, help="how long it may take (8; quick: 4.5)")
    parser.add_argument("--rows", type=Path, help=f"the file of rows ({ROWS}; quick: {QUICK_ROWS})")
    parser.add_argument("--json", type=Path, help="where to write the table's rows at the end")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a CPU")
    given = parser.parse_args(arguments)
    if given.minutes is None:
        given.minutes = QUICK_MINUTES if given.quick else MINUTES
    given.rows = given.rows or (QUICK_ROWS if given.quick else ROWS)
    return given


def _minutes(text: str) -> float:
    minutes = float(text)
    if not minutes > 0.0:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return minutes


def make_plan(quick: bool, devices: int) -> list[Measurement]:
    """Return all that is measured, in order of value.

    Importing what it is made of touches the device: child processes have to be done with it.
    """
    from benchmarks.accelerator import correct, reach, speed, trace

    sizes = QUICK if quick else FULL
    return [
        children.measurement(sizes),
        *correct.measurements(sizes),
        *speed.measurements(sizes),
        *reach.measurements(sizes, devices),
        *trace.measurements(sizes),
        speed.mjx(sizes),
    ]


def origin_of(here: dict[str, Any], quick: bool) -> dict[str, Any]:
    """Return whose rows they are, without touching the device."""
    return {
        "device": here["device"],
        "jax": jax.__version__,
        "commit": here["commit"],
        "quick": quick,
    }


def table_rows(plan: Sequence[Measurement], file: RowFile, judged: bool) -> list[Row]:
    """Return the rows of a plan for the table, in its order.

    Args:
        plan: what there was to measure.
        file: what was measured.
        judged: whether speeds have targets; correctness always has.
    """
    out = []
    for measurement in plan:
        for named in measurement.rows:
            found = file.found.get(named.name, {"value": None, "interval": None, "note": NO_TIME})
            held = judged or measurement.stage == children.CORRECT
            out.append(
                Row(
                    f"{measurement.stage} {named.name}",
                    found["value"],
                    found["interval"] and tuple(found["interval"]),
                    named.unit,
                    named.target if held else None,
                    named.direction if held else None,
                    note=found["note"],
                )
            )
    return out


def refuse_too_little(
    plan: Sequence[Measurement], file: RowFile, ahead: Ahead, minutes: float, spent: float
) -> None:
    """End with one sentence if none of the rows that are missing can be measured in time.

    Args:
        plan: what there is to measure.
        file: of the rows.
        ahead: compiles.
        minutes: that were given.
        spent: seconds of these.
    """
    fewest = fewest_seconds(plan, file.found, ahead)
    if fewest > 60.0 * minutes - spent:
        needed = math.ceil((fewest + spent) / 6.0) / 10.0
        sys.exit(
            f"error: --minutes must be at least {needed:g} for the next row that {file.path} "
            f"lacks, got {minutes:g}."
        )


def run(arguments: argparse.Namespace) -> None:
    """Measure what the file of rows lacks, print the table, write it."""
    started = time.monotonic()

    def spent() -> float:
        return time.monotonic() - started

    def time_left() -> float:
        return 60.0 * arguments.minutes - spent()

    here = children.device()
    file = RowFile(arguments.rows, origin_of(here, arguments.quick))
    known = len(file.found)
    ahead = Ahead(max(1, len(os.sched_getaffinity(0)) // 2))
    sizes = QUICK if arguments.quick else FULL
    on_cpu = here["platform"] == "cpu"
    if arguments.quick and on_cpu:
        children.compile_quickly()
    carry_out([children.measurement(sizes, time_left)], file, ahead, time_left)
    # From here on this process uses the device, and nearly all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    configure_jax()
    plan = make_plan(arguments.quick, here["count"])
    if len(file.found) == known:
        refuse_too_little(plan, file, ahead, arguments.minutes, spent())
    # On a CPU there are few cores to compile on, and whoever is cut off has more rows.
    carry_out(plan, file, ahead, time_left, lookahead=0 if on_cpu else AHEAD)
    report("accelerator", table_rows(plan, file, not arguments.quick), arguments.json)


def leave(status: int, last: str) -> NoReturn:
    """End at once: Python would wait for programs that are still being compiled."""
    print(last, flush=True)
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Run; what a user can mend ends in one sentence."""
    arguments = command_line()
    try:
        run(arguments)
    except (DeviceError, RowsError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        leave(130, f"Stopped; the rows so far are in {arguments.rows}.")
    leave(0, f"The rows are in {arguments.rows}.")


if __name__ == "__main__":
    main()
