"""Where the time of a few generations went: JAX's profiler says when, the program's text says what.

The compiled program's text tells of which part of a generation (`esenas_jax.types.Part`) each of
its operations is; a trace tells when they ran. Every moment of the traced time is given to one or
more of these, so that they add up to the wall time:

- the parts of the operations that run in it, in equal shares if there are several: threads of a
  processor, streams, devices;
- the part of the operation that starts next, if the program is running and none of its operations
  is: loops and dispatch are the price of small operations;
- "other", if the operation belongs to no part: bookkeeping of episodes, scores, metrics;
- "host", if no program is running: Python, files; on a GPU also the waiting for launches.

XLA fuses operations, and makes new ones. A fused one is of the part that most of what was fused is
of; one that XLA does not say the origin of is of the part of those that use it, or that it uses.

Tracing costs something for every operation. On a CPU, where operations are small, it makes a
generation two to ten times slower, and the smallest operations seem larger than they are: it is
the shares that carry over to a run, and roughly. A trace takes about 140 bytes of file an
operation, and seconds to write for every million of them.

It has not been run on GPUs: what it does there follows XLA's documents and reports of its users.
Kernels sent together (command buffers) may be shown without a name that is known, as "other":
XLA_FLAGS=--xla_gpu_enable_command_buffer= sends them one by one.
"""

import collections
import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.profiler import ProfileData

from experiments.program_text import OTHER, PARTS, ProfileError, Program, read_program
from experiments.results import table

HOST = "host"
NAMES = (*PARTS, OTHER, HOST)

_WINDOW = "esenas_jax.traced"  # the event that spans what is traced
_RUNNING = "running"  # events that span operations


@dataclasses.dataclass(frozen=True)
class Profile:
    """Where the time of some generations went.

    Args:
        seconds: by name in `NAMES`, of the wall clock, all generations together.
        generations: how many.
    """

    seconds: dict[str, float]
    generations: int

    @property
    def wall(self) -> float:
        """Seconds that a traced generation took."""
        return sum(self.seconds.values()) / self.generations

    def table(self, untraced: float | None = None) -> str:
        """Return the lines to print, the largest part first.

        Args:
            untraced: seconds that a generation takes without a trace, to tell what tracing cost.
        """
        each = {name: seconds / self.generations for name, seconds in self.seconds.items()}
        lines = {
            f"Time: {name}": f"{seconds / self.wall:6.1%}  {_ms(seconds)}"
            for name, seconds in sorted(each.items(), key=lambda item: -item[1])
        }
        lines["Time: a generation"] = f"{1:6.1%}  {_ms(self.wall)}" + (
            f", {_ms(untraced).strip()} untraced" if untraced else ""
        )
        return table(lines)


class Profiler:
    """Traces generations, one after the other, and tells where their time went.

    Args:
        folder: where traces are written to, for TensorBoard or Perfetto; made when needed.

    Example:
        with named_program():
            step = jax.jit(search.step).lower(run_key, state).compile()
        ...
        with profiler.tracing(f"generation_{k}"):
            state, metrics = jax.block_until_ready(step(run_key, state))
        print(profiler.profile(step.as_text()).table())
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.traces: dict[Path, int] = {}  # with the generations in each

    @contextlib.contextmanager
    def tracing(self, name: str, generations: int = 1) -> Iterator[None]:
        """Trace what is done inside, and write it to `folder/plugins/profile/name`.

        Nothing may be running on the devices at the start, and nothing may be left running at the
        end. Writing comes after it and is not counted; on a CPU it takes several seconds for a
        million operations.
        """
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every Python call: a flood
        options.host_tracer_level = 1  # operations on a CPU, and our window
        options.enable_hlo_proto = False
        options.session_id = name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(self.folder, profiler_options=options)
        except (OSError, RuntimeError) as error:
            line = (str(error).splitlines() or [""])[0].rstrip(".")
            raise ProfileError(f"cannot write traces to {self.folder}: {line}.") from error
        try:
            with jax.profiler.TraceAnnotation(_WINDOW):
                yield
        finally:
            jax.profiler.stop_trace()
        self.traces[self.folder / "plugins" / "profile" / name] = generations

    def profile(self, text: str) -> Profile:
        """Return where the time of all traced generations went.

        Args:
            text: of the compiled program, `compiled.as_text()`.

        Raises:
            ProfileError: if the program or the traces do not tell.
        """
        program = read_program(text)
        seconds = collections.Counter(dict.fromkeys(NAMES, 0.0))
        for trace in self.traces:
            seconds.update(where_time_went(trace, program))
        return Profile(dict(seconds), sum(self.traces.values()))


@contextlib.contextmanager
def named_program() -> Iterator[None]:
    """Compile with names that are right.

    The compilation cache takes programs that compute the same to be the same, whatever their
    operations are called: what it holds may have been compiled before the names were given.
    """
    setting = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, setting)
    jax.config.update(setting, True)
    try:
        yield
    finally:
        jax.config.update(setting, before)


def where_time_went(trace: Path, program: Program) -> dict[str, float]:
    """Return the seconds of one trace by name in `NAMES`; they add up to its wall time.

    Args:
        trace: the folder of the trace.
        program: what ran.

    Raises:
        ProfileError: if the trace is not there, or does not show the program's operations.
    """
    files = sorted(trace.glob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise ProfileError(f"there is no trace, *.xplane.pb, in {trace}.")
    window, running, operations = _events(ProfileData.from_file(str(files[-1])).planes, program)
    if not any(name != OTHER for _, _, name in operations):
        raise ProfileError(f"the trace in {trace} shows no operation of {program.module}.")
    return share_out(window, running, operations)


Span = tuple[float, float]  # start and end, ns
Operation = tuple[float, float, str]  # with the name in `NAMES`


def _events(planes: Iterable[Any], program: Program) -> tuple[Span, list[Span], list[Operation]]:
    """Return the traced window, when programs ran, and what operations ran."""
    planes = list(planes)
    gpus = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    found: dict[str, list[Span]] = collections.defaultdict(list)
    for plane in planes:
        if plane.name == "/host:CPU":
            for line in plane.lines:
                for event in line.events:
                    # Next to a GPU, threads launch operations and do not run them.
                    if (kind := _on_host(event, program)) == _WINDOW or (kind and not gpus):
                        found[kind].append((event.start_ns, event.end_ns))
    # Of several operations that a GPU is sent as one (a command buffer), the events do not say
    # which they are; but a kernel is called like its operation, with underscores.
    kernels = {re.sub(r"[.\-]", "_", name): part for name, part in program.parts.items()}
    for plane in gpus:
        for line in plane.lines:
            # Other lines show the streams' events again, under other headings.
            if (line.name or "").startswith("Stream"):
                for event in line.events:
                    kind = _on_gpu(event, program, kernels)
                    found[kind].append((event.start_ns, event.end_ns))
    windows, running = found.pop(_WINDOW, []), found.pop(_RUNNING, [])
    if not windows:
        raise ProfileError("the trace does not hold the event that spans it.")
    return windows[0], running, [(*span, name) for name in found for span in found[name]]


def _on_host(event: Any, program: Program) -> str | None:
    """Return what an event of a host thread is: of a CPU's operations a name in `NAMES`."""
    name = event.name
    if name == _WINDOW:
        return _WINDOW
    if name.startswith("end: "):  # a mark of no length, as many as operations
        return None
    if name.startswith("ThunkExecutor::Execute"):
        return _RUNNING
    operation, module = _origin(event.stats)
    if not operation:
        return None
    if module != program.module:
        return OTHER
    return _RUNNING if operation in program.loops else program.parts.get(operation, OTHER)


