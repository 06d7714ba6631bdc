"""Where a result comes from: code, command, versions, devices, time and memory."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.cores import usable_cores

_PACKAGES = (
    "esenas-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "brax", "mujoco",
    "mujoco-mjx", "pyglove", "ml_collections", "numpy",
)  # fmt: skip
# If one of them changes within a run, its bits may.
_DECIDE = (
    "commit", "dirty", "python", "versions", "device", "cpu", "platform", "matmul_precision",
    "xla_flags", "lanes", "refill_every", "virtual_shards",
)  # fmt: skip


def provenance() -> dict[str, Any]:
    """Return what is known before anything is computed."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None
        if (changes := _git("status", "--porcelain", "--untracked-files=no")) is None
        else bool(changes),
        "command": sys.argv,
        "python": sys.version.split()[0],
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "device_count": jax.device_count(),
        "cpu": _cpu(),
        "vector_bits": vector_bits(),
        "cpu_count": os.cpu_count(),
        "usable_cores": usable_cores(),
        "matmul_precision": jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two starts of a run that can change its bits."""

    def flags(origin: Mapping[str, Any]) -> list[str]:
        # How many devices a CPU pretends to have is the affair of `devices`.
        given = str(origin.get("xla_flags", "")).split()
        return [flag for flag in given if "force_host_platform_device_count" not in flag]

    return [
        name
        for name in _DECIDE
        if (
            flags(before) != flags(now)
            if name == "xla_flags"
            else before.get(name) != now.get(name)
        )
    ]


def peak_memory() -> dict[str, int | None]:
    """Return the most memory that was in use at a time, in bytes.

    Of the process, and of the device that used most, where it counts that (GPUs and TPUs do).
    """
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    used = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return {"host_bytes": kilobytes * 1024, "device_bytes": max(used, default=None)}


def _cpu() -> str:
    """Return the processor's model: another one may have other instructions, and round so."""
    return _cpu_line("model name", _cpu_text()) or platform.processor()


def vector_bits(cpuinfo: str | None = None) -> int | None:
    """Return how wide the vectors of the processor are, in bits; None if the system does not say.

    Args:
        cpuinfo: the text of /proc/cpuinfo, read there by default.
    """
    text = _cpu_text() if cpuinfo is None else cpuinfo
    flags = (_cpu_line("flags", text) or _cpu_line("Features", text)).split()
    widths = {"avx512f": 512, "avx": 256, "sse2": 128, "asimd": 128}
    return max((bits for flag, bits in widths.items() if flag in flags), default=None)


def _cpu_text() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _cpu_line(name: str, text: str) -> str:
    """Return what the first line of this name says, "" if there is none."""
    lines = [line.partition(":") for line in text.splitlines()]
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


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
