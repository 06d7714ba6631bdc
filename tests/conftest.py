"""How every test runs: strict about dtypes and ranks, on eight host devices, compiling once."""

import gc
import os
import pathlib

# Before JAX is imported. Programs that a test starts inherit what stands in the environment.
os.environ["XLA_FLAGS"] = " ".join(
    flag
    for flag in (os.environ.get("XLA_FLAGS"), "--xla_force_host_platform_device_count=8")
    if flag
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache" / "esenas_jax" / "tests")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ["MPLBACKEND"] = "Agg"

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    # Processes share the cache and do not lock it: half an entry is a miss, not a failure.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry"
    )


@pytest.fixture(autouse=True)
def room_for_programs():
    """Drop compiled programs before a process has more memory maps than Linux allows, 65,530.

    Each takes some ten of them, and the compiler crashes when there are no more.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 40_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def relaxed_promotion():
    """For code of others, Brax say, that mixes dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
