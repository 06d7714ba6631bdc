"""The numbers of a run, a row a generation: `metrics.jsonl`, and TensorBoard events beside it."""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.workdir import Workdir, WorkdirError, write_whole


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder's `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def mean_row(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the means over the runs of a generation, of what is finite; a row alone as it is."""
    if len(rows) == 1:
        return rows[0]
    out: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        out[name] = sum(values) / len(values) if values else None
    return out | {"generation": rows[0]["generation"]}


class MetricsLog:
    """Both files, cut back to the first rows and open for more.

    Args:
        workdir: where they are.
        generations: of how many the rows stay; no generation may appear twice.
        runs: rows a generation.

    Raises:
        WorkdirError: if there are fewer, or they cannot be written.
    """

    def __init__(self, workdir: Workdir, generations: int, runs: int = 1) -> None:
        # Here, because it brings protobuf; written by this thread, so that a full disk is noticed.
        from tensorboardX.event_file_writer import EventsWriter, event_pb2

        self._workdir = workdir
        self._event: Any = getattr(event_pb2, "Event")  # noqa: B009, made at run time
        folder, path = workdir.path, workdir.path / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        lines = lines[: generations * runs]
        rows = _parse(lines)
        if [row.get("generation") for row in rows] != [
            g for g in range(generations) for _ in range(runs)
        ]:
            raise WorkdirError(
                f"{path} does not hold the {generations} generations before the checkpoint: "
                f"remove {folder} to start over."
            )
        with workdir.writing():
            write_whole(path, b"".join(lines))
            before = self._events_before()
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._events: Any = EventsWriter(str(folder / "events"))
            self._lines = path.open("a")
            for start in range(0, len(rows), runs):
                row = mean_row(rows[start : start + runs])
                written, numbers = before.get(row["generation"], (time.time(), {}))
                self._add_event({**numbers, **row}, written)

    def add(self, rows: Sequence[Mapping[str, Any]], timed: Mapping[str, float]) -> None:
        """Add the rows of a generation; TensorBoard gets their mean, and what depends on time."""
        with self._workdir.writing():
            self._lines.write("".join(json.dumps(row) + "\n" for row in rows))
            self._add_event({**timed, **mean_row(rows)}, time.time())
            self._lines.flush()
            self._events.flush()

    def sync(self) -> None:
        """Return when all rows are on the disk: a checkpoint must not be ahead of them."""
        with self._workdir.writing():
            os.fsync(self._lines.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # On a full disk closing fails again, and what was wrong is told already.
        with contextlib.suppress(OSError):
            self._lines.close()
        with contextlib.suppress(OSError):
            self._events.close()

    def _add_event(self, row: Mapping[str, Any], wall_time: float) -> None:
        event = self._event()
        event.wall_time, event.step = wall_time, row["generation"]
        for name, value in row.items():
            if value is not None and name not in ("generation", "run", "seed") and "." not in name:
                event.summary.value.add(tag=name, simple_value=value)
        self._events.write_event(event)

    def _events_before(self) -> dict[int, tuple[float, dict[str, float]]]:
        """Return when each generation was written down, and its numbers, from its event."""
        out = {}
        for file in self._workdir.path.glob("events.out.tfevents.*"):
            data, at = file.read_bytes(), 0
            while len(data) - at > 12:  # length 8, its checksum 4, event, its checksum 4
                size = int.from_bytes(data[at : at + 8], "little")
                try:
                    event = self._event.FromString(data[at + 12 : at + 12 + size])
                except Exception:  # torn: the run was killed while it wrote
                    break
                numbers = {value.tag: value.simple_value for value in event.summary.value}
                out[event.step] = (event.wall_time, numbers)
                at += 16 + size
        return out


def _parse(lines: list[bytes]) -> list[dict[str, Any]]:
    """Return the rows of whole lines; {} for what is none."""
    out = []
    for line in lines:
        try:
            row = json.loads(line) if line.endswith(b"\n") else {}
        except ValueError:
            row = {}
        out.append(row if isinstance(row, dict) else {})
    return out
