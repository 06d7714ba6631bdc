"""Several processes as one run: how they meet, what they agree on, and what a lost one means.

Every process runs the same command and computes its share; process 0 alone writes. With one process
all of this is nothing.
"""

import contextlib
import hashlib
import ipaddress
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from experiments.build import ConfigError
from experiments.progress import be_silent

MEETING_SECONDS = 60.0  # for a connection between processes that have met
_TOKEN = 16  # bytes
_connections: list[socket.socket] = []  # to other processes
_ending = False  # this process is about to
_meeting_place = ""  # process 0's host, as the command line has it


class HostsError(Exception):
    """Processes that do not come to a run, in one sentence."""


def join(
    coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: int
) -> None:
    """Meet the other processes; to be called before JAX looks for devices.

    Args:
        coordinator: "host:port" of process 0, "auto" to ask the cluster's environment (Slurm, Open
            MPI, a TPU pod), or None for one process alone.
        num_processes: at least 1, with a host and a port.
        process_id: in [0, num_processes), likewise.
        timeout: seconds to wait for the others, at least 1.

    Raises:
        HostsError: if the arguments make no sense.
    """
    given: dict[str, Any] = {"num_processes": num_processes, "process_id": process_id}
    if coordinator in (None, "auto"):
        if named := [name for name, value in given.items() if value is not None]:
            raise HostsError(f"--{named[0]} needs --coordinator=HOST:PORT, got {coordinator}.")
        if coordinator is None:
            return
        given = {}
    else:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise HostsError(f"--coordinator must be HOST:PORT or auto, got {coordinator!r}.")
        if num_processes is None or num_processes < 1:
            raise HostsError(f"--num_processes must be at least 1, got {num_processes}.")
        if process_id is None or not 0 <= process_id < num_processes:
            raise HostsError(f"--process_id must be in [0, {num_processes - 1}], got {process_id}.")
        given["coordinator_address"] = coordinator
        global _meeting_place  # noqa: PLW0603
        _meeting_place = host.strip("[]")
    if timeout < 1:
        raise HostsError(f"--coordinator_timeout must be at least 1 s, got {timeout}.")

    # JAX ends the process with a stack trace when its own time is over: ours is over before.
    late = threading.Timer(timeout, _give_up, (coordinator, process_id, num_processes, timeout))
    late.daemon = True
    late.start()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the waiting at once
    try:
        jax.distributed.initialize(**given, initialization_timeout=timeout + 60)
    except (RuntimeError, ValueError) as error:
        line = (str(error).splitlines() or [""])[0].rstrip(".")
        raise HostsError(f"the processes could not meet: {line}.") from error
    finally:
        late.cancel()
        signal.signal(signal.SIGINT, before)
    if not first():
        be_silent()


def _give_up(coordinator: str, process_id: int | None, number: int | None, timeout: int) -> None:
    if process_id == 0:
        why = f"fewer than {number} processes came to {coordinator}"
    else:
        why = f"no coordinator was found at {coordinator}"
    leave(f"{why} within {timeout} s: are all processes started, with the same --coordinator?")


def leave(error: str, own: bool = False) -> NoReturn:
    """End this process with a sentence; JAX's own way out waits for all processes.

    Args:
        error: the sentence.
        own: whether it surely is not about another process that was lost.
    """
    if _connections and not own:
        # Perhaps it fails because another was lost: then the watch says so, and ends this one.
        time.sleep(1.0)
        if _ending:
            time.sleep(60.0)
    _end(error, 2.0 if _connections and own else 0.0)


def _end(error: str, grace: float = 0.0) -> NoReturn:
    global _ending  # noqa: PLW0603
    _ending = True
    print(f"error: {error}", file=sys.stderr, flush=True)
    time.sleep(grace)  # perhaps the others are about to say the same, rather than "was lost"
    for peer in _connections:
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
    if _connections and first():
        time.sleep(1.0)  # JAX aborts the others when their coordinator goes: let them speak before
    os._exit(1)


def joined() -> bool:
    """Return whether there are other processes."""
    return jax.distributed.is_initialized()


def first() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def gather(values: np.ndarray) -> np.ndarray:
    """Return what every process brings, [processes, ...]."""
    if jax.process_count() == 1:
        return values[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values))


