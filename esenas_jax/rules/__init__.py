"""Rules of a population of learners: culling, annealing, tabu, swarm, and any of them together.

Reading order: rule, culling, annealing, tabu, swarm.
"""

from esenas_jax.rules.annealing import annealing, metropolis
from esenas_jax.rules.culling import (
    bred,
    clones_of_survivors,
    clones_of_the_best,
    crossed,
    culling,
)
from esenas_jax.rules.rule import Moved, Rule, compose
from esenas_jax.rules.swarm import swarm
from esenas_jax.rules.tabu import apart, tabu

__all__ = [
    "Moved",
    "Rule",
    "annealing",
    "apart",
    "bred",
    "clones_of_survivors",
    "clones_of_the_best",
    "compose",
    "crossed",
    "culling",
    "metropolis",
    "swarm",
    "tabu",
]
