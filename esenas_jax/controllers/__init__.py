"""Controllers: the combinatorial half.

Reading order: controller, constant, random, hill_climbing, evolution, nsga2.
"""

from esenas_jax.controllers.constant import constant
from esenas_jax.controllers.controller import Controller
from esenas_jax.controllers.evolution import regularized_evolution
from esenas_jax.controllers.hill_climbing import hill_climbing
from esenas_jax.controllers.nsga2 import nsga2
from esenas_jax.controllers.random import random

__all__ = [
    "Controller",
    "constant",
    "hill_climbing",
    "nsga2",
    "random",
    "regularized_evolution",
]
