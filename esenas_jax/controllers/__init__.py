"""Controllers: the combinatorial half. Reading order: controller, constant, random, evolution."""

from esenas_jax.controllers.constant import constant
from esenas_jax.controllers.controller import Controller
from esenas_jax.controllers.evolution import regularized_evolution
from esenas_jax.controllers.random import random

__all__ = ["Controller", "constant", "random", "regularized_evolution"]
