"""The same work by this package and by its peers, in one process, in turn.

    python -m benchmarks.peers [--quick] [--json=PATH]

Brax's ARS and ES (spring backend, horizon 1,000 unless said): the first generation from scratch,
and whole training runs of equal live steps with the return that each side reaches. evosax's Open_ES
and ARS on a sphere of 10,000 weights with 1,024 candidates: generations, and the loss after equal
ones.
PyGlove's evolution: proposals. Step size, noise, candidates, shaping and optimizer are the same on
both sides. Ratios of time say how many times longer the peer takes. Needs the extra `bench`.

Forty minutes on two quiet cores. --quick has hopper with 128 candidates instead of the Brax
rows, and decides nothing.
"""

import importlib.util
import sys

from benchmarks.figures import intervals
from benchmarks.measure import PAIRS, Row, command_line, machine, report
from benchmarks.peers import brax, evosax, pyglove
from experiments.command_line import configure_jax
from experiments.cores import make_host_devices

# method, world, candidates, horizon, target. Halfcheetah never ends early: its horizon only sets
# how long it takes to measure.
FIRST_GENERATIONS = (
    (brax.ars(), "hopper", 1024, 1000, 2.5),
    (brax.ars(), "walker2d", 1024, 1000, 1.8),
    (brax.ars(), "halfcheetah", 1024, 250, 0.97),
    (brax.es(), "hopper", 128, 1000, None),
)
# method, world, candidates, live steps, seeds
LEARNING = (
    (brax.ars(), "hopper", 128, 1_000_000, 3),
    (brax.es(), "hopper", 64, 200_000, 3),
)


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    if importlib.util.find_spec("evosax") is None:  # Brax and PyGlove are dependencies
        sys.exit("error: evosax is not installed; pip install '.[bench]' installs the peers.")
    make_host_devices()
    configure_jax()
    quick = arguments.quick
    pairs = 3 if quick else PAIRS
    rows = pyglove.rows(pairs)
    rows += evosax.rows(pairs, 20 if quick else 100, 2 if quick else 3, full_generations=100)
    if quick:
        rows.append(brax.first_generation(brax.ars(), "hopper", 128, 1000, None, pairs))
    for method, world, candidates, horizon, target in FIRST_GENERATIONS:
        row = (
            brax.first_row(method, world, candidates, horizon, target)
            if quick
            else brax.first_generation(method, world, candidates, horizon, target, pairs)
        )
        rows.append(row)
    for method, world, candidates, budget, seeds in LEARNING:
        if quick:
            for_time, for_return = brax.learning_names(method, world, candidates, budget)
            rows.append(Row(for_time, None, None, "x"))
            rows.append(Row(for_return, None, None, brax.RETURNS))
        else:
            rows += brax.learning(method, world, candidates, budget, seeds)
    if quick:
        # A few pairs decide nothing: the figures are shown, the targets are not judged.
        for row in rows:
            row.interval = None
    report(
        "peers",
        rows,
        arguments.json,
        lambda path: intervals(
            rows,
            path,
            "The same work by peers and by this package",
            f"Ratios of time: above 1 the peer takes longer · {machine()}",
        ),
    )


if __name__ == "__main__":
    main()
