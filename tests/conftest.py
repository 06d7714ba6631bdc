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

# JAX has read the environment: this is for the programs that tests start, most of them alike.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Linux allows a process 65,530 memory maps, and a compiled program takes about ten.
MOST_MAPS = 40_000
MOST_BYTES = 1.7e9
MOST_BYTES_LEFT = 1.2e9  # that a file may leave to the next


def pytest_addoption(parser):
    parser.addoption(
        "--suite-profile",
        metavar="FILE",
        help="write the seconds of each test file and the memory of each process to FILE",
    )


def pytest_configure(config):
    config.pluginmanager.register(suite_profile.SuiteProfile(config))
    # Tracing makes many objects and few cycles: seldom looking for cycles saves a tenth.
    gc.set_threshold(50_000, 20, 20)
    # Processes share the cache and do not lock it: half an entry is a miss, not a failure.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry"
    )


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # modules and tests stay: the collector need not visit them


def resident() -> float:
    """Return the bytes of memory that this process holds, 0 where the system does not say."""
    pages = pathlib.Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else 0.0


def memory_maps() -> int:
    maps = pathlib.Path("/proc/self/maps")
    return maps.read_bytes().count(b"\n") if maps.exists() else 0


def drop_programs() -> float:
    """Drop compiled programs, and return the bytes still held.

    A test that calls a dropped program compiles it again.
    """
    jax.clear_caches()
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)  # gives freed memory back to the system
    return resident()


@pytest.fixture(scope="session")
def last_drop():
    """What the last drop left, and the tests since: dropping soon again would only cost time."""
    return {"bytes_left": 0.0, "tests_since": 0}


@pytest.fixture(autouse=True)
def room_for_programs(last_drop):
    """Keep a process from more memory, or more memory maps, than it may have."""
    yield
    last_drop["tests_since"] += 1
    # Counting maps takes a while, and a test makes at most a few hundred.
    crowded = last_drop["tests_since"] % 20 == 0 and memory_maps() > MOST_MAPS
    if crowded or resident() > max(MOST_BYTES, last_drop["bytes_left"] + 3e8):
        last_drop.update(bytes_left=drop_programs(), tests_since=0)


@pytest.fixture(autouse=True, scope="module")
def memory_for_the_next_file(request, last_drop):
    """Forget what the tests of a file kept for each other, and all programs if that is not enough.

    Programs that many files use, such as an addition, are worth keeping.
    """
    yield
    for value in vars(request.module).values():
        if hasattr(value, "cache_clear") and value.__module__.startswith("tests."):
            value.cache_clear()
    gc.collect()
    if resident() > MOST_BYTES_LEFT:
        last_drop.update(bytes_left=drop_programs(), tests_since=0)


@pytest.fixture
def relaxed_promotion():
    """For code of others, Brax say, that mixes dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
