"""The released ES-ENAS defaults on Brax HalfCheetah: a linear policy of 17 shared weights.

    python -m experiments.train --config=experiments/configs/halfcheetah_partition.py --workdir=DIR

The settings of google-research `es_enas/config.py`: 150 antithetic directions and 150 exact
evaluations (450 episodes a generation), noise 0.1, step 0.01, horizon 1000, deterministic starts.
Two differ: the released default controller (PPO) was never published, so this is its regularized
evolution; and the environment is Brax's HalfCheetah, the release's was MuJoCo's.
450,000 environment steps a generation: minutes each on two cores, meant for an accelerator.
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs.base import base, variant


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config; name "smoke" is a short run."""
    config = base()
    config.generations = 1000
    config.task = section(
        "task", "environment", environment="halfcheetah", backend="spring", normalizer="es"
    )
    config.policy = section("policy", "partitioned", hidden=(), num_partitions=17)
    config.strategy = section("strategy", "es")
    config.controller = section("controller", "regularized_evolution")
    config.search = section("search", starts="fixed")
    config.virtual_shards = 2
    if name == "smoke":
        # The full size is minutes a generation on a CPU.
        config.task.horizon = 100
        config.strategy.update({"num_directions": 8, "num_exact": 4})
    return variant(config, name)
