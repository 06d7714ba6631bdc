"""Checkpoints of a run: the whole search state, by generation, there whole or not at all.

Orbax writes each into a folder of its own, which gets its name when it is complete. What it cannot
know is kept beside the state: which version wrote it, and a digest, so that a file that was cut or
changed on disk is found out instead of learnt from.
"""

import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

import esenas_jax
from esenas_jax.search import SearchState
from esenas_jax.types import Shared

FORMAT = 2  # of what is written here
_HISTORY = "history."  # before the names of what is no part of the state, and grows


class CheckpointError(Exception):
    """Checkpoints that cannot be written or used, in one sentence that says what to do."""


class Checkpoint(NamedTuple):
    """A run as it stood before a generation."""

    generation: int
    state: SearchState  # leaves are NumPy arrays; `Shared` parts are empty
    totals: dict[str, list[int]]  # of the metrics so far, of every run, exact
    damaged: list[str]  # newer ones that could not be read, and why
    history: dict[str, np.ndarray]  # of a controller on the host, by name


class Checkpoints:
    """The checkpoints of one run.

    Args:
        path: of their folder, absolute; made if it is missing.
        keep: how many to keep, the newest ones.
        read_only: make and change nothing: a run may be writing.

    Raises:
        CheckpointError: if it cannot be used.
    """

    def __init__(self, path: Path, keep: int = 3, read_only: bool = False) -> None:
        import orbax.checkpoint as ocp  # here, because it takes a second

        if path.exists() and not path.is_dir():
            raise CheckpointError(f"{path} must be a folder, of checkpoints.")
        _quiet_closed_loops()
        self.path = path
        self._ocp = ocp
        self._read_only = read_only
        # Not asynchronous: a checkpoint takes 20 ms, and then it is there or an error is raised.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            read_only=read_only,
            create=False,
            # One process writes, and waits for no other.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes={jax.process_index()}
            ),
        )
        try:
            if not read_only:
                path.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(path, options=options)
        except Exception as error:
            raise CheckpointError(
                f"cannot use the checkpoints in {path}: {_line(error)}."
            ) from error

    def generations(self) -> list[int]:
        """Return the generations that there are checkpoints of, the newest last."""
        return sorted(self._manager.all_steps()) if self.path.exists() else []

    def save(
        self,
        state: SearchState,
        totals: dict[str, list[int]],
        history: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        """Write a checkpoint, unless there is one of that generation.

        Raises:
            CheckpointError: if it cannot be written; earlier ones are intact.
        """
        generation = int(np.max(state.generation))
        before = self.generations()
        if generation in before:
            return
        leaves = {name: np.asarray(x) for name, x in _leaves(jax.device_get(state)).items()}
        leaves |= {f"{_HISTORY}{name}": x for name, x in history.items()}
        about = {
            "format": FORMAT,
            "esenas_jax": esenas_jax.__version__,
            "leaves": _describe(leaves),
            "digest": _digest(leaves),
            "totals": totals,
        }
        args = self._ocp.args
        try:
            self._manager.save(
                generation,
                args=args.Composite(
                    state=args.StandardSave(_some(leaves)), about=args.JsonSave(about)
                ),
            )
        except Exception as error:
            rest = f"that of generation {before[-1]} is intact" if before else "there is none yet"
            raise CheckpointError(
                f"cannot write the checkpoint of generation {generation} to {self.path} "
                f"({_line(error)}); {rest}: mend that, and run the same command again."
            ) from error

    def latest(self, like: SearchState) -> Checkpoint | None:
        """Return the newest checkpoint that can be read, or None if there are none at all.

        Damaged ones are set aside, so that their generations can be written again.

        Args:
            like: a state of the run's search, or its shapes.

        Raises:
            CheckpointError: if it was written by another version, none is whole, or the disk
                cannot be read now.
        """
        damaged: list[tuple[int, str]] = []
        for generation in reversed(self.generations()):
            try:
                state, totals, history = self._read(generation, like)
            except CheckpointError:
                raise
            except Exception as error:
                if _passing(error):
                    raise CheckpointError(
                        f"cannot read {self.path / str(generation)} ({_line(error)}): run the same "
                        "command again when that is mended."
                    ) from error
                damaged.append((generation, f"{self.path / str(generation)} ({_line(error)})"))
                continue
            if not self._read_only:
                for bad, _ in damaged:
                    self._set_aside(bad)
            return Checkpoint(generation, state, totals, [text for _, text in damaged], history)
        if damaged:
            raise CheckpointError(
                f"no checkpoint can be read: {', '.join(text for _, text in damaged)}; "
                f"remove {self.path.parent} to start over."
            )
        return None

    def _set_aside(self, generation: int) -> None:
        aside = self.path / f"damaged-{generation}"
        shutil.rmtree(aside, ignore_errors=True)
        (self.path / str(generation)).rename(aside)
        self._manager.reload()

    def _read(
        self, generation: int, like: SearchState
    ) -> tuple[SearchState, dict[str, list[int]], dict[str, np.ndarray]]:
        expected = _leaves(like)
        about = self._about(generation)
        found = {n: x for n, x in about.get("leaves", {}).items() if not n.startswith(_HISTORY)}
        if about.get("format") != FORMAT or found != _describe(expected):
            raise CheckpointError(
                f"the checkpoint {self.path / str(generation)} was written by esenas_jax "
                f"{about.get('esenas_jax')} in another form (format {about.get('format')}) than "
                f"this one, {esenas_jax.__version__} (format {FORMAT}), reads: go on with the "
                "version that wrote it, or start over in another --workdir."
            )
        leaves = self.leaves(generation)
        structure = jax.tree.structure(hollow(like))
        state = structure.unflatten([leaves[name] for name in expected])
        history = {n.removeprefix(_HISTORY): x for n, x in leaves.items() if n not in expected}
        return state, about["totals"], history

    def leaves(self, generation: int) -> dict[str, np.ndarray]:
        """Return the arrays of a checkpoint by name; raise if they are not what was written."""
        about = self._about(generation)
        shapes = {
            name: jax.ShapeDtypeStruct(shape, jax.numpy.dtype(dtype))
            for name, (dtype, shape) in about["leaves"].items()
        }
        args = self._ocp.args
        found: Any = self._manager.restore(
            generation, args=args.Composite(state=args.StandardRestore(_some(shapes)))
        )["state"]
        leaves = {
            name: np.asarray(found[name]) if name in found else np.zeros(x.shape, x.dtype)
            for name, x in shapes.items()
        }
        if _digest(leaves) != about["digest"]:
            raise ValueError("its content is not what was written")
        return leaves

    def _about(self, generation: int) -> dict[str, Any]:
        args = self._ocp.args
        return self._manager.restore(generation, args=args.Composite(about=args.JsonRestore()))[
            "about"
        ]


def hollow(state: SearchState) -> SearchState:
    """Return a state without what all runs share: that is not kept, but made again."""
    return jax.tree.map(
        lambda x: Shared(()) if isinstance(x, Shared) else x,
        state,
        is_leaf=lambda x: isinstance(x, Shared),
    )


def _leaves(state: SearchState) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(hollow(state))
    }


def _some(leaves: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves that hold anything: Orbax refuses the others."""
    return {name: x for name, x in leaves.items() if x.size}


def _describe(leaves: dict[str, Any]) -> dict[str, list]:
    return {name: [str(x.dtype), list(x.shape)] for name, x in leaves.items()}


def _digest(leaves: dict[str, np.ndarray]) -> str:
    content = hashlib.sha256()
    for name, x in leaves.items():
        content.update(f"{name} {x.dtype} {x.shape}".encode())
        content.update(np.ascontiguousarray(x).tobytes())
    return content.hexdigest()


def _passing(error: Exception) -> bool:
    """Return whether an error says nothing of the file: it may be read another time."""
    gone = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    return isinstance(error, OSError | MemoryError) and not gone


def _quiet_closed_loops() -> None:
    """Say nothing of Orbax's reads and writes that end after the first failed: that one is told.

    They end in threads, some after the error has been handled: so this stays.
    """
    before = sys.unraisablehook
    if getattr(before, "quiet", False):
        return

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    hook.quiet = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.unraisablehook = hook


def _line(error: BaseException) -> str:
    """Return the first line of an error, short enough for a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0].rstrip(". ")
    return text if len(text) <= 160 else f"{text[:157]}..."
