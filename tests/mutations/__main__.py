"""How much of what can break in the library the suite notices.

    make mutations                          go on where the last call stopped; takes hours
    make mutations MUTATIONS=--new          draw again, for a library that has changed
    make mutations MUTATIONS=--survivors    run what survived again, for tests that are new

Draws forty lines from the lines of `esenas_jax/` that `make test` executes, with a fixed seed, and
one mutation of each. Each mutated library is run against the test files that mirror the mutated
file, then against the rest of `make test`, then against what only `make test-all` runs, up to the
first failure. A test that fails without the mutation, too, has caught nothing: the script stops.
What was found is in results.json, and as a table in README.md, after every mutation. A survivor
that no test could catch, because the mutated library promises the same, gets its reason by hand:
`"equivalent": "..."` in its row of results.json. It is not run again.
"""

import argparse
import ast
import collections
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tests.mutations.operators import Mutation, mutated, mutations

ROOT = pathlib.Path(__file__).parents[2]
LIBRARY = ROOT / "esenas_jax"
RESULTS = pathlib.Path(__file__).with_name("results.json")
PAGE = pathlib.Path(__file__).with_name("README.md")
NUMBER, SEED = 40, 0
# Seconds; a mutation may make a loop endless. Far more than a stage takes.
TIMEOUT = {"mirror": 1800, "make test": 1800, "make test-all": 4 * 3600}
# Files that are tested by files of other names, and folders whose files share a test file.
MIRRORS = {
    "_checks": ["errors", "strategies"],
    "answer": ["contract", "evaluate"],
    "population": ["rollout", "contract", "devices"],
    "pretraining": ["compression"],
    "search": ["contract"],
    "types": ["contract"],
    "autoregressive": ["distributions", "learning_controllers"],
    "factorised": ["distributions", "learning_controllers"],
    "distribution": ["distributions", "learning_controllers"],
    "cross_entropy": ["learning_controllers"],
    "expectation": ["variance"],
    "host": ["pyglove_controllers"],
    "policy_gradient": ["learning_controllers"],
    "pyglove_host": ["pyglove_controllers"],
    "boolean_mask": ["policies", "costs"],
    "operations": ["policies", "costs"],
    "choices": ["pyglove"],
    "compositions": ["pyglove"],
    "conditional": ["pyglove"],
    "flax_module": ["flax_policies"],
    "flax_networks": ["flax_policies", "supervised"],
    "quantized": ["compression"],
    "tabu": ["learners"],
}


def mirrors(file: str) -> list[str]:
    """Return the test files that mirror a file of the library."""
    path = pathlib.PurePath(file)
    names = [path.stem, *MIRRORS.get(path.stem, ()), path.parent.name]
    tests = dict.fromkeys(f"tests/{name}_test.py" for name in names)
    return [test for test in tests if (ROOT / test).exists()]


# --- what is drawn --------------------------------------------------------------------------------


def executed(copy: pathlib.Path) -> dict[str, list[int]]:
    """Return the lines of each file of the library that `make test` executes."""
    (copy / ".coveragerc").write_text(
        "[run]\nsource = esenas_jax\nparallel = true\npatch = subprocess\n"
    )
    coverage = [sys.executable, "-m", "coverage"]
    # A test may fail because of coverage alone, one of what a process imports say.
    subprocess.run([*coverage, "run", "-m", *tests()], cwd=copy, check=False)
    subprocess.run([*coverage, "combine"], cwd=copy, check=True)
    subprocess.run([*coverage, "json", "-o", "coverage.json"], cwd=copy, check=True)
    files = json.loads((copy / "coverage.json").read_text())["files"]
    return {file: content["executed_lines"] for file, content in files.items()}


def draw(lines: dict[str, list[int]]) -> list[dict]:
    """Return forty mutations, of forty different lines."""
    choices: dict[tuple[str, int], list[Mutation]] = {}
    for file in sorted(lines):
        source = (ROOT / file).read_text()
        first = statements(source)
        for mutation in mutations(source):
            if first[mutation.line] in lines[file]:
                choices.setdefault((file, mutation.line), []).append(mutation)
    rng, rows = random.Random(SEED), []
    for file, line in rng.sample(sorted(choices), NUMBER):
        kind = rng.choice(sorted({m.kind for m in choices[file, line]}))
        mutation = rng.choice([m for m in choices[file, line] if m.kind == kind])
        source = (ROOT / file).read_text()
        after = mutated(source, mutation)
        rows.append({
            "file": file, "line": line, "kind": kind,
            "start": mutation.start, "end": mutation.end, "text": mutation.after,
            "before": source.splitlines()[line - 1].strip(),
            "after": after.splitlines()[line - 1].strip(),
        })  # fmt: skip
    return rows


def statements(source: str) -> dict[int, int]:
    """Return for each line the first line of the statement it is of, which coverage counts."""
    first = {}
    for node in ast.walk(ast.parse(source)):  # a statement comes before those within it
        if isinstance(node, ast.stmt):
            first |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), node.lineno)
    return first


