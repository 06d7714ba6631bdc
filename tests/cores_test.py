"""The cores that a process may use, and what a config makes of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments import build
from experiments.command_line import load_config
from experiments.cores import usable_cores
from experiments.workdir import Workdir
from tests.support.commands import with_devices
from tests.support.compiling import environment_as_shipped

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "experiments" / "configs"
ALLOWED = len(os.sched_getaffinity(0))


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct"


QUOTAS = {
    "no control groups": ({}, 1000),
    "no quota": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
        1000,
    ),
    "a quota": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
    "a part of a core does not count": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "350000 100000"},
        3,
    ),
    "less than a core is one": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"},
        1,
    ),
    "the tightest group above": (
        {
            "proc/self/cgroup": "0::/jobs/mine\n",
            "sys/fs/cgroup/jobs/mine/cpu.max": "max 100000\n",
            "sys/fs/cgroup/jobs/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/cpu.max": "900000 100000\n",
        },
        2,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n",
            f"{V1}/a/cpu.cfs_quota_us": "400000\n",
            f"{V1}/a/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "version 1 in a container, whose group is the root of the mount": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/123\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "version 1 without a quota": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/\n",
            f"{V1}/cpu.cfs_quota_us": "-1\n",
            f"{V1}/cpu.cfs_period_us": "100000\n",
        },
        1000,
    ),
    "what cannot be read is no quota": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "strange"},
        1000,
    ),
}


@pytest.mark.parametrize(("contents", "expected"), QUOTAS.values(), ids=QUOTAS)
def test_a_quota_limits_the_usable_cores(contents, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(1000)))
    assert usable_cores(files(tmp_path, contents)) == expected


@pytest.mark.parametrize(
    ("named", "devices"),
    [
        ({}, 1),
        pytest.param(
            {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3, marks=pytest.mark.slow
        ),
        pytest.param({"JAX_NUM_CPU_DEVICES": "2"}, 2, marks=pytest.mark.slow),
    ],
)
def test_each_core_of_the_affinity_is_a_device_unless_a_number_is_named(named, devices, tmp_path):
    assert usable_cores(tmp_path) == ALLOWED
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from experiments.cores import *\n"
        "make_host_devices(); print(usable_cores(), jax.device_count())"
    )

    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | named
    said = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True
    )
    assert said.split() == ["1", str(devices)]


# --- what a config makes of them ------------------------------------------------------------------


def config(**changes):
    return {"devices": None, "devices_share": "candidates", "virtual_shards": None} | changes


@pytest.mark.parametrize(
    ("cores", "given", "expected"),
    [
        (1, {"virtual_shards": 2}, (1, 2)),
        (2, {"virtual_shards": 2}, (2, 2)),
        (64, {"virtual_shards": 2}, (2, 2)),
        (3, {"virtual_shards": 8}, (2, 8)),
        (7, {"virtual_shards": 8}, (4, 8)),
        (64, {"virtual_shards": 8}, (8, 8)),
        (64, {"virtual_shards": 16}, (8, 16)),  # JAX finds eight devices
        (5, {"virtual_shards": 7}, (1, 7)),
        (64, {}, (1, None)),
        (1, {"devices": 4, "virtual_shards": 8}, (4, 8)),
        (64, {"devices": 2}, (2, None)),
        (64, {"devices": 2, "virtual_shards": 8, "devices_share": "runs"}, (2, None)),
        (64, {"devices": 2, "virtual_shards": 8, "devices_share": "learners"}, (2, None)),
    ],
)
def test_a_config_uses_as_many_cores_as_divide_its_shards(cores, given, expected, monkeypatch):
    monkeypatch.setattr(build, "usable_cores", lambda: cores)
    assert build.shared_out(config(**given)) == expected


def test_one_accelerator_does_whole_generations(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert build.shared_out(config(virtual_shards=8)) == (1, None)
    assert build.shared_out(config(virtual_shards=8, devices=4)) == (4, 8)


def test_several_processes_say_how_many_devices_they_share(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="devices must be given in a run of several processes: "):
        build.shared_out(config(virtual_shards=8))


@pytest.mark.parametrize(
    "name", sorted({path.stem for path in CONFIGS.glob("[a-z]*.py")} - {"base"})
)
def test_every_config_shares_its_generation_out_among_the_cores(name):
    found = load_config(f"{CONFIGS}/{name}.py")
    assert found.devices is None
    assert found.virtual_shards == 2  # none has as many as 512 candidates
    strategy = found.strategy
    assert 2 * strategy.num_directions + strategy.num_exact < 512


@pytest.mark.slow
def test_a_run_is_the_same_bits_on_one_core_and_on_all(tmp_path):
    """The default number of devices, and XLA's flags as the command sets them."""
    assert ALLOWED > 1, "this test needs two cores"
    files = {}
    for cores in (1, ALLOWED):
        code = (
            f"import os, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])\n"
            "import runpy; runpy.run_module('experiments.train', run_name='__main__')"
        )
        for name in ("pendulum_edges", "regression_ars"):
            folder = tmp_path / name / str(cores)
            arguments = [f"--config={CONFIGS}/{name}.py", f"--workdir={folder}"]
            arguments += ["--config.generations=20", "--config.answer_episodes=16"]
            environment = with_devices(environment_as_shipped(), None)
            subprocess.run(
                [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, check=True
            )
            assert Workdir(folder).read("provenance.json")["devices_used"] == min(cores, 2)
            assert Workdir(folder).read("config.json")["devices"] is None
            metrics = (folder / "metrics.jsonl").read_text()
            files[name, cores] = [metrics, (folder / "result.json").read_text()]
            assert len({json.loads(line)["exact_mean"] for line in metrics.splitlines()}) > 10
    for name, cores in files:
        assert files[name, cores] == files[name, 1], (name, cores)
