"""The dense twin of the quickstart: all 448 edges, the same evaluations, nothing to search.

python -m experiments.train --config=experiments/configs/quickstart_dense.py --workdir=DIR
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs import quickstart
from experiments.configs.base import variant


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config; name "smoke" is a short run."""
    config = quickstart.get_config()
    config.policy = section("policy", "dense", hidden=(32,), weight_init="uniform")
    config.controller = section("controller", "constant")
    return variant(config, name)