def digest() -> str:
    """Return what tells one state of the library from another."""
    files = sorted(LIBRARY.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


# --- what is run ----------------------------------------------------------------------------------


def tests(*arguments: str) -> list[str]:
    return ["pytest", "-n", "auto", "--maxprocesses=8", "--dist=loadfile",
            "--no-loadscope-reorder", "-q", *arguments]  # fmt: skip


def failure(copy: pathlib.Path, seconds: float, *arguments: str) -> str | None:
    """Run tests up to the first failure; return which it was, or None."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # a .pyc is as old as its second
    command = [sys.executable, "-m", *tests("-x", *arguments)]
    process = subprocess.Popen(
        command, cwd=copy, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what tests have started, too
        process.communicate()
        return f"no end within {seconds / 3600:g} hours"
    if process.returncode in (0, 5):  # 5: no test was selected
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+(?: [^-\s]\S*)*)", output, re.MULTILINE)
    if not found:
        sys.exit(f"error: pytest ended with status {process.returncode}: {output[-2000:]}")
    return found[1]


def stages(file: str) -> dict[str, list[str]]:
    """Return what a mutation of a file is run against: stages and pytest's arguments."""
    mine = mirrors(file)
    found = {"mirror": mine} if mine else {}
    return found | {
        "make test": [f"--ignore={path}" for path in mine],
        "make test-all": ["-m", "slow or system"],
    }


def judge(row: dict, stage: str, copy: pathlib.Path) -> None:
    """Run a stage on a mutation, and write into its row which test caught it."""
    file = copy / row["file"]
    source = file.read_text()
    mutation = Mutation(row["kind"], row["line"], row["start"], row["end"], row["text"])
    file.write_text(mutated(source, mutation))
    shutil.rmtree(copy / ".pytest_cache", ignore_errors=True)  # what failed before
    began = time.monotonic()
    try:
        caught = failure(copy, TIMEOUT[stage], *stages(row["file"])[stage])
    finally:
        file.write_text(source)
    alone = ("-m", "", "--last-failed", "--last-failed-no-failures=none")
    if caught and "::" not in caught:  # no end
        alone = stages(row["file"])[stage]
    if caught and failure(copy, TIMEOUT[stage], *alone):
        sys.exit(f"error: {caught} fails without a mutation, too.")
    row["seconds"] = row.get("seconds", 0) + round(time.monotonic() - began)
    row["survived"] = row.get("survived", []) + ([] if caught else [stage])
    if caught:
        row |= {"stage": stage, "test": caught}


def outcome(row: dict) -> str:
    """Return at which stage a mutation was caught, or what else became of it."""
    if "stage" in row:
        return row["stage"]
    if "equivalent" in row:
        return f"equivalent: {row['equivalent']}"
    return "survives" if "make test-all" in row.get("survived", []) else "not run to the end yet"


def page(content: dict) -> str:
    """Return the table of what was found."""
    rows = content["rows"]
    count = collections.Counter(row.get("stage") for row in rows)
    caught = count["mirror"] + count["make test"]
    late = sum("test" in row and row.get("survived_first", False) for row in rows)
    summary = (
        f"`make mutations`, seed {SEED}, library of commit {content['commit']}: of "
        f"{len(rows)} mutations {caught} are caught by `make test` ({count['mirror']} by the test "
        f"files that mirror the mutated file), {count['make test-all']} more by `make test-all`; "
        f"of these {late} survived at first, and got a test; "
        f"{sum('equivalent' in row for row in rows)} change nothing that the library promises, and "
        f"{sum(outcome(row) == 'survives' for row in rows)} survive."
    )
    lines = [
        "# Mutations of the library, and the tests that caught them",
        "",
        summary,
        "",
        "| Line | Kind | Before | After | Caught by |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        caught = row.get("test") or outcome(row)
        if "test" in row and row.get("survived_first"):
            caught = f"survived at first; now {caught}"
        code = [f"`{row[side]}`".replace("|", "\\|") for side in ("before", "after")]
        caught = " ".join(caught.split()).replace("|", "\\|")
        where = f"{row['file'].removeprefix('esenas_jax/')}:{row['line']}"
        lines.append(f"| {where} | {row['kind']} | {' | '.join(code)} | {caught} |")
    return "\n".join(lines) + "\n"


def write(content: dict) -> None:
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    PAGE.write_text(page(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--new", action="store_true", help="draw again")
    parser.add_argument("--survivors", action="store_true", help="run what survived again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv*", ".git", "runs"))
        if arguments.new or not RESULTS.exists():
            changed = subprocess.check_output(
                ["git", "status", "--porcelain", "esenas_jax"], cwd=ROOT, text=True
            )
            if changed:
                sys.exit("error: esenas_jax/ has changes that no commit holds: commit them first.")
            commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT)
            content = {
                "commit": commit.decode().strip(),
                "digest": digest(),
                "rows": draw(executed(copy)),
            }
            write(content)
        else:
            content = json.loads(RESULTS.read_text())
        if content["digest"] != digest():
            sys.exit("error: the library has changed since the lines were drawn: use --new.")
        for row in content["rows"] if arguments.survivors else ():
            if "make test" in row.pop("survived", []) and "equivalent" not in row:
                row["survived_first"] = True
        # All mutations through one stage before the next: the last stage takes longest.
        for stage in ("mirror", "make test", "make test-all"):
            for row in content["rows"]:
                if {"stage", "equivalent"} & set(row) or stage in row.get("survived", []):
                    continue  # caught, judged by hand, or run before
                if stage in stages(row["file"]):
                    judge(row, stage, copy)
                    print(f"{row['file']}:{row['line']}: {stage}: {row.get('test')}", flush=True)
                    write(content)


if __name__ == "__main__":
    main()
