"""A run that is stopped, killed or damaged, and started again, ends as one that never was."""

import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from experiments.build import build, section
from experiments.checkpoints import CheckpointError, Checkpoints
from experiments.command_line import RunError, load_config
from experiments.metrics_log import read_rows
from experiments.workdir import Workdir, WorkdirError
from tests.support.commands import all_bits, wait_until, with_devices
from tests.support.compiling import environment_as_shipped
from tests.support.shared_programs import shared_programs

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "tests" / "pendulum_config.py"


def start(folder: Path, config: str, *arguments: str, **options) -> subprocess.Popen:
    """Start the command as a user does: on one device, with JAX's own flags."""
    flags = with_devices(environment_as_shipped(), None)["XLA_FLAGS"]
    return _start(folder, config, *arguments, XLA_FLAGS=flags, **options)


def start_quickly(folder: Path, config: str, *arguments: str, **options) -> subprocess.Popen:
    """Start the command with this process's flags: it finds in the cache what was compiled here."""
    small_ones_too = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return _start(folder, config, *arguments, **small_ones_too, **options)


def _start(
    folder: Path,
    config: str,
    *arguments: str,
    largest_file_kb: int | None = None,
    **environment: str,
) -> subprocess.Popen:
    command = [
        sys.executable, "-u", "-m", "experiments.train", f"--config={config}",
        f"--workdir={folder}", *arguments,
    ]  # fmt: skip
    if largest_file_kb:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")  # half an entry stays
        command = ["bash", "-c", f'ulimit -f {largest_file_kb}; exec "$@"', "bash", *command]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


# --- kill -9 --------------------------------------------------------------------------------------


def after_generations(count: int) -> Callable[[Path, subprocess.Popen], bool]:
    def ready(folder: Path, process: subprocess.Popen) -> bool:
        path = folder / "metrics.jsonl"
        return path.exists() and path.read_bytes().count(b"\n") >= count

    return ready


def after_seconds(seconds: float) -> Callable[[Path, subprocess.Popen], bool]:
    began = time.monotonic()
    return lambda folder, process: time.monotonic() - began >= seconds


def in_a_checkpoint_write(folder: Path, process: subprocess.Popen) -> bool:
    return any(".orbax-checkpoint-tmp" in path.name for path in (folder / "checkpoints").glob("*"))


def kill(
    folder: Path, process: subprocess.Popen, ready: Callable[[Path, subprocess.Popen], bool]
) -> bool:
    """Kill a run when it is ready for it; return False if it ended before."""
    late = time.monotonic() + 600
    while process.poll() is None and not ready(folder, process):
        assert time.monotonic() < late, "the run neither ended nor came to where it is killed"
        time.sleep(0.002)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


# `tiny` for the command line.
TINY = (
    "--config.task.horizon=16", "--config.strategy.num_directions=4",
    "--config.strategy.num_exact=3", "--config.controller.population_size=8",
    "--config.population.lanes=8",
)  # fmt: skip


def tiny(generations: int = 6, **changes):
    config = load_config(f"{CONFIG}:edges,es,es")
    config.task.horizon = 16
    config.strategy.update({"num_directions": 4, "num_exact": 3})
    config.controller.population_size = 8
    config.population.lanes = 8
    config.update({"generations": generations, "checkpoint_every": 2, **changes})
    return config


