"""A population of learners on the toy regression: eight ARS learners, and each rule there is.

Behind a colon stands a rule, or two of them: `:culling`, `:clones`, `:bred`, `:crossed`,
`:annealing`, `:tabu`, `:apart`, `:swarm`, `:annealing_culling`, or `:none`; `:NAME,smoke` for three
generations. Their numbers were not tuned.

    python -m experiments.train --config=experiments/configs/regression_learners.py:culling \
        --workdir=runs/regression_culling

Seconds on two cores.
"""

from ml_collections import ConfigDict

from experiments.build import section
from experiments.configs import regression_ars
from experiments.configs.base import twin, variant

RULES = {
    "none": (),
    "culling": (section("rule", "culling"),),
    "clones": (section("rule", "culling", newcomers="clones_of_survivors"),),
    "bred": (section("rule", "culling", newcomers="bred"),),
    "crossed": (section("rule", "culling", newcomers="crossed"),),
    "annealing": (section("rule", "annealing", temperature=0.1, cooling_rate=0.9),),
    "tabu": (section("rule", "tabu", radius=0.05),),
    "apart": (section("rule", "apart", radius=0.5),),
    "swarm": (section("rule", "swarm"),),
    "annealing_culling": (
        section("rule", "annealing", temperature=0.1, cooling_rate=0.9),
        section("rule", "culling"),
    ),
}


def get_config(name: str | None = None) -> ConfigDict:
    """Return the config of a rule, of culling by default.

    Raises:
        ValueError: if there is no such rule.
    """
    rule, short = twin("rule", name, RULES, "culling")
    config = regression_ars.get_config()
    config.learners = section("learners", "population", number=8, every=10)
    for place, chosen in zip(("rule", "second_rule"), RULES[rule], strict=False):
        config[place] = chosen
    if short:
        config.learners.every = 1
    return variant(config, short)
