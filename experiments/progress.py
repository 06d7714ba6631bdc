"""How far a run is: a live line on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from experiments.metrics_log import mean_row

_silent = False


def be_silent() -> None:
    """Print nothing from here on: of several processes one speaks."""
    global _silent  # noqa: PLW0603
    _silent = True


def say(text: str, end: str = "\n") -> None:
    """Print; a run whose reader has gone (`| head`, a closed terminal) goes on without one."""
    if _silent:
        return
    try:
        print(text, end=end, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def digits(value: float, number: int = 4) -> str:
    """Return a number with so many significant digits, and without an exponent if it is large."""
    text = f"{value:.{number}g}"
    return f"{float(text):.0f}" if "e+" in text and abs(value) < 1e15 else text


EVERY_SECONDS = 10.0  # between two plain lines


class Progress:
    """Tells how far a run is, how long it will take, and how well it does.

    Args:
        total: generations of the run.
        first: how many of them were carried out before.
        runs: how many are shown as their mean; None if there is one.
    """

    def __init__(self, total: int, first: int = 0, runs: int | None = None) -> None:
        self._total, self._first = total, first
        self._prefix = f"mean of {runs} runs: " if runs else ""
        self._live = None
        if sys.stdout.isatty() and not _silent:
            from rich import progress

            self._live = progress.Progress(
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.description}"),
                progress.TimeElapsedColumn(),
                progress.TextColumn("left"),
                progress.TimeRemainingColumn(),
            )
            self._task = self._live.add_task("starting", total=total, completed=first)
        self._started = time.perf_counter()
        self._due = 0.0

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tell of one more generation, its lines of metrics.jsonl."""
        row = mean_row(rows)
        done = row["generation"] + 1
        text = f"{self._prefix}return {_number(row['exact_mean'])}"
        if row["env_steps"]:
            text += (
                f"  without bonus {_number(row['return_without_bonus'])}"
                f"  length {_number(row['episode_length'])}"
            )
        if row["failed"]:
            text += f"  failed {row['failed']:.4g}"
        if self._live:
            self._live.update(self._task, completed=done, description=text)
            return
        elapsed = time.perf_counter() - self._started
        if elapsed < self._due and done < self._total:
            return
        self._due = elapsed + EVERY_SECONDS
        left = elapsed / (done - self._first) * (self._total - done)
        say(f"generation {done}/{self._total}  {text}  {elapsed:.0f} s, {left:.0f} s left")


def _number(value: float | None) -> str:
    return "-" if value is None else digits(value)