@pytest.fixture(scope="module", autouse=True)
def programs_are_shared():
    with shared_programs():
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """A run long enough to be killed several times, in this process."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    train.train(tiny(75, checkpoint_every=3), Workdir(folder))
    return folder


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param((35,), marks=pytest.mark.short),
        pytest.param((10, 35), marks=pytest.mark.slow),
    ],
    ids=["once", "twice"],
)
def test_a_run_that_was_killed_ends_with_the_bits_of_one_never_killed(kills, unbroken, tmp_path):
    config = f"{CONFIG}:edges,es,es"
    folder = tmp_path / "killed"
    command = (config, *TINY, "--config.generations=75")
    for generations in kills:
        assert kill(folder, start_quickly(folder, *command), after_generations(generations))
    between = len((folder / "metrics.jsonl").read_text().splitlines())
    output = finish(start_quickly(folder, *command))
    assert 35 <= between < 75
    assert "Going on from the checkpoint of generation " in output
    expected, got = all_bits(unbroken), all_bits(folder)
    assert got == expected
    assert got["tensorboard"] == list(range(75))
    origin = Workdir(folder).read("provenance.json")
    assert len(origin["earlier"]) == len(kills)
    assert origin["from_generation"] >= 32


@contextlib.contextmanager
def largest_file(size: int):
    """Let no file of this process grow beyond so many bytes: the disk is full, then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_stops_the_run_and_leaves_what_was_saved(unbroken, tmp_path):
    """No file may grow beyond 20 kB: the metrics do, after some 30 generations."""
    config, workdir = tiny(75, checkpoint_every=3), Workdir(tmp_path / "run")
    with largest_file(20_000), pytest.raises(WorkdirError) as raised:
        train.train(config, workdir)
    wanted = f"cannot write to {workdir.path} (File too large); what was saved is intact: make"
    assert str(raised.value).startswith(wanted)
    checkpoints = Checkpoints(workdir.path / "checkpoints", read_only=True)
    newest = checkpoints.generations()[-1]
    assert newest > 15
    assert checkpoints.leaves(newest)["generation"] == newest
    train.train(config, workdir, "must")
    assert all_bits(workdir.path) == all_bits(unbroken)


def test_a_disk_too_full_for_a_checkpoint_stops_the_run(finished, tmp_path, monkeypatch):
    save = Checkpoints.save

    def save_on_a_full_disk(*arguments):
        with largest_file(500):
            save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_on_a_full_disk)
        with pytest.raises(CheckpointError) as raised:
            train.train(tiny(), Workdir(tmp_path))
    wanted = f"cannot write the checkpoint of generation 2 to {tmp_path}/checkpoints ("
    assert str(raised.value).startswith(wanted)
    assert str(raised.value).endswith("mend that, and run the same command again.")
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).generations() == []
    train.train(tiny(), Workdir(tmp_path))
    assert all_bits(tmp_path) == all_bits(finished)


@pytest.mark.slow
def test_the_command_says_that_a_disk_is_full_and_goes_on_when_it_is_not(tmp_path):
    """As a user has it: what is compiled cannot be kept, either."""
    folder, config = tmp_path / "run", f"{CONFIG}:edges,es,es"
    output, _ = (process := start(folder, config, largest_file_kb=30)).communicate(timeout=300)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    wanted = f"error: cannot write to {folder} (File too large); what was saved is intact: make"
    assert output.splitlines()[-1].startswith(wanted), output
    finish(start(folder, config))
    finish(start(tmp_path / "unbroken", config))
    assert all_bits(folder) == all_bits(tmp_path / "unbroken")


@pytest.mark.slow
def test_the_command_says_that_a_disk_is_too_full_for_a_checkpoint(tmp_path):
    large = ["--config.policy.hidden=(20000,)", "--config.checkpoint_every=2"]
    process = start(tmp_path, f"{CONFIG}:edges,es,es", *large, largest_file_kb=100)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    wanted = f"error: cannot write the checkpoint of generation 2 to {tmp_path}/checkpoints ("
    assert output.splitlines()[-1].startswith(wanted), output
    assert output.splitlines()[-1].endswith("mend that, and run the same command again.")
    assert "Traceback" not in output
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).generations() == []


