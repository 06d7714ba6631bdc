"""Several processes are one run: the same bits, one writer, and a clear end when one is lost."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from experiments import hosts
from experiments.checkpoints import Checkpoints
from tests.support.commands import all_bits, wait_until, with_devices
from tests.support.compiling import environment_as_shipped

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "tests" / "pendulum_config.py"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(
    folder: Path,
    *arguments: str,
    devices: int,
    total: int = 8,
    within: tuple[str, ...] = (),
    shipped: bool = False,
) -> subprocess.Popen:
    """Start the command, `within` another one.

    Args:
        folder: the workdir.
        *arguments: more of them.
        devices: of this process.
        total: of all processes.
        within: `nice`, say, and its arguments.
        shipped: whether it compiles as a user's does, and not as tests do.
    """
    environment = environment_as_shipped() if shipped else os.environ
    return subprocess.Popen(
        [
            *within,
            sys.executable,
            "-u",
            "-m",
            "experiments.train",
            f"--workdir={folder}",
            *arguments,
            f"--config.devices={total}",
            "--config.virtual_shards=8",
        ],
        cwd=ROOT,
        env=with_devices(environment, devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def meeting(address: str) -> list[list[str]]:
    """Return what each of two processes is given to meet the other."""
    both = [f"--coordinator={address}", "--num_processes=2"]
    return [[*both, f"--process_id={p}"] for p in range(2)]


@contextlib.contextmanager
def ended(processes: Iterable[subprocess.Popen]):
    """End processes that a test leaves."""
    processes = list(processes)
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


@contextlib.contextmanager
def two(folder: Path, *arguments: str, second: tuple[str, ...] = (), shipped: bool = False):
    """Start two processes of four devices; the second gets more arguments."""
    meet = meeting(f"127.0.0.1:{free_port()}")
    with ended(
        start(folder, *arguments, *met, *more, devices=4, shipped=shipped)
        for met, more in zip(meet, ((), second), strict=True)
    ) as pair:
        yield pair


def ends(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str]:
    output, _ = process.communicate(timeout=timeout)
    lines = [line for line in output.splitlines() if not line.startswith("[Gloo]")]
    return process.returncode, "\n".join(lines)


def alone(folder: Path, *arguments: str, devices: int, shipped: bool = False) -> str:
    process = start(folder, *arguments, devices=devices, total=devices, shipped=shipped)
    code, output = ends(process)
    assert code == 0, output
    return output


ARGUMENTS = "--config.generations=40"
SAMPLE = "regression,edges"
KINDS = [
    SAMPLE,
    *(pytest.param(k, marks=pytest.mark.slow) for k in ("edges,es,es", "partition,ars,none")),
]


def saves(folder: Path, generation: int, process: subprocess.Popen) -> None:
    """Wait for a checkpoint."""
    path = folder / "checkpoints" / str(generation)
    wait_until(path.exists, process, f"the checkpoint of generation {generation}")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_the_same_bits_as_one_and_one_goes_on_for_a_lost_one(kind, tmp_path):
    """The one has one device, two have four each, and the one that goes on has eight.

    All metrics are compared: the first were written by the two. All but the sample compile as a
    user's runs do.
    """
    run, shipped = (f"--config={CONFIG}:{kind}", ARGUMENTS), kind != SAMPLE
    alone(tmp_path / "one", *run, devices=1, shipped=shipped)
    folder = tmp_path / "lost"
    with two(folder, *run, shipped=shipped) as (first, second):
        saves(folder, 6, first)
        second.kill()
        code, output = ends(first, timeout=60)
    assert code == 1
    assert "on 8 x cpu of 2 processes" in output
    assert "error: process 1 was lost or has stopped; the same command goes on from" in output
    assert "Traceback" not in output
    saved = Checkpoints(folder / "checkpoints", read_only=True).generations()[-1]
    assert 6 <= saved < 40
    output = alone(folder, *run, devices=8, shipped=shipped)
    assert f"Going on from the checkpoint of generation {saved}." in output
    assert all_bits(folder) == all_bits(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["edges,es,es", "partition,ars,none"])
def test_two_processes_come_to_the_answer_of_one_and_one_of_them_speaks(kind, tmp_path):
    run = (f"--config={CONFIG}:{kind}", ARGUMENTS)
    alone(tmp_path / "one", *run, devices=8, shipped=True)
    with two(tmp_path / "two", *run, shipped=True) as pair:
        assert_they_finish(pair)
    assert all_bits(tmp_path / "two") == all_bits(tmp_path / "one")
    with two(tmp_path / "two", *run) as pair:
        told = [ends(process, timeout=60) for process in pair]
    assert [code for code, _ in told] == [0, 0]
    assert "is finished. Remove that folder to train it again." in told[0][1]


def assert_they_finish(pair: list[subprocess.Popen]) -> None:
    first, second = pair
    code, output = ends(first)
    assert code == 0, output
    assert "on 8 x cpu of 2 processes" in output
    code, output = ends(second)
    assert code == 0
    assert "generation" not in output  # one process speaks, and writes


ETC = Path("/etc/netns")


def ip(*arguments: str, check: bool = True) -> None:
    """Run the `ip` command; the test fails where that cannot be done."""
    try:
        done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.fail("The ip command is missing: run make system.")
    if check and done.returncode:
        pytest.fail(
            "Network namespaces need root with CAP_SYS_ADMIN and CAP_NET_ADMIN: "
            f"ip {' '.join(arguments)}: {done.stderr.strip()}"
        )


@contextlib.contextmanager
def two_machines():
    """Make two network namespaces with a cable between them; yield names and addresses."""
    number = os.getpid() % 250
    names = [f"esenas{os.getpid()}{end}" for end in "ab"]
    addresses = [f"10.200.{number}.{end}" for end in (1, 2)]
    cable = [f"v{os.getpid()}{end}" for end in "ab"]  # of at most 15 characters
    ip("-V")
    try:
        for name in names:
            ip("netns", "add", name)
        ends_of_it = ["name", cable[0], "netns", names[0], "type", "veth", "peer"]
        ip("link", "add", *ends_of_it, "name", cable[1], "netns", names[1])
        for name, end, address in zip(names, cable, addresses, strict=True):
            # Gloo says to others what a machine's name means to itself; `ip netns exec` has this
            # file stand in for /etc/hosts.
            (ETC / name).mkdir(parents=True)
            (ETC / name / "hosts").write_text(f"{address} {socket.gethostname()}\n")
            ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, addresses, strict=True))
    finally:
        for name in names:
            ip("netns", "delete", name, check=False)  # the cable goes with it
            shutil.rmtree(ETC / name, ignore_errors=True)


@pytest.mark.system
def test_processes_on_two_machines_are_the_same_bits_as_one(tmp_path):
    """Two network namespaces: each process has an address of its own, and only a cable between."""
    run = (f"--config={CONFIG}:edges,es,es", ARGUMENTS)
    with two_machines() as machines:
        alone(tmp_path / "one", *run, devices=8, shipped=True)
        meet = meeting(f"{machines[0][1]}:{free_port()}")
        inside = [("ip", "netns", "exec", name) for name, _ in machines]
        with ended(
            start(tmp_path / "two", *run, *met, devices=4, within=within, shipped=True)
            for within, met in zip(inside, meet, strict=True)
        ) as pair:
            assert_they_finish(pair)
    assert all_bits(tmp_path / "two") == all_bits(tmp_path / "one")


@pytest.mark.slow
def test_a_process_without_its_coordinator_ends_too(tmp_path):
    run = (f"--config={CONFIG}:edges,es,es", "--config.generations=2000")
    with two(tmp_path, *run) as (first, second):
        saves(tmp_path, 3, second)
        first.kill()
        code, output = ends(second, timeout=30)
    assert code == 1
    assert "error: process 0 was lost or has stopped" in output


def test_what_process_0_refuses_ends_the_others(tmp_path):
    run = (f"--config={CONFIG}:edges,es,es", "--resume=must")
    with two(tmp_path, *run) as (first, second):
        code, output = ends(first, timeout=60)
        assert code == 1
        assert f"error: {tmp_path} holds no checkpoint to go on from" in output
        code, output = ends(second, timeout=30)
    assert code == 1
    assert "error: process 0 was lost or has stopped" in output


@pytest.mark.slow
def test_traced_processes_keep_step_and_a_signal_to_one_stops_all(tmp_path):
    run = (f"--config={CONFIG}:edges,es,es", "--config.generations=2000", "--profile=2")
    with two(tmp_path, *run) as (first, second):
        saves(tmp_path, 9, first)
        second.send_signal(signal.SIGTERM)
        code, output = ends(first, timeout=60)
        assert "Stopped after generation " in output
        assert code == 128 + signal.SIGTERM == ends(second, timeout=60)[0]
    traces = (tmp_path / "profile" / "plugins" / "profile").glob("generation_*")
    assert len(list(traces)) == 2


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_ends_all_processes(tmp_path):
    run = (f"--config={CONFIG}:edges,es,es", "--config.generations=4")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "curve.png").mkdir()  # no picture can be written there
    with two(tmp_path, *run) as (first, second):
        code, output = ends(first)
        assert code == 1, output
        assert "error: cannot write to" in output
        code, output = ends(second, timeout=60)
        assert code == 1
        assert "error: process 0 was lost or has stopped" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("both", "second", "error"),
    [
        ((), ("--config.strategy.noise_std=0.3",), "process 1 has another config (hash "),
        (("--config.strategy.noise_std=-1",), (), "strategy: noise_std must be "),
    ],
)
def test_what_all_processes_refuse_all_of_them_say(both, second, error, tmp_path):
    run = (f"--config={CONFIG}:edges,es,es", *both)
    with two(tmp_path, *run, second=second) as pair:
        for process in pair:
            code, output = ends(process, timeout=60)
            assert code == 1
            assert f"error: {error}" in output
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("process", "why"),
    [(0, "fewer than 2 processes came to"), (1, "no coordinator was found at")],
)
def test_a_process_that_nobody_meets_says_so_in_time(process, why, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    waiting = start(
        tmp_path, f"--config={CONFIG}:edges,es,es", f"--coordinator={address}",
        "--num_processes=2", f"--process_id={process}", "--coordinator_timeout=3", devices=4,
    )  # fmt: skip
    code, output = ends(waiting, timeout=60)
    assert code == 1
    assert output == (
        f"error: {why} {address} within 3 s: are all processes started, with the same "
        "--coordinator?"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 2, None, 9), "--num_processes needs --coordinator=HOST:PORT, got None."),
        (("auto", None, 1, 9), "--process_id needs --coordinator=HOST:PORT, got auto."),
        (("host", 2, 0, 9), "--coordinator must be HOST:PORT or auto, got 'host'."),
        (("host:0", 2, 0, 9), "--coordinator must be HOST:PORT or auto, got 'host:0'."),
        (("host:1234", None, 0, 9), "--num_processes must be at least 1, got None."),
        (("host:1234", 2, 2, 9), "--process_id must be in [0, 1], got 2."),
        (("host:1234", 2, 1, 0), "--coordinator_timeout must be at least 1 s, got 0."),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(hosts.HostsError) as raised:
        hosts.join(*arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize("named", ["127.0.0.1", "localhost", ""])
def test_processes_watch_each_other_at_the_coordinators_address_alone(named, monkeypatch):
    monkeypatch.setattr(hosts, "_meeting_place", named)
    with hosts._listening() as server:
        address = server.getsockname()[0]
        assert address == ("127.0.0.1" if named else hosts._way_out())
        with socket.create_connection(server.getsockname(), timeout=5):
            pass


def test_a_name_that_means_the_loopback_to_its_own_machine_is_its_way_out(monkeypatch):
    """Debian's /etc/hosts has 127.0.1.1 for the machine's own name."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]

    def resolve(*arguments, flags=0, **options):
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        return found

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(hosts, "_meeting_place", "node-0")
    with hosts._listening() as server:
        assert server.getsockname()[0] == hosts._way_out()
