"""The folder of a run: what is in it, and who may write where.

config.json       the complete config             metrics.jsonl   one object a generation
provenance.json   commit, versions, devices       result.json     what the run found
policy.npz        all that it takes to act        report/         the pictures
"""

import contextlib
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from ml_collections import ConfigDict

_PACKAGES = (
    "esenas-jax", "jax", "jaxlib", "flax", "optax", "brax", "mujoco", "mujoco-mjx", "pyglove",
    "ml_collections", "numpy",
)  # fmt: skip


class WorkdirError(Exception):
    """A workdir that cannot be used, in one sentence that says what to do."""


class Workdir:
    """The files of one run.

    Args:
        path: of the folder; made if it is missing.

    Raises:
        WorkdirError: if it cannot be made or written, before anything is computed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()
        try:
            (self.path / "report").mkdir(parents=True, exist_ok=True)
            # Permission bits do not tell (root, quotas, read-only mounts): only writing does.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise WorkdirError(
                f"cannot write the workdir {self.path}: {error.strerror or error}."
            ) from error

    def finished(self, config: ConfigDict) -> dict[str, Any] | None:
        """Return the result, if a run of this very config is finished here; else None.

        A run is a function of its config, so an unfinished run of the same config is started over
        and nothing is lost.

        Raises:
            WorkdirError: if it is the folder of another config; the differences are listed.
        """
        if not (self.path / "config.json").exists():
            return None
        mine = json.loads(json.dumps(config.to_dict()))
        differences = _differences(self.read("config.json"), mine)
        if differences:
            raise WorkdirError(
                f"{self.path} holds a run of another config ({'; '.join(differences)}): choose "
                "another --workdir, or remove that folder."
            )
        return self.read("result.json") if (self.path / "result.json").exists() else None

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the folder.

        Raises:
            WorkdirError: if it is missing, or is no JSON object.
        """
        try:
            out = json.loads((self.path / name).read_text())
        except FileNotFoundError:
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

    @contextlib.contextmanager
    def metrics(self) -> Iterator[TextIO]:
        """Open `metrics.jsonl` for a new run; lines are flushed as they come."""
        with (self.path / "metrics.jsonl").open("w", buffering=1) as file:
            yield file

    def rows(self) -> list[dict[str, Any]]:
        """Return the generations written to `metrics.jsonl`."""
        lines = (self.path / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


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


def provenance() -> dict[str, Any]:
    """Return where a result comes from: code, command, versions and devices."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if (changes := _git("status", "--porcelain")) is None else bool(changes),
        "command": sys.argv,
        "python": sys.version.split()[0],
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "device_count": jax.device_count(),
        "cpu_count": os.cpu_count(),
        "matmul_precision": jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no repository: an unpacked archive, say


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in sorted(old.keys() | new.keys())
            for difference in _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if old == new else [f"{at} was {old!r}, is {new!r}"]
