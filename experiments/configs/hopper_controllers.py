"""The quickstart with several controllers, at equal evaluations: FILE:NAME, or FILE:NAME,smoke.

python -m experiments.train --config=experiments/configs/hopper_controllers.py:ppo --workdir=DIR

The names are those of `CONTROLLERS`, each with its defaults; without one it is the quickstart
itself, "evolution". "constant" keeps one random architecture a seed.
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs import quickstart
from experiments.configs.base import twin, variant

CONTROLLERS = {
    "constant": "constant",
    "random": "random",
    "evolution": "regularized_evolution",
    "ppo": "ppo",
    "cross_entropy": "cross_entropy",
}


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config of a controller; name "NAME,smoke" (or "smoke") is a short run.

    Raises:
        ValueError: if there is no such controller.
    """
    controller, short = twin("controller", name, CONTROLLERS, "evolution")
    config = quickstart.get_config()
    config.controller = section("controller", CONTROLLERS[controller])
    return variant(config, short)
