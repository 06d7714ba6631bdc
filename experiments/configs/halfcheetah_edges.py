"""Edge pruning on Brax HalfCheetah: 64 of the 736 edges of a 17-32-6 network.

python -m experiments.train --config=experiments/configs/halfcheetah_edges.py --workdir=DIR
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs import halfcheetah_partition


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config; name "smoke" is a short run."""
    config = halfcheetah_partition.get_config(name)
    config.policy = section("policy", "edge_pruned", hidden=(32,), num_edges=64)
    config.search = section("search", starts="pair")
    return config
