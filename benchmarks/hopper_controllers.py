"""Hopper with each of several controllers, at equal evaluations: what they come to.

    python -m benchmarks.hopper_controllers [--quick] [--json=PATH]

The quickstart's 800 generations of 64 candidates, five seeds in one program of each controller of
`experiments/configs/hopper_controllers.py`, with its defaults. Returns are those of the final
policies on starts that selected nothing; with five seeds, every one is shown.

Runs lie in runs/hopper_controllers and go on where they were; the table grows row by row. Hours on
two cores. --quick has three generations of two controllers, and decides nothing.
"""

from pathlib import Path

from benchmarks.hopper import Found, study, train
from benchmarks.measure import command_line
from experiments.configs.hopper_controllers import CONTROLLERS

CONFIG = "experiments/configs/hopper_controllers.py"
SEEDS = 5
QUICK = ("constant", "cross_entropy")


def main() -> None:
    """Compare the controllers."""
    arguments = command_line(__doc__)
    quick = arguments.quick
    folder = Path("runs") / ("hopper_controllers_quick" if quick else "hopper_controllers")

    def measured(name: str) -> Found:
        if quick and name not in QUICK:
            return []
        config = f"{CONFIG}:{name}{',smoke' * quick}"
        return train(folder / name, config, f"--config.seeds={SEEDS}")["runs"]

    title = "Hopper with each controller, at equal evaluations"
    study("hopper_controllers", title, list(CONTROLLERS), measured, SEEDS, arguments.json)


if __name__ == "__main__":
    main()
