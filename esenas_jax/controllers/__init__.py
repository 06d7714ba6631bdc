"""Controllers: the combinatorial half.

Reading order: controller, constant, random, evolution, host, pyglove_host (which is not imported
here: PyGlove takes its time).
"""

from esenas_jax.controllers.constant import constant
from esenas_jax.controllers.controller import Controller, Host
from esenas_jax.controllers.evolution import regularized_evolution
from esenas_jax.controllers.host import pyglove
from esenas_jax.controllers.random import random

__all__ = ["Controller", "Host", "constant", "pyglove", "random", "regularized_evolution"]
