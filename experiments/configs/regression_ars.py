"""ARS on the toy regression: 32 directions, 2 elites, noise 0.1, step 0.1, batch 2,048.

    python -m experiments.train --config=experiments/configs/regression_ars.py --workdir=DIR

A linear model of degree-4 polynomial features, smooth L1, target weights drawn at scale 5.
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs.base import base, variant


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config; name "smoke" is a short run."""
    config = base()
    config.generations = 500
    config.task = section("task", "regression")
    config.policy = section(
        "policy", "dense", hidden=(), output_activation="identity", weight_init="zeros"
    )
    config.strategy = section(
        "strategy",
        "ars",
        num_directions=32,
        num_elites=2,
        num_exact=1,
        noise_std=0.1,
        step_size=0.1,
    )
    config.controller = section("controller", "constant")
    config.search = section("search", starts="generation")
    return variant(config, name)
