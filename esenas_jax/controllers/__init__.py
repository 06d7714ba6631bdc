"""Controllers: the combinatorial half.

Reading order: controller, constant, latest, random, hill_climbing, evolution, nsga2; distribution,
factorised, autoregressive, policy_gradient, cross_entropy; expectation; host, pyglove_host (which
is not imported here: PyGlove takes its time).
"""

from esenas_jax.controllers.autoregressive import autoregressive
from esenas_jax.controllers.constant import constant
from esenas_jax.controllers.controller import Controller, Host
from esenas_jax.controllers.cross_entropy import cross_entropy
from esenas_jax.controllers.distribution import Distribution, Parameterisation, as_genotype
from esenas_jax.controllers.evolution import regularized_evolution
from esenas_jax.controllers.expectation import additive_expectation
from esenas_jax.controllers.factorised import factorised
from esenas_jax.controllers.hill_climbing import hill_climbing
from esenas_jax.controllers.host import pyglove
from esenas_jax.controllers.nsga2 import nsga2
from esenas_jax.controllers.policy_gradient import ppo, reinforce
from esenas_jax.controllers.random import random

__all__ = [
    "Controller",
    "Distribution",
    "Host",
    "Parameterisation",
    "additive_expectation",
    "as_genotype",
    "autoregressive",
    "constant",
    "cross_entropy",
    "factorised",
    "hill_climbing",
    "nsga2",
    "ppo",
    "pyglove",
    "random",
    "regularized_evolution",
    "reinforce",
]
