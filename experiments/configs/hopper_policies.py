"""The quickstart with each policy there is, at equal evaluations: FILE:NAME, or FILE:NAME,smoke.

python -m experiments.train --config=experiments/configs/hopper_policies.py:residual --workdir=DIR

The names are those of `POLICIES`; without one it is the quickstart itself, "aggregate". Networks
have layers of 11, 32 and 3 units, the linear one of 11 and 3; where a number of edges is kept, it
is 64. "magnitude_pruned" goes on from a finished run of "dense", and takes besides its name
--config.policy.trained=runs/dense/policy.npz.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs import quickstart
from experiments.configs.base import twin, variant

# Of each: the policy and its arguments, and whether there is an architecture to search.
POLICIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "linear": ("dense", {"hidden": (), "weight_init": "uniform"}, False),
    "dense": ("dense", {"hidden": (32,), "weight_init": "uniform"}, False),
    "aggregate": ("edge_pruned", {"hidden": (32,), "num_edges": 64}, True),
    "independent": ("independent_edges", {"hidden": (32,), "num_edges": (48, 16)}, True),
    "residual": ("residual_edges", {"hidden": (32,), "num_edges": 64}, True),
    "op_edges": ("op_edges", {"hidden": (32,), "num_edges": 64}, True),
    "boolean_mask": ("boolean_mask", {"hidden": (32,)}, True),
    "partition": ("partitioned", {"hidden": (32,), "num_partitions": 17}, True),
    "partition_per_layer": (
        "partitioned",
        {"hidden": (32,), "num_partitions": 17, "per_layer": True},
        True,
    ),
    "toeplitz": ("toeplitz", {"hidden": (32,)}, False),
    "circulant": ("circulant", {"hidden": (32,)}, False),
    "random_mask": ("random_mask", {"hidden": (32,), "num_edges": 64}, False),
    "magnitude_pruned": ("magnitude_pruned", {"hidden": (32,), "num_edges": 64}, False),
}


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config of a policy; name "NAME,smoke" (or "smoke") is a short run.

    Raises:
        ValueError: if there is no such policy.
    """
    policy, short = twin("policy", name, POLICIES, "aggregate")
    kind, arguments, searched = POLICIES[policy]
    config = quickstart.get_config()
    config.policy = section("policy", kind, **arguments)
    config.controller = section("controller", "regularized_evolution" if searched else "constant")
    return variant(config, short)
