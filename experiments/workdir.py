"""The folder of a run: what is in it, and who may write where.

config.json       the complete config             metrics.jsonl   one object a generation
provenance.json   commit, versions, devices       result.json     what the run found
policy.npz        all that it takes to act        report/         the pictures
checkpoints/      the state, every so often       policies/       of each run, if there are many
front/            the policies of a front

All but provenance and the event files of TensorBoard is the same bits however often the run was
killed. `result.json` is written last: with it a run is finished.
"""

import contextlib
import fcntl
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

_PARTS = ("result.json", "policy.npz", "metrics.jsonl", "provenance.json")


class WorkdirError(Exception):
    """A workdir that cannot be used, in one sentence that says what to do."""


class Workdir:
    """The files of one run. Nothing is made or written before it is claimed.

    Args:
        path: of the folder.

    Raises:
        WorkdirError: if it has no name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not str(path):
            raise WorkdirError("the workdir must have a name, got ''.")
        self.path = Path(path).expanduser().absolute()

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder, and keep other processes from writing to it until this one ends.

        Raises:
            WorkdirError: if it cannot be made or written, or another process trains in it.
        """
        try:
            (self.path / "report").mkdir(parents=True, exist_ok=True)
            # Permission bits do not tell (root, quotas, read-only mounts): only writing does.
            with tempfile.TemporaryFile(dir=self.path):
                pass
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise WorkdirError(
                f"cannot write the workdir {self.path}: {error.strerror or error}."
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WorkdirError(
                    f"another process is training in {self.path}: wait for it, or choose another "
                    "--workdir."
                ) from None
            except OSError:
                pass  # a file system without locks
            yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what keeps a file from being written, a full disk say, into one sentence."""
        try:
            yield
        except OSError as error:
            raise WorkdirError(
                f"cannot write to {self.path} ({error.strerror or error}); what was saved is "
                "intact: make room, and run the same command again."
            ) from error

    def holds(self, config: Mapping[str, Any], may_differ: Iterable[str] = ()) -> bool:
        """Return whether a run of this config was begun here.

        Args:
            config: as a mapping of JSON values.
            may_differ: fields that change nothing of what the run comes to.

        Raises:
            WorkdirError: if it is the folder of another config (the differences are listed), or
                holds parts of a run whose config is not known.
        """
        if not (self.path / "config.json").exists():
            parts = [n for n in _PARTS if (self.path / n).exists()]
            parts += [f"checkpoints/{p.name}" for p in (self.path / "checkpoints").glob("*")][:1]
            if parts:
                raise WorkdirError(
                    f"{self.path} holds {parts[0]} of a run, but no config.json: choose another "
                    "--workdir, or remove that folder."
                )
            return False
        old, new = dict(self.read("config.json")), json.loads(json.dumps(config))
        for name in may_differ:
            old.pop(name, None)
            new.pop(name, None)
        if differences := _differences(old, new):
            advice = "choose another --workdir, or remove that folder."
            if differences == [f"devices was {old.get('devices')}, is {new.get('devices')}"]:
                advice = (
                    f"go on with --config.devices={old['devices']}; a run with virtual_shards may "
                    "change them."
                )
            raise WorkdirError(
                f"{self.path} holds a run of another config ({'; '.join(differences)}): {advice}"
            )
        return True

    def finished(self) -> dict[str, Any] | None:
        """Return the result, if the run here is finished; else None.

        Raises:
            WorkdirError: if there is a file of that name which is none.
        """
        if not (self.path / "result.json").exists():
            return None
        result = self.read("result.json")
        if not {"return", "report_examples", "runs"} & set(result):
            raise WorkdirError(f"{self.path / 'result.json'} is no result of a run.")
        return result

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the folder.

        Raises:
            WorkdirError: if it is missing, or is no JSON object.
        """
        try:
            out = json.loads((self.path / name).read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise WorkdirError(f"{self.path} is no workdir of a run: {name} is missing.") from None
        except (OSError, ValueError) as error:
            raise WorkdirError(f"cannot read {self.path / name}: {error}.") from error
        if not isinstance(out, dict):
            raise WorkdirError(f"{self.path / name} must hold a JSON object.")
        return out

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file so that it is there whole or not at all."""
        with self.writing():
            write_whole(self.path / name, (json.dumps(finite(value), indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def finite(value: Any) -> Any:
    """Return `value` with everything that JSON cannot hold made plain: NaN and inf become null."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return finite(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in sorted(old.keys() | new.keys())
            for difference in _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if old == new else [f"{at} was {old!r}, is {new!r}"]
