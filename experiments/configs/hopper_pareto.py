"""Return against edges on Brax Hopper: the quickstart with a front instead of a number of edges.

    python -m experiments.train --config=experiments/configs/hopper_pareto.py --workdir=DIR

NSGA-II (Deb et al. 2002) over (return, -edges): each of the 448 edges of an 11-32-3 network is
there or not. The strategy sees the return less ARS's shift of 1 a step, as in the quickstart. A run
ends with every architecture of the front, measured under the final weights: a table, front.png, and
a policy of each in front/.
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs import quickstart
from experiments.configs.base import variant


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config; name "smoke" is a short run."""
    config = quickstart.get_config()
    config.policy = section("policy", "boolean_mask", hidden=(32,))
    config.controller = section("controller", "nsga2")
    config.objective = section("objective", "pareto", cost="edges", shift_per_step=1.0)
    return variant(config, name)
