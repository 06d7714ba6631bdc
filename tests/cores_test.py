"""The cores that a process may use."""

import os
from pathlib import Path

import pytest

from experiments.cores import usable_cores


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("contents", "expected"),
    {
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
    }.values(),
    ids=lambda x: None,
)
def test_a_quota_limits_the_usable_cores(contents, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(1000)))
    assert usable_cores(files(tmp_path, contents)) == expected


def test_the_affinity_of_the_process_limits_the_usable_cores(tmp_path, monkeypatch):
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable_cores(tmp_path) == 1