COMBINATIONS = list(itertools.product(("edges", "partition"), ("es", "ars"), ("none", "es")))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(8), ids=[",".join(c) for c in COMBINATIONS])
def test_runs_killed_at_random_moments_end_with_the_bits_of_one_never_killed(number, tmp_path):
    """About a minute each on two cores: three kills, two of them in generations."""
    moments = random.Random(number)
    config = f"{CONFIG}:{','.join(COMBINATIONS[number])}"
    began = time.monotonic()
    finish(start(tmp_path / "unbroken", config))
    whole = time.monotonic() - began
    folder = tmp_path / "killed"
    first, second = sorted(moments.sample(range(1, 145), 2))
    assert kill(folder, start(folder, config), after_generations(first))
    # Anywhere, imports and compiling included; it may have ended before.
    kill(folder, start(folder, config), after_seconds(moments.uniform(0.2, whole)))
    if not (folder / "result.json").exists():
        kill(folder, start(folder, config), after_generations(second))
    print(f"killed after generations {first} and {second}, and anywhere in between")
    finish(start(folder, config))
    assert all_bits(folder) == all_bits(tmp_path / "unbroken")


@pytest.mark.slow
def test_the_quickstart_killed_once_and_resumed_learns_and_is_measured_twice_the_same(tmp_path):
    """About five minutes on two cores: the whole quickstart, as users compile it."""
    config = str(ROOT / "experiments" / "configs" / "quickstart.py")
    folder = tmp_path / "run"
    assert kill(folder, start(folder, config), after_generations(337))
    output = finish(start(folder, config))
    assert "Going on from the checkpoint of generation 300." in output
    result = Workdir(folder).read("result.json")
    assert result["generations"] == 800
    assert result["return_without_bonus"]["mean"] > 300
    assert result["return_without_bonus"]["mean"] > result["first_return_without_bonus"] + 250
    command = [sys.executable, "-m", "experiments.evaluate", f"--workdir={folder}", "--seed=1"]
    lines = [subprocess.check_output(command, cwd=ROOT, text=True) for _ in range(2)]
    assert lines[0] == lines[1]
    assert "100 episodes of seed 1" in lines[0]


@pytest.mark.slow
def test_a_run_killed_in_a_checkpoint_write_ends_with_the_same_bits(tmp_path):
    config = f"{CONFIG}:partition,ars,ars"
    finish(start(tmp_path / "unbroken", config))
    folder, torn = tmp_path / "killed", 0
    while torn < 3:
        killed = kill(folder, start(folder, config), in_a_checkpoint_write)
        assert killed, f"it ended with {torn} checkpoints torn"
        torn += in_a_checkpoint_write(folder, None)
    finish(start(folder, config))
    assert all_bits(folder) == all_bits(tmp_path / "unbroken")
    assert not in_a_checkpoint_write(folder, None)  # nothing is left lying about