def tell(tree: Any) -> Any:
    """Return the arrays of process 0, which others give the shapes and dtypes of, bit for bit."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    leaves, structure = jax.tree.flatten(tree)
    leaves = [np.zeros(x.shape, x.dtype) if not first() else np.asarray(x) for x in leaves]
    # As bytes: what is told is a sum over processes, and -0.0 + 0.0 is another zero.
    sent = np.concatenate([np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in leaves])
    heard = np.asarray(multihost_utils.broadcast_one_to_all(sent)).astype(np.uint8)
    ends = np.cumsum([x.nbytes for x in leaves])[:-1]
    parts = zip(np.split(heard, ends), leaves, strict=True)
    return structure.unflatten([part.view(x.dtype).reshape(x.shape) for part, x in parts])


def fetch(tree: Any) -> Any:
    """Return arrays that devices of any process hold, as NumPy arrays."""

    def one(x: jax.Array) -> np.ndarray:
        if x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(one, tree)


def agree(config: Mapping[str, Any]) -> None:
    """Refuse processes that were started with different configs.

    Raises:
        ConfigError: in all of them.
    """
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).digest()
    all_of_them = gather(np.frombuffer(digest, np.uint8))
    for process, other in enumerate(all_of_them):
        if (other != all_of_them[0]).any():
            raise ConfigError(
                f"process {process} has another config (hash {other.tobytes().hex()[:12]}) than "
                f"process 0 ({all_of_them[0].tobytes().hex()[:12]}): start all processes with the "
                "same config and overrides."
            )


class Watch:
    """While it is entered, a process that ends without a word ends this one too, with a message.

    A collective would wait for it for ever. Processes hold a connection to process 0: the system
    closes it when one of them dies, and asks after a silent machine every few seconds.

    Args:
        advice: what to say besides.
    """

    def __init__(self, advice: str) -> None:
        self._advice = advice
        self._listening: list[threading.Thread] = []

    def __enter__(self) -> "Watch":
        if jax.process_count() == 1:
            return self
        port, token = np.zeros(1, np.int32), np.zeros(_TOKEN, np.uint8)
        address = np.zeros(512, np.uint8)
        server = None
        if first():
            try:
                server = _listening()
            except OSError as error:
                raise HostsError(f"process 0 can listen at no address: {error}.") from error
            bound, port[0] = server.getsockname()[:2]
            names = f"{_meeting_place or bound} {bound}".encode()
            address[: len(names)] = np.frombuffer(names, np.uint8)
            token = np.frombuffer(secrets.token_bytes(_TOKEN), np.uint8)
        port, address, token = tell((port, address, token))
        try:
            if server:
                with server:
                    self._welcome(server, token.tobytes())
            else:
                name, bound = address.tobytes().rstrip(b"\0").decode().split(" ")
                peer = _connected(name, bound, int(port[0]))
                peer.sendall(token.tobytes() + jax.process_index().to_bytes(4, "little"))
                self._listen(peer, 0)
        except OSError as error:
            raise HostsError(
                f"the processes cannot watch each other, over a port of their own: {error}."
            ) from error
        return self

    def _welcome(self, server: socket.socket, token: bytes) -> None:
        """Wait for all other processes; who does not know the token is none."""
        server.settimeout(MEETING_SECONDS)
        missing = set(range(1, jax.process_count()))
        while missing:
            peer, _ = server.accept()
            peer.settimeout(MEETING_SECONDS)
            said = peer.recv(_TOKEN + 4, socket.MSG_WAITALL)
            process = int.from_bytes(said[_TOKEN:], "little")
            if said[:_TOKEN] == token and process in missing:
                missing.remove(process)
                self._listen(peer, process)
            else:
                peer.close()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None and not isinstance(error, SystemExit):
            return  # the system closes the connections, and the others hear of it
        for peer in _connections:
            with contextlib.suppress(OSError):
                peer.sendall(b".")
        # Until all are through: one that fails in its last lines is lost like any other.
        for thread in self._listening:
            thread.join()

    def _listen(self, peer: socket.socket, process: int) -> None:
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
        _connections.append(peer)
        thread = threading.Thread(target=self._wait, args=(peer, process), daemon=True)
        thread.start()
        self._listening.append(thread)

    def _wait(self, peer: socket.socket, process: int) -> None:
        try:
            farewell = peer.recv(1)
        except OSError:
            farewell = b""
        if not farewell and not _ending:
            _end(f"process {process} was lost or has stopped; {self._advice}")


def _listening() -> socket.socket:
    """Return a socket that listens at the coordinator's address alone.

    A machine may know itself by a name that means the loopback to it and not to others, or be known
    by an address that it does not have itself: then it listens at its way out.
    """
    named = _resolved(_meeting_place) if _meeting_place else []
    literal = _meeting_place.lower() == "localhost" or _is_numeric(_meeting_place)
    for family, address in named:
        its = ipaddress.ip_address(address.partition("%")[0])
        if its.is_unspecified or (its.is_loopback and not literal):
            continue
        with contextlib.suppress(OSError):
            return socket.create_server((address, 0), family=family, backlog=jax.process_count())
    return socket.create_server((_way_out(), 0), backlog=jax.process_count())


def _resolved(host: str, flags: int = 0) -> list[tuple[socket.AddressFamily, str]]:
    """Return the addresses of a host; none where it is not known."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except OSError:
        return []
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _is_numeric(host: str) -> bool:
    return bool(_resolved(host, socket.AI_NUMERICHOST))


def _connected(name: str, address: str, port: int) -> socket.socket:
    """Return a connection to process 0: by its name, or at the address that it listens at."""
    try:
        return socket.create_connection((name, port), timeout=MEETING_SECONDS)
    except OSError:
        return socket.create_connection((address, port), timeout=MEETING_SECONDS)


def _way_out() -> str:
    """Return the address of this machine from which it reaches others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: it asks for the way out
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]
