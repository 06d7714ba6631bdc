"""ARS on the toy regression: 32 directions, 2 elites, noise 0.1, step 0.1, batch 2,048.

    python -m experiments.train --config=experiments/configs/regression_ars.py:decay --workdir=DIR

A linear model of degree-4 polynomial features, smooth L1, target weights drawn at scale 5, zero
weights to begin with. Every direction starts from the same base point and sees the same batch;
`--config.devices=N --config.virtual_shards=N` shares the directions out to N devices.

Without a name the step is constant. ARS divides by the spread of its scores, so that its steps do
not get shorter as the loss gets smaller: from generation 100 on it goes up and down between 0.02
and 0.3, and the answer, the best weights on the way, has a loss of 0.003 to 0.009 (five seeds).
":decay" takes 0.5 % off the step size with every update: under 0.01 after 200 generations, and
under 0.00001 after 500. ":smoke" and ":decay,smoke" are short runs.
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs.base import base, twin, variant

OPTIMIZERS = {"constant": "sgd", "decay": "decaying"}


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config; name "decay" makes the step shorter, "smoke" the run.

    Raises:
        ValueError: if there is no such variant.
    """
    step, short = twin("step", name, OPTIMIZERS, "constant")
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
        optimizer=OPTIMIZERS[step],
    )
    config.controller = section("controller", "constant")
    config.search = section("search", starts="generation")
    config.virtual_shards = 2
    return variant(config, short)