@pytest.mark.slow
def test_a_run_killed_in_its_first_compile_ends_with_the_same_bits(tmp_path):
    config = f"{CONFIG}:edges,ars,ars"
    finish(start(tmp_path / "unbroken", config))
    folder = tmp_path / "killed"
    process = start(folder, config, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache"))
    assert process.stdout is not None
    while "Compiling a generation" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1.0)
    process.kill()
    rest, _ = process.communicate()
    assert "Compiled" not in rest
    finish(start(folder, config, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache")))
    assert all_bits(folder) == all_bits(tmp_path / "unbroken")


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("finished")  # its program is in the cache
def test_a_signal_finishes_the_generation_saves_and_says_how_to_go_on(number, tmp_path):
    config = f"{CONFIG}:edges,es,es"
    every = ["--config.generations=100000", "--config.checkpoint_every=1000000"]
    process = start_quickly(tmp_path, config, *TINY, *every)
    wait_until(lambda: after_generations(3)(tmp_path, process), process, "generation 3")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    rows = read_rows(tmp_path)
    done = len(rows)
    assert "Stopping after this generation; Ctrl-C stops at once." in output
    assert f"Stopped after generation {done} of 100000. The same command goes on" in output
    assert "Traceback" not in output
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).generations() == [done]


# A generation of some seconds.
LONG = ("--config.task.horizon=300000", "--config.population.refill_every=1000")


def interrupted(process: subprocess.Popen, when: str, number: int) -> tuple[str, None]:
    """Send a signal a moment after a line was printed; return what comes after it."""
    assert process.stdout is not None
    while when not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(number)
    return process.communicate(timeout=120)


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once(tmp_path):
    """Generations of many seconds, so that the first one cannot have been finished."""
    process = start_quickly(
        tmp_path, f"{CONFIG}:regression", "--config.strategy.num_directions=2000000"
    )
    assert process.stdout is not None
    while "Compiled" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    while "Stopping after this generation" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "Stopped at once; what was saved before is intact." in output
    assert read_rows(tmp_path) == []


@pytest.mark.slow
def test_an_interrupt_while_compiling_stops_at_once_and_says_how_to_go_on(tmp_path):
    process = start(
        tmp_path / "run", f"{CONFIG}:edges,es,none", JAX_COMPILATION_CACHE_DIR=str(tmp_path)
    )
    output, _ = interrupted(process, "Compiling", signal.SIGINT)
    assert process.returncode == 130
    assert "Stopped; the same command goes on from what was saved." in output
    assert "Compiled" not in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_signal_in_the_last_generation_stops_before_the_answer(tmp_path):
    process = start(tmp_path, f"{CONFIG}:edges,es,none", *LONG, "--config.generations=1")
    output, _ = interrupted(process, "Compiled in", signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Stopped after generation 1 of 1. The same command goes on from there." in output
    assert "Choosing" not in output


@pytest.mark.slow
def test_a_run_whose_reader_has_gone_goes_on_and_hears_signals(tmp_path):
    process = start(tmp_path, f"{CONFIG}:edges,es,es", "--config.generations=100000")
    assert process.stdout is not None
    process.stdout.close()
    wait_until(lambda: after_generations(20)(tmp_path, process), process, "generation 20")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).generations()[-1] == len(
        read_rows(tmp_path)
    )


# --- in one process -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train.train(tiny(), Workdir(folder))
    return folder


@pytest.fixture
def unfinished(finished, tmp_path):
    """A run that was killed after generation 5: checkpoints 2 and 4, and a torn line."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("result.json", "policy.npz"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints" / "6")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    return folder


def resumed(folder: Path, resume: str = "must", **changes) -> None:
    train.train(tiny(**changes), Workdir(folder), resume)


def test_an_unfinished_run_goes_on_from_its_newest_checkpoint(finished, unfinished, capsys):
    resumed(unfinished)
    assert "Going on from the checkpoint of generation 4." in capsys.readouterr().out
    assert all_bits(unfinished) == all_bits(finished)


def test_a_run_killed_between_its_last_generation_and_its_answer_only_answers(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    before = (folder / "metrics.jsonl").read_bytes()
    resumed(folder)
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert all_bits(folder) == all_bits(finished)


def test_how_often_it_is_saved_changes_nothing_and_may_change(finished, unfinished):
    resumed(unfinished, checkpoint_every=1)
    expected, got = all_bits(finished), all_bits(unfinished)
    assert got.pop("checkpoints") == [4, 5, 6]
    assert got == {k: v for k, v in expected.items() if k != "checkpoints"}


def test_devices_may_not_change_without_virtual_shards(unfinished):
    advice = r"another config \(devices was None, is 2\): go on with --config\.devices=None; a run"
    with pytest.raises(WorkdirError, match=advice):
        resumed(unfinished, devices=2)


@pytest.mark.slow
def test_devices_may_change_with_virtual_shards_and_not_without(unfinished, tmp_path, capsys):
    advice = r"another config \(devices was None, is 2\): go on with --config\.devices=None; a run"
    with pytest.raises(WorkdirError, match=advice):
        resumed(unfinished, devices=2)
    shared = {"generations": 4, "virtual_shards": 2}
    train.train(tiny(devices=1, **shared), Workdir(tmp_path / "shards"))
    (tmp_path / "shards" / "result.json").unlink()
    resumed(tmp_path / "shards", devices=2, **shared)
    assert "on 2 x cpu (of 8" in capsys.readouterr().out
    assert Workdir(tmp_path / "shards").read("provenance.json")["devices_used"] == 2


@pytest.mark.parametrize(
    "damage",
    {
        "truncated": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
        "empty": lambda f: f.write_bytes(b""),
        "changed": lambda f: f.write_bytes(
            bytes(b ^ 255 if i % 7 == 0 else b for i, b in enumerate(f.read_bytes()))
        ),
        "missing": lambda f: f.unlink(),
    }.items(),
    ids=lambda d: d[0],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage, finished, unfinished, capsys
):
    data = [
        p for p in (unfinished / "checkpoints" / "4" / "state").rglob("*")
        if p.is_file() and p.parent.name == "d"
    ]  # fmt: skip
    assert data
    for file in data:
        damage[1](file)
    resumed(unfinished)
    output = capsys.readouterr().out
    assert f"A checkpoint is damaged and was set aside: {unfinished}/checkpoints/4 (" in output
    assert "Going on from the checkpoint of generation 2." in output
    assert all_bits(unfinished) == all_bits(finished)
    assert (unfinished / "checkpoints" / "damaged-4").is_dir()  # nothing is deleted


def test_without_its_description_a_checkpoint_is_damaged(finished, unfinished, capsys):
    (unfinished / "checkpoints" / "4" / "about" / "metadata").write_text('{"format": 1')
    resumed(unfinished)
    assert "checkpoints/4 (" in capsys.readouterr().out
    assert all_bits(unfinished) == all_bits(finished)


def test_a_digest_finds_out_what_the_file_format_does_not(unfinished, capsys, finished):
    about = unfinished / "checkpoints" / "4" / "about" / "metadata"
    content = json.loads(about.read_text())
    content["digest"] = "0" * 64
    about.write_text(json.dumps(content))
    resumed(unfinished)
    assert "checkpoints/4 (its content is not what was written)" in capsys.readouterr().out
    assert all_bits(unfinished) == all_bits(finished)


def test_a_disk_that_cannot_be_read_now_sets_nothing_aside(unfinished, monkeypatch):
    def leaves(self, generation):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Checkpoints, "leaves", leaves)
    with pytest.raises(CheckpointError, match=r"cannot read .*/4 \(.*Input/output error\): run"):
        resumed(unfinished)
    assert {p.name for p in (unfinished / "checkpoints").iterdir()} == {"2", "4"}


def test_when_no_checkpoint_can_be_read_nothing_is_lost_and_all_are_named(unfinished):
    for generation in ("2", "4"):
        shutil.rmtree(unfinished / "checkpoints" / generation / "state")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint can be read: .*/4 .*/2 .* start over"
    ):
        resumed(unfinished)
    assert {p.name for p in (unfinished / "checkpoints").iterdir()} == {"2", "4"}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3, "esenas_jax": "9.9.9"},
        {"format": None, "esenas_jax": "9.9.9"},
        {"leaves": {"weights": ["float32", [3]]}, "esenas_jax": "9.9.9"},
    ],
)
def test_a_checkpoint_of_another_version_is_refused_with_what_to_do(change, unfinished):
    about = unfinished / "checkpoints" / "4" / "about" / "metadata"
    about.write_text(json.dumps({**json.loads(about.read_text()), **change}))
    with pytest.raises(
        CheckpointError, match=r"checkpoints/4 was written by esenas_jax 9\.9\.9 .* go on with the"
    ):
        resumed(unfinished)


def test_metrics_that_lack_what_is_before_the_checkpoint_are_refused(unfinished):
    lines = (unfinished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (unfinished / "metrics.jsonl").write_text("".join([lines[0], *lines[2:]]))
    with pytest.raises(WorkdirError, match="does not hold the 4 generations before the checkpoint"):
        resumed(unfinished)


def test_resume_never_refuses_a_run_and_must_wants_a_checkpoint(unfinished, tmp_path):
    before = sorted(p.name for p in unfinished.rglob("*"))
    with pytest.raises(WorkdirError, match="holds a run, and --resume=never: choose another"):
        resumed(unfinished, "never")
    with pytest.raises(WorkdirError, match="holds no checkpoint to go on from, and --resume=must"):
        resumed(tmp_path / "nothing", "must")
    with pytest.raises(ValueError, match="resume must be one of auto, never, must, got 'maybe'"):
        resumed(unfinished, "maybe")
    assert sorted(p.name for p in unfinished.rglob("*")) == before
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_is_written_to_is_refused(unfinished):
    before = all_files(unfinished)
    with (
        Workdir(unfinished).claim(),
        pytest.raises(WorkdirError, match=r"^another process is training in .*: wait for it"),
    ):
        resumed(unfinished)
    assert all_files(unfinished) == before


def all_files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_two_processes_cannot_write_to_one_folder(unfinished):
    with Workdir(unfinished).claim():
        output, _ = start(unfinished, f"{CONFIG}:edges,es,es").communicate(timeout=60)
    assert f"error: another process is training in {unfinished}: wait for it" in output


def test_totals_past_two_to_the_31_steps_stay_exact(unfinished):
    """The counters start there: in the checkpoint, and in the moments of observations."""
    search = build(tiny())
    checkpoints = Checkpoints(unfinished / "checkpoints")
    found = checkpoints.latest(jax.eval_shape(search.init, jax.random.key(0)))
    assert found is not None
    count = np.float32(2.0**31)
    moments = found.state.moments
    grown = moments._replace(count=count, deviation=moments.deviation * count / moments.count)
    state = found.state._replace(moments=grown)
    shutil.rmtree(unfinished / "checkpoints")
    steps = 2**31 - 5
    Checkpoints(unfinished / "checkpoints").save(state, {"env_steps": [steps], "episodes": [2**33]})
    resumed(unfinished)
    rows = read_rows(unfinished)
    assert [row["env_steps"] for row in rows[4:]] == [steps + 11 * 16, steps + 2 * 11 * 16]
    assert [row["episodes"] for row in rows[4:]] == [2**33 + 11, 2**33 + 22]
    assert rows[-1]["env_steps"] > 2**31
    last = Checkpoints(unfinished / "checkpoints").latest(state)
    assert last is not None
    assert last.state.moments.count > count  # by 352, rounded to 256 or 512
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(last.state.moments))
    std = jnp.sqrt(last.state.moments.deviation / last.state.moments.count)
    before = jnp.sqrt(moments.deviation / moments.count)
    np.testing.assert_allclose(std, before, rtol=1e-3)


def without_episodes():
    """A run that compiles in a second or two."""
    config = tiny()
    config.task = section("task", "regression", batch_size=8)
    config.policy = section("policy", "edge_pruned", hidden=(3,), num_edges=6)
    return config


def whole_and_resumed(config, tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a run, and of one that was stopped after generation 4 and resumed."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    train.train(config, Workdir(whole))
    shutil.copytree(whole, folder)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "6")
    train.train(config, Workdir(folder), "must")
    return whole, folder


# --- every controller on the device ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "objective"),
    [
        ("reinforce", {}, "shifted_return"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("constant", {}, "shifted_return"),
                ("random", {}, "shifted_return"),
                ("hill_climbing", {}, "shifted_return"),
                ("nsga2", {"population_size": 8}, "pareto"),
                ("ppo", {"parameterisation": "autoregressive"}, "shifted_return"),
                ("ppo", {}, "shifted_return"),
                ("cross_entropy", {}, "shifted_return"),
            )
        ),
    ],
)
def test_a_run_of_every_controller_goes_on_with_the_bits_of_an_unbroken_one(
    name, arguments, objective, tmp_path, capsys
):
    """Regularized evolution's are those of all other tests here."""
    config = without_episodes()
    config.controller = section("controller", name, **arguments)
    config.objective = section("objective", objective)
    config.search.baseline_rate = 0.3
    whole, folder = whole_and_resumed(config, tmp_path)
    assert "Going on from the checkpoint of generation 4." in capsys.readouterr().out
    assert all_bits(folder) == all_bits(whole)


# --- populations of learners, late updates --------------------------------------------------------

RULES = {
    "annealing": section("rule", "annealing"),
    "tabu": section("rule", "tabu", radius=0.1, ring_size=3),
    "swarm": section("rule", "swarm"),
    "culling": section("rule", "culling", newcomers="bred"),
}
LEARNERS = {
    "annealing and culling": ("population", {"number": 3, "every": 1}, ("annealing", "culling")),
    "swarm and tabu": ("population", {"number": 2, "every": 1}, ("swarm", "tabu")),
    "late": ("asynchronous", {"lags": (2, 1)}, ()),
}


@pytest.mark.parametrize(
    "name",
    [
        "late",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("annealing and culling", "swarm and tabu")
        ),
    ],
)
def test_a_run_of_learners_goes_on_with_the_bits_of_an_unbroken_one(name, tmp_path, capsys):
    """What rules remember, and what slow workers saw, are in the checkpoint."""
    kind, arguments, rules = LEARNERS[name]
    config = without_episodes()
    config.learners = section("learners", kind, **arguments)
    for place, rule in zip(("rule", "second_rule"), rules, strict=False):
        config[place] = RULES[rule]
    whole, folder = whole_and_resumed(config, tmp_path)
    assert "Going on from the checkpoint of generation 4." in capsys.readouterr().out
    assert all_bits(folder) == all_bits(whole)
    assert json.loads((whole / "result.json").read_text())["generations"] == 6


