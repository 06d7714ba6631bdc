"""How every test runs: strict about dtypes and ranks, on eight host devices, compiling quickly."""

import contextlib
import ctypes
import gc
import os
import pathlib
import resource

from tests.support import compiling, suite_profile

# Before JAX is imported. Programs that a test starts inherit what stands in the environment.
os.environ["XLA_FLAGS"] = " ".join(
    flag
    for flag in (
        os.environ.get("XLA_FLAGS"),
        "--xla_force_host_platform_device_count=8",
        *compiling.flags(compiling.QUICK),
    )
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

# Linux allows a process 65,530 memory maps, and a compiled program takes about ten.
MOST_MAPS = 40_000
MOST_BYTES = 0.8e9  # that a file may leave to the next


def pytest_addoption(parser):
    parser.addoption(
        "--suite-profile",
        metavar="FILE",
        help="write the seconds of each test file and the memory of each process to FILE",
    )


def pytest_configure(config):
    config.pluginmanager.register(suite_profile.SuiteProfile(config))
    # Processes share the cache and do not lock it: half an entry is a miss, not a failure.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry"
    )


def drop_programs():
    """Drop compiled programs; a test that calls one compiles it again."""
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)  # gives freed memory back to the system


@pytest.fixture(autouse=True)
def room_for_programs():
    """Keep a process from more memory maps than it may have: the compiler would crash."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        drop_programs()


@pytest.fixture(autouse=True, scope="module")
def memory_for_the_next_file(request):
    """Forget what the tests of a file kept for each other, and all programs if that is not enough.

    Programs that many files use, such as an addition, are worth keeping.
    """
    yield
    for value in vars(request.module).values():
        if hasattr(value, "cache_clear") and value.__module__.startswith("tests."):
            value.cache_clear()
    gc.collect()
    pages = pathlib.Path("/proc/self/statm")
    if pages.exists() and int(pages.read_text().split()[1]) * resource.getpagesize() > MOST_BYTES:
        drop_programs()


@pytest.fixture
def relaxed_promotion():
    """For code of others, Brax say, that mixes dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
