"""The numbers of a run, a row a generation: `metrics.jsonl`, and TensorBoard events beside it."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.workdir import WorkdirError


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder's `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class MetricsLog:
    """Both files, cut back to the first rows and open for more.

    Args:
        folder: where they are.
        generations: how many rows stay; no generation may appear twice.

    Raises:
        WorkdirError: if there are fewer.
    """

    def __init__(self, folder: Path, generations: int) -> None:
        # Here, because it brings protobuf; written by this thread, so that a full disk is noticed.
        from tensorboardX.event_file_writer import EventsWriter, event_pb2

        path = folder / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)[:generations] if path.exists() else []
        rows = _parse(lines)
        if rows is None or [row.get("generation") for row in rows] != list(range(generations)):
            raise WorkdirError(
                f"{path} does not hold the {generations} generations before the checkpoint: "
                f"remove {folder} to start over."
            )
        partial = path.with_name(".metrics.jsonl.partial")
        partial.write_bytes(b"".join(lines))
        partial.replace(path)
        self._lines = path.open("a")
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._event: Any = getattr(event_pb2, "Event")  # noqa: B009, made at run time
        self._events: Any = EventsWriter(str(folder / "events"))
        for row in rows:
            self._add_event(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row to both."""
        self._lines.write(json.dumps(row) + "\n")
        self._add_event(row)
        self._lines.flush()
        self._events.flush()

    def sync(self) -> None:
        """Return when all rows are on the disk: a checkpoint must not be ahead of them."""
        os.fsync(self._lines.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._events.close()

    def _add_event(self, row: Mapping[str, Any]) -> None:
        event = self._event()
        event.wall_time, event.step = time.time(), row["generation"]
        for name, value in row.items():
            if value is not None and name != "generation":
                event.summary.value.add(tag=name, simple_value=value)
        self._events.write_event(event)


def _parse(lines: list[bytes]) -> list[dict[str, Any]] | None:
    try:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
    except ValueError:
        return None
