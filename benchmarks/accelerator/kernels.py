"""The kernels of a trace that JAX's profiler wrote, and what they add up to.

    python -m benchmarks.accelerator.kernels FOLDER

reads the newest trace in a folder, and prints one line of JSON.
"""

import collections
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.profiler import ProfileData

# Of a CPU: operations that run others, whose time is that of these.
HOLLOW = ("while", "conditional", "call")


class Kernels(NamedTuple):
    """What a trace shows."""

    number: int  # of kernels
    seconds: float  # from the first one's start to the last one's end
    idle: float  # of these, the seconds in which none runs
    spent: dict[str, float]  # name -> seconds in all, those that take most first
    busy: float  # seconds of all kernels, those at the same time counted each


class Event(NamedTuple):
    """A kernel that ran."""

    name: str
    start: float  # ns
    end: float


def kernels_of(planes: Iterable[Any]) -> list[Event]:
    """Return the kernels that the planes of a trace show.

    Of a GPU those on its streams, of a TPU its line of operations; where there is neither, the
    operations that a CPU's threads carried out.
    """
    planes = list(planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = [
        line
        for plane in devices
        for line in plane.lines
        if (line.name or "").startswith("Stream") or line.name == "XLA Ops"
    ]
    streams = [line for line in lines if line.name != "XLA Ops"] or lines
    if streams:
        return [Event(e.name, e.start_ns, e.end_ns) for line in streams for e in line.events]
    return [
        Event(event.name, event.start_ns, event.end_ns)
        for plane in planes
        if plane.name == "/host:CPU"
        for line in plane.lines
        for event in line.events
        if _is_operation(event)
    ]


def _is_operation(event: Any) -> bool:
    """Return whether an event of a host thread is an operation that runs no others."""
    if event.name.startswith(("end: ", *HOLLOW)):
        return False
    return any(key == "hlo_op" for key, _ in event.stats)


def summed_up(events: Sequence[Event]) -> Kernels:
    """Return what kernels add up to.

    Raises:
        ValueError: if there are none.
    """
    if not events:
        raise ValueError("the trace shows no kernel.")
    spans = np.array([event[1:] for event in events])
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    # Up to the latest end before each start something ran; what lies between is idle.
    ends = np.maximum.accumulate(spans[:, 1])
    idle = np.maximum(spans[1:, 0] - ends[:-1], 0.0).sum()
    spent: dict[str, float] = collections.defaultdict(float)
    for event in events:
        spent[event.name] += (event.end - event.start) * 1e-9
    return Kernels(
        number=len(events),
        seconds=float(ends[-1] - spans[0, 0]) * 1e-9,
        idle=float(idle) * 1e-9,
        spent=dict(sorted(spent.items(), key=lambda item: -item[1])),
        busy=sum(spent.values()),
    )


def main() -> None:
    """Read the newest trace in a folder."""
    files = sorted(Path(sys.argv[1]).rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        sys.exit("there is no trace.")
    data = ProfileData.from_file(str(files[-1]))
    try:
        kernels = summed_up(kernels_of(data.planes))
    except ValueError as error:
        sys.exit(str(error))
    print(json.dumps(kernels._asdict()))


if __name__ == "__main__":
    main()
