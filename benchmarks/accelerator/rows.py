"""What is measured, and the file that it is written to: a row is on disk before the next starts."""

import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

Found = Mapping[str, Mapping[str, Any]]  # the rows of the file, by name


class RowsError(Exception):
    """A file of rows that cannot be used, in one sentence."""


class OutOfTime(Exception):  # noqa: N818
    """Raised by a measurement that was stopped because no time was left; its rows stay missing."""


class Traced(Protocol):
    """A program that is traced and not compiled, `jax.stages.Lowered` say."""

    def compile(self) -> Any:
        """Return the executable."""
        ...


class Program(NamedTuple):
    """A program to compile. Programs of equal keys are the same, and are compiled once."""

    key: str
    trace: Callable[[], Traced]


class Named(NamedTuple):
    """A row before it is measured."""

    name: str
    unit: str
    target: float | None = None
    direction: Literal["at_most", "at_least"] | None = None


class Figure(NamedTuple):
    """What a row shows once it is measured.

    A value that is None has a note that says why; another one may have a note too.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    note: str = ""
    details: Mapping[str, Any] = {}


class Measurement(NamedTuple):
    """One thing to measure, which fills one row or several."""

    stage: str
    rows: tuple[Named, ...]
    # rows so far, the executables of `programs` -> a figure for each of `rows`
    measure: Callable[..., Sequence[Figure]]
    # rows so far -> what to compile; called when all of `needs` were tried
    programs: Callable[[Found], Sequence[Program]] = lambda found: ()
    kind: str = ""  # a key of `schedule.KINDS`: what compiling and a unit of work may cost
    # rows so far -> units of work that measuring it takes, repeats included
    work: Callable[[Found], float] = lambda found: 1.0
    needs: tuple[str, ...] = ()  # names of rows that decide what is measured
    absent: str = ""  # why it cannot be measured on this machine; "" if it can
    timed: bool = True  # whether no program may be compiled meanwhile: XLA tries kernels out then


def lacking(*packages: str) -> str:
    """Return why a measurement that uses packages is absent; "" if all of them are installed."""
    gone = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{', '.join(gone)} is not installed" if gone else ""


def names(plan: Iterable[Measurement]) -> list[str]:
    """Return the names of all rows of a plan, in its order."""
    return [row.name for measurement in plan for row in measurement.rows]


def as_json(stage: str, row: Named, figure: Figure, **details: Any) -> dict[str, Any]:
    """Return a row as it stands in the file; a value that is not finite is none."""
    finite = figure.value is not None and math.isfinite(figure.value)
    note = figure.note or ("" if finite or figure.value is None else f"it is {figure.value}")
    return {
        "stage": stage,
        "name": row.name,
        "value": figure.value if finite else None,
        "interval": figure.interval if finite else None,
        "unit": row.unit,
        "target": row.target,
        "direction": row.direction,
        "note": note,
        "details": {**details, **figure.details},
    }


class RowFile:
    """The rows of one kind of device, version of JAX and commit, as JSON lines.

    The first line says whose rows they are. A last line that a kill has torn is cut off, so its row
    is measured again.

    Args:
        path: of the file; it is made when the first row is appended.
        origin: whose rows they are, as JSON.

    Raises:
        RowsError: if the file has rows of another origin, or is no file of rows.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any]) -> None:
        self.path = path
        self.origin = dict(origin)
        self.found: dict[str, dict[str, Any]] = {}
        lines = _whole_lines(path)
        if lines and lines[0] != {"origin": self.origin}:
            theirs = lines[0].get("origin")
            if not isinstance(theirs, dict):
                raise RowsError(f"{path} is not a file of rows: name another with --rows.")
            raise RowsError(
                f"{path} has rows of {_described(theirs)}, and this is {_described(self.origin)}: "
                "name another file with --rows."
            )
        for row in lines[1:]:
            self.found[row["name"]] = row

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows, and return when they are on disk; those that are there already stay."""
        device = self.origin["device"]
        new = [{**row, "device": device} for row in rows if row["name"] not in self.found]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        head = [] if self.path.exists() and self.path.stat().st_size else [{"origin": self.origin}]
        with self.path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in [*head, *new])
            file.flush()
            os.fsync(file.fileno())
        self.found.update({row["name"]: row for row in new})


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, and cut off a last one that is torn; [] without a file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        lines: list[Any] = [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        lines = [None]
    if not all(isinstance(line, dict) for line in lines) or (content and not _ours(content)):
        raise RowsError(f"{path} is not a file of rows: name another with --rows.")
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return lines


def _ours(content: bytes) -> bool:
    """Return whether a file begins as ours do, as far as it goes."""
    start = b'{"origin": '
    return content[: len(start)] == start[: len(content)]


def _described(origin: Mapping[str, Any]) -> str:
    commit = str(origin.get("commit") or "unknown")[:7]
    size = ", --quick" if origin.get("quick") else ""
    return f"{origin.get('device')}, JAX {origin.get('jax')}, commit {commit}{size}"
