"""What is written for readers is true: examples run, and importing costs what it should."""

import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import esenas_jax
from benchmarks import tables
from benchmarks.measure import Row

ROOT = Path(__file__).parent.parent
MODULES = [m.name for m in pkgutil.walk_packages(esenas_jax.__path__, "esenas_jax.")]
README = (ROOT / "README.md").read_text()
FIDELITY = (ROOT / "docs" / "fidelity.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"


# Examples of seconds: others like them run in the tests of their modules and from the README.
LONG = ("esenas_jax.learners", "esenas_jax.asynchronous")


@pytest.mark.parametrize(
    "name", [pytest.param(m, marks=[pytest.mark.slow] if m in LONG else []) for m in MODULES]
)
def test_docstring_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_some_docstring_examples_exist():
    finder = doctest.DocTestFinder()
    examples = [t for m in MODULES for t in finder.find(importlib.import_module(m)) if t.examples]
    assert len(examples) >= 4


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# Numbers in the examples that only say how long they take; all of them are in the first one.
LESS = {
    "horizon=200": "horizon=8",
    "num_directions=16, num_exact=8": "num_directions=3, num_exact=2",
    "population_size=40": "population_size=8",
    "state, 5)": "state, 2)",
    "episodes=64": "episodes=8",
}


def run_block(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})


def with_less_to_do(block: str) -> str:
    for number, less in LESS.items():
        block = block.replace(number, less)
    return block


def plausible(like: jax.ShapeDtypeStruct, given: list[jax.Array]) -> jax.Array:
    """Return the last argument of that form, a valid architecture say; else what a row of another
    has, or zeros.
    """
    for array in reversed(given):
        if (array.shape, array.dtype) == (like.shape, like.dtype):
            return array
    for array in given:
        for shape in (like.shape, like.shape[1:]):
            if shape and (array.shape[1:], array.dtype) == (shape, like.dtype):
                return jnp.broadcast_to(array[0], like.shape)
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(np.zeros((*like.shape, 2), np.uint32))
    return jnp.asarray(np.zeros(like.shape, like.dtype))


def traced(function, static_argnums=(), **options):
    """Return what stands for `jax.jit(function)`: it traces, compiles nothing, and makes up what
    it returns.
    """

    def call(*arguments):
        fixed = {static_argnums} if isinstance(static_argnums, int) else set(static_argnums)
        free = [a for i, a in enumerate(arguments) if i not in fixed]

        def of(*free):
            rest = iter(free)
            return function(*(a if i in fixed else next(rest) for i, a in enumerate(arguments)))

        given = [jnp.asarray(x) for x in jax.tree.leaves(free)]
        return jax.tree.map(lambda like: plausible(like, given), jax.eval_shape(of, *free))

    return call


def test_readme_examples_are_short():
    assert BLOCKS
    assert all(len(block.splitlines()) < 40 for block in BLOCKS)


def test_the_first_readme_example_runs_with_less_to_do():
    assert all(number in BLOCKS[0] for number in LESS)
    run_block(with_less_to_do(BLOCKS[0]))


@pytest.mark.parametrize("place", range(1, len(BLOCKS)))
def test_readme_examples_fit_the_library(place, monkeypatch):
    """What they call is there and takes what it gets; programs are traced and not compiled."""
    monkeypatch.setattr(jax, "jit", traced)
    run_block(with_less_to_do(BLOCKS[place]))


@pytest.mark.slow
def test_readme_examples_run():
    """As they are written."""
    for block in BLOCKS:
        run_block(block)


def test_readme_has_no_hole():
    assert not re.search(
        r"\b[A-Z]{3,}_[A-Z]{3,}\b(?!_)", README.replace("JAX_", "").replace("XLA_FLAGS", "")
    )


def test_readme_names_files_that_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`((?:experiments|tests|benchmarks|esenas_jax)/[\w/.]*)`", README):
        assert (ROOT / name).exists(), name


def test_make_test_runs_what_pins_a_promise(request):
    if len(request.session.items) < 1000:
        pytest.skip("only a part of the suite was selected")
    selected = {getattr(item, "originalname", "") for item in request.session.items}
    table = README.partition("| Promise | Pinned by |")[2].partition("\n\n")[0]
    pinned = {
        name
        for row in table.splitlines()[2:]
        for name in re.findall(r"`(test_\w+)`", row.split("|")[2])
    }
    assert len(pinned) >= 12
    assert pinned <= selected


def test_tests_that_the_readme_names_exist():
    """The fidelity section pins each choice to a test by its name."""
    tests = "".join(p.read_text() for p in (ROOT / "tests").rglob("*_test.py"))
    named = re.findall(r"`(test_\w+)`", README + FIDELITY)
    assert len(named) >= 8
    for name in named:
        assert f"def {name}(" in tests, name


@pytest.mark.parametrize("folder", [path.name for path in RESULTS.iterdir()])
def test_the_page_of_results_is_what_was_measured(folder):
    assert (RESULTS / folder / "README.md").read_text() == tables.page(RESULTS / folder)


def test_figures_in_the_readme_are_rows_that_were_measured():
    contents = [json.loads(path.read_text()) for path in (RESULTS / "cpu").glob("*.json")]
    measured = {tables.line(row) for content in contents for row in tables.rows_of(content)}
    told = README.partition("| | Measured | Target |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert len(told.splitlines()) >= 5
    assert set(told.splitlines()) <= measured


def test_what_the_quickstart_finds_is_in_the_table():
    """Its config is that of the controller named evolution."""
    content = json.loads((RESULTS / "cpu" / "hopper_controllers.json").read_text())
    values = {row.name: row.value for row in tables.rows_of(content)}
    a, b, c, d, e = (values[f"return, seed {seed}: evolution"] for seed in range(5))
    assert f"seeds 0 to 4 return {a:.0f}, {b:.0f}, {c:.0f}, {d:.0f} and {e:.0f}" in README
    without = values["return without bonus, seed 0: evolution"]
    assert re.search(rf"return {a:.0f} ± \d+, of which {without:.0f} ± \d+ are not", README)


def test_rows_that_make_a_grid_are_shown_as_one():
    rows = [Row(f"{a}: {b}", v, None, "x") for v, (a, b) in enumerate(product("ab", "cd"))]
    assert tables.table(rows).splitlines() == [
        "| | a (x) | b (x) |", "|---|---|---|", "| c | 0 | 2 |", "| d | 1 | 3 |"
    ]  # fmt: skip
    assert tables.table([*rows, rows[0]]).splitlines()[0] == "| | Measured | Target |"


@pytest.mark.short
def test_importing_the_library_is_light_and_silent():
    code = (
        "import sys, esenas_jax\n"
        "heavy = {'brax', 'mujoco', 'matplotlib', 'pyglove', 'orbax', 'flax', 'ray', 'rich'}\n"
        "sys.exit(', '.join(sorted(heavy & sys.modules.keys())) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
