"""The mutations of a line are those of its operators, masks, keys and axes, and are Python."""

import ast
from pathlib import Path

import pytest

from tests.mutations.operators import mutated, mutations

ROOT = Path(__file__).parents[2]


def changed(line: str) -> set[str]:
    source = f"def f():\n    {line}\n"
    return {mutated(source, m).splitlines()[1].strip() for m in mutations(source)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("return a + b", {"return a - b"}),
        ("return -a", {"return (a)"}),
        ("return a < b", {"return a <= b"}),
        ("return x[3]", {"return x[4]"}),
        ("return jnp.where(m, a, b)", {"return (a)"}),
        (
            "return 2 * _where(m, a | b, c)",
            {
                "return 2 / _where(m, a | b, c)",
                "return 3 * _where(m, a | b, c)",
                "return 2 * (a | b)",
                "return 2 * _where(m, (a), c)",
            },
        ),
        ("return m & n", {"return (m)"}),
        ("return fold_in(key, i)", set()),
        ("return jax.random.fold_in(key, i)", {"return (key)"}),
        ("k, l = jax.random.split(key)", {"l, k = jax.random.split(key)"}),
        ("return f(x, axis=0)", {"return f(x, axis=-1)", "return f(x, axis=1)"}),
        ("raise ValueError(a + b)", set()),
    ],
)
def test_a_line_has_these_mutations(line, expected):
    assert changed(line) == expected


def test_every_mutation_of_the_library_is_python_and_another_program():
    for path in (ROOT / "esenas_jax").rglob("*.py"):
        source = path.read_text()
        before = ast.dump(ast.parse(source))
        for mutation in mutations(source)[::7]:
            assert ast.dump(ast.parse(mutated(source, mutation))) != before