def _on_gpu(event: Any, program: Program, kernels: Mapping[str, str]) -> str:
    """Return a name in `NAMES` for an event of a stream."""
    operation, module = _origin(event.stats)
    if module not in ("", program.module):
        return OTHER
    return program.parts.get(operation) or kernels.get(event.name, OTHER)


def _origin(stats: Iterable[tuple[str, object]]) -> tuple[str, str]:
    """Return the operation and the module that an event is of; "" for one that is of none."""
    operation = module = ""
    for key, value in stats:  # an early end halves the time that reading a trace takes
        if key == "hlo_op":
            operation = str(value)
        elif key == "hlo_module":
            module = str(value)
        if operation and module:
            break
    return operation, module


def share_out(window: Span, running: list[Span], operations: list[Operation]) -> dict[str, float]:
    """Return the seconds of a window by name in `NAMES`; each moment is given away once.

    Args:
        window: what is shared out, ns.
        running: when programs ran, ns; these may overlap.
        operations: what ran when, ns; these too.
    """
    code = {name: k for k, name in enumerate(NAMES)}
    of = np.array([code[name] for _, _, name in operations])
    spans = np.array([window] + running + [operation[:2] for operation in operations])
    kinds = np.concatenate([[-2], np.full(len(running), -1), of])  # of operations: at least 0

    # Time is cut where anything starts or ends; `length` is of the piece that begins there.
    spans = np.clip(spans, *window)
    times = np.concatenate([spans[:, 0], spans[:, 1]])
    order = np.argsort(times, kind="stable")
    length = np.diff(times[order], append=window[1]) * 1e-9
    kind = np.concatenate([kinds, kinds])[order]
    change = np.concatenate([np.ones(len(spans)), -np.ones(len(spans))])[order]

    def at_once(which: np.ndarray) -> np.ndarray:
        return np.cumsum(np.where(which, change, 0.0))

    active = at_once(kind >= 0)
    idle = active == 0
    waiting = idle & (at_once(kind == -1) > 0)
    seconds = {}
    for name, k in code.items():
        here = at_once(kind == k)
        seconds[name] = float(np.sum(length * here / np.maximum(active, 1)))
    following = _next(np.where((kind >= 0) & (change > 0), kind, -1), code[OTHER])
    for name, k in code.items():
        seconds[name] += float(np.sum(length[waiting & (following == k)]))
    seconds[HOST] += float(np.sum(length[idle & ~waiting]))
    return seconds


def _next(values: np.ndarray, default: int) -> np.ndarray:
    """Return for every place the first value that is not -1 after it."""
    places = np.where(values >= 0, np.arange(values.size), values.size)
    first = np.minimum.accumulate(places[::-1])[::-1]
    first = np.append(first[1:], values.size)
    return np.append(values, default)[first]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:9.4g} ms"
