"""Handwritten digits read by evolution strategies alone: FILE:NAME, or FILE:NAME,smoke.

    python -m experiments.train --config=experiments/configs/digits.py:cnn --workdir=DIR

The 1,797 images of 8x8 pixels that come with scikit-learn (the extra `digits`): 70 % to train on,
10 % to choose the answer with, 20 % to report it. The names are those of `NETWORKS`; without one it
is "cnn", a convolutional network of 6,218 weights, which reads 95 % and more of the test split, on
every one of five splits, after about a minute on two quiet cores. "edges", "mask" and "partition"
search its architecture, too. All candidates of a generation see the same mini-batch.
--config.policy.compute_dtype=bfloat16 computes in half the bits, on CPUs in four times the time.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs.base import base, twin, variant

# Of each: the policy and its arguments, and whether there is an architecture to search.
NETWORKS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "dense": ("flax_dense", {"hidden": (64,)}, False),
    "cnn": ("flax_convolutional", {}, False),
    "edges": ("flax_convolutional", {"search": "edges", "num_edges": 1000}, True),
    "mask": ("flax_convolutional", {"search": "mask"}, True),
    "partition": ("flax_convolutional", {"search": "partition", "num_partitions": 32}, True),
}


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config of a network; name "NAME,smoke" (or "smoke") is a short run.

    Raises:
        ValueError: if there is no such network.
    """
    network, short = twin("network", name, NETWORKS, "cnn")
    kind, arguments, searched = NETWORKS[network]
    config = base()
    config.generations = 2000
    config.task = section("task", "digits")
    config.policy = section("policy", kind, **arguments)
    # Noise and step size are the best of six on the validation split of split 100.
    config.strategy = section(
        "strategy",
        "es",
        num_directions=64,
        num_exact=1,
        noise_std=0.1,
        step_size=0.01,
        shaping="centered_ranks",
        optimizer="adam",
    )
    config.controller = section("controller", "regularized_evolution" if searched else "constant")
    config.search = section("search", starts="generation")
    # What so few networks compute fits into a CPU's cache; 32 at a time take three times as long.
    config.population = section("population", lanes=8)
    config.virtual_shards = 2
    return variant(config, short)
