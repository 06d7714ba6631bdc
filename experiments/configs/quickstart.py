"""ES-ENAS on Brax Hopper: a sparse policy, architecture and weights found together.

    python -m experiments.train --config=experiments/configs/quickstart.py --workdir=runs/quickstart

64 of the 448 edges of an 11-32-3 network. ES-ENAS (arXiv 2101.07415) with regularized evolution;
ARS's shift of 1 a step takes away the reward for merely standing.
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs.base import base, variant


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config; name "smoke" is a short run."""
    config = base()
    config.generations = 800
    config.task = section(
        "task", "environment", environment="hopper", backend="spring", normalizer="es"
    )
    config.policy = section("policy", "edge_pruned", hidden=(32,), num_edges=64)
    config.strategy = section(
        "strategy", "es", num_directions=24, num_exact=16, noise_std=0.1, step_size=0.02
    )
    config.controller = section("controller", "regularized_evolution")
    config.objective = section("objective", shift_per_step=1.0)
    config.search = section("search", starts="pair")
    config.virtual_shards = 2
    return variant(config, name)
