"""The folder of a run: what is in it, and who may write where.

config.json       the complete config             metrics.jsonl   one object a generation
provenance.json   commit, versions, devices       result.json     what the run found
policy.npz        all that it takes to act        report/         the pictures
checkpoints/      the state, every so often

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


class WorkdirError(Exception):
    """A workdir that cannot be used, in one sentence that says what to do."""


class Workdir:
    """The files of one run.

    Args:
        path: of the folder.
        make: make it if it is missing, and find out whether it can be written. Without, it is
            only read.

    Raises:
        WorkdirError: if it cannot be made or written, before anything is computed.
    """

    def __init__(self, path: str | os.PathLike[str], make: bool = True) -> None:
        if not str(path):
            raise WorkdirError("the workdir must have a name, got ''.")
        self.path = Path(path).expanduser().absolute()
        if not make:
            return
        try:
            (self.path / "report").mkdir(parents=True, exist_ok=True)
            # Permission bits do not tell (root, quotas, read-only mounts): only writing does.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise WorkdirError(
                f"cannot write the workdir {self.path}: {error.strerror or error}."
            ) from error

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Keep other processes from writing here; ends with the process, however that ends.

        Raises:
            WorkdirError: if another process does.
        """
        with (self.path / ".lock").open("w") as lock:
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

    def holds(self, config: Mapping[str, Any], may_differ: Iterable[str] = ()) -> bool:
        """Return whether a run of this config was begun here.

        Args:
            config: as a mapping of JSON values.
            may_differ: fields that do not matter.

        Raises:
            WorkdirError: if it is the folder of another config; the differences are listed.
        """
        if not (self.path / "config.json").exists():
            return False
        old, new = dict(self.read("config.json")), json.loads(json.dumps(config))
        for name in may_differ:
            old.pop(name, None)
            new.pop(name, None)
        if differences := _differences(old, new):
            raise WorkdirError(
                f"{self.path} holds a run of another config ({'; '.join(differences)}): choose "
                "another --workdir, or remove that folder."
            )
        return True

    def finished(self) -> dict[str, Any] | None:
        """Return the result, if the run here is finished; else None."""
        return self.read("result.json") if (self.path / "result.json").exists() else None

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
        partial = self.path / f".{name}.partial"
        partial.write_text(json.dumps(finite(value), indent=2) + "\n")
        partial.replace(self.path / name)


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
