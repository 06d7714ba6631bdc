"""How programs are compiled in tests: quickly, or as a user's are.

Compiling is most of what the suite costs, and few tests compile a program that runs for long. The
options of `QUICK` leave out LLVM's optimizations and, where XLA still has a choice, its newer code
generator for fused loops. Compiling five populations of learners took 13.6 s of processor time
instead of 65.7 (24.4 with the first option alone; disabling LLVM's expensive passes, fewer or more
parts per program, and narrower vectors gained nothing more). Such programs compute the same to
rounding and run two to four times as long. So a test of bits, or one whose program runs for
seconds, uses `jit_as_shipped`.
"""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

QUICK: dict[str, object] = {"xla_backend_optimization_level": 0}
SHIPPED: dict[str, object] = {"xla_backend_optimization_level": 3}
if importlib.metadata.version("jaxlib").startswith("0.10."):  # jaxlib 0.11 has no such option
    QUICK["xla_cpu_use_fusion_emitters"] = False
    SHIPPED["xla_cpu_use_fusion_emitters"] = True


def flags(options: dict) -> list[str]:
    """Return XLA's options as they stand in XLA_FLAGS."""
    return [f"--{name}={str(value).lower()}" for name, value in options.items()]


def jit_as_shipped(function, **options):
    """Return `jax.jit(function)` whose program is compiled as it is without `QUICK`."""
    import jax  # conftest.py imports this module before JAX, which reads the environment once

    return jax.jit(function, compiler_options=SHIPPED, **options)


def environment_as_shipped() -> dict[str, str]:
    """Return the environment for a program that compiles as it does for a user."""
    kept = [flag for flag in os.environ["XLA_FLAGS"].split() if flag not in flags(QUICK)]
    return {**os.environ, "XLA_FLAGS": " ".join(kept)}


def in_a_process(code: str, quick: bool = False) -> list[str]:
    """Run a program with the flag that equal bits need; it compiles as a user's, or quickly."""
    environment = dict(os.environ) if quick else environment_as_shipped()
    environment["XLA_FLAGS"] += " --xla_cpu_max_isa=AVX"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent.parent,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
