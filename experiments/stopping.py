"""SIGINT and SIGTERM: the generation is finished and saved; a second SIGINT stops at once."""

import os
import signal
import sys
import threading
from types import TracebackType

from experiments.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """While it is entered, a signal asks the run to stop instead of killing it.

    A thread hears of signals: the main one may be inside a compiled program for minutes. To be
    entered by the main thread of a command; without it a run stops as Python does.
    """

    def __init__(self) -> None:
        self.asked: int | None = None  # the number of the signal
        self.saves = False  # whether the run would save before it stops: else it stops at once

    def __enter__(self) -> "Stopping":
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        signal.set_wakeup_fd(self._writing)
        self._before = {s: signal.signal(s, lambda *_: None) for s in SIGNALS}
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._writing)  # the thread reads the end, and ends

    def _listen(self) -> None:
        while heard := os.read(self._reading, 1):
            number = heard[0]
            if number not in SIGNALS:
                continue
            if not self.saves:
                _exit(number, "\nStopped; the same command goes on from what was saved.")
            if self.asked is None:
                self.asked = number
                say("\nStopping after this generation; Ctrl-C stops at once.")
            elif number == signal.SIGINT:
                _exit(number, "\nStopped at once; what was saved before is intact.")
        os.close(self._reading)


def _exit(number: int, why: str) -> None:
    say(why)
    if sys.stdout.isatty():
        say("\x1b[?25h", end="")  # the live line had hidden the cursor
    os._exit(128 + number)
