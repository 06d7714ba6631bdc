"""How many cores of a CPU this process may use, and a JAX device for each of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax

HOST_DEVICES = "--xla_force_host_platform_device_count"


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: the whole ones, at least 1.

    The affinity of the process limits them (`taskset`), and so does the quota of its control group
    or of a group above it (containers). The number of cores of the machine says neither.

    Args:
        root: where /proc and /sys are found.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of the control groups that this process is in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # no control groups
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            mounts = [root / "sys/fs/cgroup"]
        elif "cpu" in controllers.split(","):  # version 1
            mounts = [root / "sys/fs/cgroup" / name for name in (controllers, "cpu")]
        else:
            continue
        for mount in mounts:
            folder = mount / group.lstrip("/")
            for above in (folder, *folder.parents):
                if above.is_relative_to(mount):
                    yield from _quota(above)


def _quota(folder: Path) -> Iterator[float]:
    """Yield the quota that the files of one control group name, if there is one."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = ((folder / name).read_text() for name in names)
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return  # the group is another mount's, or its files have another form


def make_host_devices() -> None:
    """Make each usable core a device of the CPU; to be called before JAX looks for devices.

    XLA_FLAGS and JAX_NUM_CPU_DEVICES are obeyed where they name a number of devices. Processes that
    are started from here do not inherit what is set here.
    """
    named = HOST_DEVICES in os.environ.get("XLA_FLAGS", "")
    if not named and "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", usable_cores())
