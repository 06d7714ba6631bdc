"""The committed results as a page that can be read: README.md beside them.

    python -m benchmarks.tables [FOLDER]

The page is made of the JSON alone and of what each benchmark says of itself; a test holds it
against them.
"""

import ast
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, cell, judged

HERE = Path(__file__).parent
HEAD = """# Measured on {device}

Each section has the command that measured it, the commit it ran at, and all of its rows, also those
that are unfavourable or were not measured. Made by `python -m benchmarks.tables`.

Brackets hold 95 % bootstrap intervals. A target *holds* when the better end of the interval meets
it, and is *undecided* when the interval is wider than a tenth of the figure, unless one three times
as wide would not reach the target: doubt of a figure that is far from its target is none about the
target. Where *all of it* is to meet the target, as of differences that may be 0, of which no share
is wide, it holds when all of the interval does, does not hold when none of it does, and is
undecided between.
"""


def rows_of(content: dict[str, Any]) -> list[Row]:
    """Return the rows of a JSON that `measure.report` wrote."""
    rows = []
    for fields in content["rows"]:
        interval = fields["interval"]
        known = {name: value for name, value in fields.items() if name != "holds"}
        rows.append(Row(**{**known, "interval": None if interval is None else tuple(interval)}))
    return rows


def line(row: Row) -> str:
    """Return a row of a Markdown table."""
    return f"| {row.name} | {cell(row)} | {judged(row)} |"


def table(rows: Sequence[Row]) -> str:
    """Return the Markdown table of rows; with a column each where all names are "COLUMN: ROW"."""
    places = {tuple(row.name.split(": ")): row for row in rows}
    columns = list(dict.fromkeys(place[0] for place in places))
    names = list(dict.fromkeys(place[-1] for place in places))
    grid = {(column, name) for column in columns for name in names}
    if len(places) < len(rows) or set(places) != grid:
        return "\n".join(["| | Measured | Target |", "|---|---|---|", *map(line, rows)])
    cells = {place: cell(dataclasses.replace(row, unit="")) for place, row in places.items()}
    heads = [_head(column, {places[column, name].unit for name in names}) for column in columns]
    return "\n".join(
        [
            f"| | {' | '.join(heads)} |",
            f"|---|{'---|' * len(columns)}",
            *(
                f"| {name} | {' | '.join(cells[column, name] for column in columns)} |"
                for name in names
            ),
        ]
    )


def _head(column: str, units: set[str]) -> str:
    """Return a column's name, and what it is counted in where the name does not say so."""
    told = ", ".join(sorted(unit for unit in units if unit not in column))
    return f"{column} ({told})" if told else column


def section(path: Path) -> str:
    """Return the part of a page that a JSON makes."""
    content = json.loads(path.read_text())
    name, versions = content["benchmark"], content["versions"]
    commit = (content["commit"] or "unknown")[:7]
    module = next(HERE.rglob(f"{name}.py"), None) or HERE / name / "__main__.py"
    title, *about = (ast.get_docstring(ast.parse(module.read_text())) or "").split("\n\n")
    parts = [
        f"## {name}",
        title,
        *("```\n" + part.strip() + "\n```" if part.startswith("    ") else part for part in about),
        f"At commit {commit}, JAX {versions['jax']}, Python {versions['python']}"
        + (f", on {content['processor']}." if "processor" in content else ".")
        + (f" {content['note']}" if "note" in content else ""),
    ]
    if path.with_suffix(".png").exists():
        parts.append(f"![{title}]({path.with_suffix('.png').name})")
    return "\n\n".join([*parts, table(rows_of(content))])


def page(folder: Path) -> str:
    """Return the page of a folder of results."""
    paths = sorted(folder.glob("*.json"))
    device = json.loads(paths[0].read_text())["device"]
    contents = "\n".join(f"- [{path.stem}](#{path.stem})" for path in paths)
    return "\n\n".join([HEAD.format(device=device).strip(), contents, *map(section, paths)]) + "\n"


def main() -> None:
    """Write the page."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results" / "cpu"
    (folder / "README.md").write_text(page(folder))


if __name__ == "__main__":
    main()