# --- a controller on the host ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "propose_every"),
    [
        ("regularized_evolution", 1),
        *(
            pytest.param(algorithm, every, marks=pytest.mark.slow)
            for algorithm, every in (
                ("regularized_evolution", 3), ("hill_climb", 1), ("neat", 1), ("nsga2", 1),
                ("random", 1),
            )
        ),
    ],
)  # fmt: skip
def test_a_run_of_pygloves_goes_on_with_the_architectures_of_an_unbroken_one(
    algorithm, propose_every, tmp_path, capsys
):
    """All of them are in its last checkpoint, with their scores."""
    config = without_episodes()
    config.controller = section("controller", "pyglove", algorithm=algorithm)
    config.search.propose_every = propose_every
    whole, folder = whole_and_resumed(config, tmp_path)
    assert "Going on from the checkpoint of generation 4." in capsys.readouterr().out
    expected, got = all_bits(whole), all_bits(folder)
    assert got == expected
    assert "history.genotypes" in expected["state"]
    # Nothing is replayed for a run that only lacks its answer.
    (folder / "result.json").unlink()
    train.train(config, Workdir(folder), "must")
    assert "Replaying" not in capsys.readouterr().out
    assert all_bits(folder) == expected


def test_a_history_that_is_not_the_algorithms_stops_the_run_with_a_sentence(tmp_path):
    config = without_episodes()
    config.generations = 4
    config.controller = section("controller", "pyglove")
    train.train(config, Workdir(tmp_path))
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    found = checkpoints.latest(jax.eval_shape(build(config).init, jax.random.key(0)))
    assert found is not None
    found.history["genotypes"][0, 0] = np.arange(6)
    shutil.rmtree(tmp_path / "checkpoints")
    Checkpoints(tmp_path / "checkpoints").save(found.state, found.totals, found.history)
    with pytest.raises(RunError, match=r"in round 0 of its replay the algorithm does not propose"):
        train.train(config, Workdir(tmp_path), "must")
