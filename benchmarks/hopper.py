"""Hopper with each policy there is, at equal evaluations: what it comes to, and what it costs.

    python -m benchmarks.hopper [--quick] [--json=PATH]

The quickstart's 800 generations of 64 candidates, three seeds of each policy of
`experiments/configs/hopper_policies.py`. Every seed has a random mask of its own. The
magnitude-pruned policy has half of the generations dense and half pruned, each seed from its own
weights and observation moments; what to deploy is chosen twice, which takes 512 episodes more.
Returns are those of the final policies on starts that selected nothing; with three seeds, every one
is shown. Step size and noise are the quickstart's, which were chosen for 64 edges: no policy was
tuned.

Runs lie in runs/hopper and go on where they were; the table grows row by row. Several hours on two
cores. --quick has three generations of two policies, and decides nothing.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import new_panels
from benchmarks.measure import Row, command_line, machine, report
from experiments.configs.hopper_policies import POLICIES
from experiments.configs.quickstart import get_config

CONFIG = "experiments/configs/hopper_policies.py"
SEEDS = 3
QUICK = ("linear", "aggregate")
MEASURED = {"return": "return", "return_without_bonus": "return without bonus"}
COSTS = {"edges": "edges", "weights": "weights", "bits": "bits"}

Found = list[dict[str, Any]]  # the results of a policy's seeds


def train(folder: Path, config: str, *overrides: str) -> dict[str, Any]:
    """Run a config in a folder, or what is left of it, and return its `result.json`."""
    command = [sys.executable, "-m", "experiments.train", f"--config={config}"]
    done = subprocess.run(
        [*command, f"--workdir={folder}", *overrides], stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        sys.exit(f"error: {config} in {folder} ended with status {done.returncode}.")
    return json.loads((folder / "result.json").read_text())


def results(name: str, folder: Path, quick: bool) -> Found:
    """Return what the seeds of a policy come to."""
    if quick:
        return train(folder / name, f"{CONFIG}:{name},smoke", f"--config.seeds={SEEDS}")["runs"]
    if name == "random_mask":
        return [
            train(
                folder / f"{name}_{seed}",
                f"{CONFIG}:{name}",
                f"--config.seed={seed}",
                f"--config.policy.mask_seed={seed}",
            )
            for seed in range(SEEDS)
        ]
    if name != "magnitude_pruned":
        return train(folder / name, f"{CONFIG}:{name}", f"--config.seeds={SEEDS}")["runs"]
    generations: Any = get_config().generations
    half = f"--config.generations={generations // 2}"
    train(folder / "dense_half", f"{CONFIG}:dense", f"--config.seeds={SEEDS}", half)
    return [
        train(
            folder / f"{name}_{seed}",
            f"{CONFIG}:{name}",
            f"--config.seed={seed}",
            f"--config.policy.trained={folder / 'dense_half' / 'policies' / f'{seed}.npz'}",
            half,
        )
        for seed in range(SEEDS)
    ]


def rows_of(name: str, found: Found | None, seeds: int) -> Iterator[Row]:
    """Yield a row a seed and a cost; without values if it was not run."""
    shown = name.replace("_", " ")
    for seed in range(seeds):
        for key, called in MEASURED.items():
            value = None if found is None else float(found[seed][key]["mean"])
            yield Row(f"{called}, seed {seed}: {shown}", value, unit="return")
    for key, called in COSTS.items():
        # Of all seeds: an architecture's cost can depend on what was found.
        value = None if found is None else float(np.mean([run[key] for run in found]))
        yield Row(f"{called}: {shown}", value, unit=called)


def draw(all_found: dict[str, Found], path: Path, title: str) -> None:
    """Draw every seed's return by name, beside the bits of each, or where these are the same the
    return with its bonus.
    """
    bits = [float(np.mean([run["bits"] for run in found])) / 1000 for found in all_found.values()]
    (left, right), finish = new_panels(
        2,
        title,
        f"Every seed's final policy on starts that selected nothing · {machine()}",
        height=1.8 + 0.3 * len(all_found),
    )
    names = list(all_found)

    def show(axes: Any, key: str) -> None:
        for place, found in enumerate(all_found.values()):
            values = [run[key]["mean"] for run in found]
            axes.plot(values, [place] * len(values), "o", color="#0072b2", alpha=0.8)

    show(left, "return_without_bonus")
    if len(set(bits)) > 1:
        right.plot(bits, range(len(bits)), "o", color="#007a5a")
        beside = "thousand bits of weights and structure"
    else:
        show(right, "return")
        beside = "return"
    for axes, label in ((left, "return without bonus"), (right, beside)):
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
    right.set_yticklabels([])
    finish([], path)


def study(
    benchmark: str,
    title: str,
    names: Sequence[str],
    results: Callable[[str], Found],
    seeds: int,
    path: Path | None,
) -> None:
    """Run what was not run yet, print, write after every name.

    Args:
        benchmark: what it is called.
        title: of the figure, drawn when all are there.
        names: of what is compared; those that `results` has nothing of are not measured.
        results: name -> what its seeds come to, after however long it takes; [] for nothing.
        seeds: of each.
        path: the JSON to write.
    """
    all_found: dict[str, Found] = {}
    rows: list[Row] = []
    for name in names:
        if not (found := results(name)):
            continue
        all_found[name] = found
        rows = [row for other in names for row in rows_of(other, all_found.get(other), seeds)]
        print(f"{name}: {[round(run['return']['mean']) for run in found]}", flush=True)
        if path:
            with contextlib.redirect_stdout(None):
                report(benchmark, rows, path)
    report(benchmark, rows, path, lambda png: draw(all_found, png, title))


def main() -> None:
    """Compare the policies."""
    arguments = command_line(__doc__)
    folder = Path("runs") / ("hopper_quick" if arguments.quick else "hopper")

    def measured(name: str) -> Found:
        if arguments.quick and name not in QUICK:
            return []
        return results(name, folder, arguments.quick)

    title = "Hopper with each policy, at equal evaluations"
    study("hopper", title, list(POLICIES), measured, SEEDS, arguments.json)


if __name__ == "__main__":
    main()
