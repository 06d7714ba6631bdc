"""A run of seconds on Pendulum, by policy, strategy and normalizer: `FILE:edges,es,none`.

`FILE:regression` has no episodes and nothing to search, and compiles in a second;
`FILE:regression,edges` has architectures.
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs.base import base

POLICIES = {
    "edges": ("edge_pruned", {"hidden": (8,), "num_edges": 12}),
    "partition": ("partitioned", {"hidden": (8,), "num_partitions": 5}),
}


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config of a policy (edges, partition), a strategy (es, ars) and a normaliser."""
    config = base()
    config.generations = 150
    config.answer_episodes = 16
    config.checkpoint_every = 3
    if name in ("regression", "regression,edges"):
        return _regression(config, searched=name.endswith("edges"))
    policy, strategy, normalizer = (name or "edges,es,es").split(",")
    config.task = section(
        "task", "environment", environment="pendulum", horizon=100, normalizer=normalizer
    )
    kind, arguments = POLICIES[policy]
    config.policy = section("policy", kind, **arguments)
    config.strategy = section("strategy", strategy, num_directions=24, num_exact=8)
    config.controller = section("controller", "regularized_evolution", population_size=30)
    config.population = section("population", lanes=16)
    return config


def _regression(config: ConfigDict, searched: bool) -> ConfigDict:
    config.task = section("task", "regression", batch_size=8)
    config.strategy = section("strategy", "es", num_directions=24, num_exact=8)
    if searched:
        config.policy = section("policy", "edge_pruned", hidden=(3,), num_edges=6)
        config.controller = section("controller", "regularized_evolution", population_size=30)
    else:
        config.policy = section("policy", "dense", hidden=())
        config.controller = section("controller", "constant")
    return config
