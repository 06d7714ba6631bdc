"""Strategies: the continuous half.

Reading order: strategy, noise, shaping, finite_differences, es, ars.
"""

from esenas_jax.strategies.ars import ars
from esenas_jax.strategies.es import es
from esenas_jax.strategies.finite_differences import Unused, best_half, largest_difference
from esenas_jax.strategies.noise import Noise, gaussian, hadamard, rademacher, shared_table
from esenas_jax.strategies.shaping import centered_ranks, raw, z_score
from esenas_jax.strategies.strategy import Strategy

__all__ = [
    "Noise",
    "Strategy",
    "Unused",
    "ars",
    "best_half",
    "centered_ranks",
    "es",
    "gaussian",
    "hadamard",
    "largest_difference",
    "rademacher",
    "raw",
    "shared_table",
    "z_score",
]
