"""Commands that tests start: their flags, how long a test waits for them, what they come to."""

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from experiments.checkpoints import Checkpoints

COUNT = "--xla_force_host_platform_device_count"


def with_devices(environment: Mapping[str, str], number: int | None) -> dict[str, str]:
    """Return an environment in which a CPU has that many devices; None: as many as a user's."""
    flags = [flag for flag in environment.get("XLA_FLAGS", "").split() if COUNT not in flag]
    if number is not None:
        flags.append(f"{COUNT}={number}")
    return {**environment, "XLA_FLAGS": " ".join(flags)}


def wait_until(
    happened: Callable[[], bool], process: subprocess.Popen, what: str, seconds: float = 240.0
) -> None:
    """Wait for something that a process does; the test fails if it ends before, or takes too long.

    Args:
        happened: whether it was done.
        process: that does it; its output is a pipe of text, or was closed by the test.
        what: in words, for the message.
        seconds: how long to wait.
    """
    late = time.monotonic() + seconds
    while not happened():
        ended = process.poll() is not None
        if ended or time.monotonic() > late:
            process.kill()
            piped = process.stdout is not None and not process.stdout.closed
            printed = process.communicate()[0] if piped else ""
            when = "before the command ended" if ended else f"within {seconds:g} s"
            pytest.fail(f"{what} did not happen {when}; the command printed: {printed}")
        time.sleep(0.01)


def all_bits(folder: Path) -> dict[str, object]:
    """Return all that a run comes to: state, answer, metrics, result."""
    checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
    with np.load(folder / "policy.npz") as file:
        policy = {name: file[name].tobytes() for name in file}
    state = checkpoints.leaves(checkpoints.generations()[-1])
    return {
        "checkpoints": checkpoints.generations(),
        "state": {name: x.tobytes() for name, x in state.items()},
        "policy": policy,
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "result": (folder / "result.json").read_bytes(),
        "tensorboard": sorted(steps_in_tensorboard(folder)),
    }


def steps_in_tensorboard(folder: Path) -> list[int]:
    from tensorboardX.proto.event_pb2 import Event

    out = []
    for file in folder.glob("events.out.tfevents.*"):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            out += [event.step] if event.summary.value else []
            data = data[16 + length :]
    return out
