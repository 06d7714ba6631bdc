"""Edge pruning on Pendulum: 24 of the 64 edges of a 3-16-1 network; half a minute on two cores.

On one device and uncut, five of seeds 0 to 7 held the pendulum up, at -177 to -220; three did not,
at -803 to -1019. `--config.seeds=8` trains all of them in one program, in a minute and a half.

python -m experiments.train --config=experiments/configs/pendulum_edges.py --workdir=DIR
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs.base import base, variant


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config; name "smoke" is a short run."""
    config = base()
    config.generations = 300
    config.task = section(
        "task", "environment", environment="pendulum", horizon=200, episodes=4, normalizer="es"
    )
    config.policy = section("policy", "edge_pruned", hidden=(16,), num_edges=24)
    config.strategy = section(
        "strategy", "es", num_directions=32, num_exact=16, noise_std=0.5, step_size=0.8
    )
    config.controller = section("controller", "regularized_evolution")
    config.search = section("search", starts="generation")
    config.virtual_shards = 2
    return variant(config, name)
