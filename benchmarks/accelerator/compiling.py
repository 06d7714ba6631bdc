"""Programs compiled in threads, while something else goes on."""

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from benchmarks.accelerator.rows import Program, Traced


class Executable(NamedTuple):
    """What compiling returned, and the seconds that tracing and compiling took."""

    run: Any
    seconds: float


class Ahead:
    """Compiles programs before they are needed; XLA lets go of Python's lock meanwhile.

    A program is traced by whoever calls `start`, one after the other, and compiled by a thread, in
    the order of the calls. What fails raises where its executable is asked for, in `get`.

    Args:
        threads: how many programs are compiled at a time, at least 1.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self._started: dict[str, Future[Executable]] = {}

    def start(self, programs: Iterable[Program]) -> None:
        """Begin with programs that were not begun with yet; returns when they are traced."""
        for program in programs:
            if program.key in self._started:
                continue
            before = time.monotonic()
            try:
                traced = program.trace()
            except Exception as error:
                failed: Future[Executable] = Future()
                failed.set_exception(error)
                self._started[program.key] = failed
            else:
                spent = time.monotonic() - before
                self._started[program.key] = self._pool.submit(_compile, traced, spent)

    def get(self, program: Program) -> Executable:
        """Return a program's executable: begin with it if need be, and wait for it.

        Raises:
            Exception: what tracing or compiling raised.
        """
        self.start([program])
        return self._started[program.key].result()

    def missing(self, programs: Iterable[Program]) -> int:
        """Return how many of the programs have no executable yet."""
        return sum(p.key not in self._started or not self._started[p.key].done() for p in programs)

    def finish(self) -> None:
        """Wait until nothing is being compiled; what failed raises where it is asked for."""
        wait(self._started.values())

    @property
    def busy(self) -> int:
        """How many programs are being compiled, or wait for a thread."""
        return sum(not future.done() for future in self._started.values())

    def close(self) -> None:
        """Begin with no further program; those that threads are at go on to their end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _compile(traced: Traced, spent: float) -> Executable:
    before = time.monotonic()
    compiled = traced.compile()
    return Executable(compiled, spent + time.monotonic() - before)
