"""Black-box functions of the weights alone, and the search that maximises one."""

import math
from collections.abc import Callable

import jax.numpy as jnp

from esenas_jax import Population, Search, Starts, controllers, es_enas, policies, tasks
from esenas_jax.strategies import Strategy
from esenas_jax.types import Array, Evaluation, Key, PyTree

Loss = Callable[[Array], Array]  # float32 [P] -> float32 [], 0 at its minimum


def sphere(x: Array) -> Array:
    """Return |x|^2."""
    return jnp.sum(x**2)


def rosenbrock(x: Array) -> Array:
    """Return Rosenbrock's valley, sum_i 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2, 0 at all ones."""
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rastrigin(x: Array) -> Array:
    """Return Rastrigin's egg box, sum_i 10 + x_i^2 - 10 cos(2 pi x_i), 0 at the origin."""
    return jnp.sum(10.0 + x**2 - 10.0 * jnp.cos(2 * math.pi * x))


def ackley(x: Array) -> Array:
    """Return Ackley's funnel of pits, 0 at the origin.

    -20 exp(-0.2 sqrt(mean x_i^2)) - exp(mean cos(2 pi x_i)) + 20 + e.
    """
    funnel = -20.0 * jnp.exp(-0.2 * jnp.sqrt(jnp.mean(x**2)))
    return funnel - jnp.exp(jnp.mean(jnp.cos(2 * math.pi * x))) + 20.0 + math.e


def search_over_weights(
    loss: Loss, start: Array, strategy: Strategy, population: Population
) -> Search:
    """Return the search for the weights [P] of the least loss: fitness is minus the loss.

    Args:
        loss: of the weights.
        start: float32 [P], where every run begins.
        strategy: how.
        population: how a generation is carried out.
    """
    plain = policies.dense(start.size, (), 1)  # a vector of weights; it is never applied
    policy = plain._replace(bind=lambda params, genotype: params, init=lambda key: start)

    def evaluate(key: Key, network: PyTree, apply: object) -> Evaluation:
        return tasks.single_score(-loss(network))

    return es_enas(
        policy,
        tasks.SingleShot(start.size, 1, evaluate),
        strategy,
        controllers.constant(plain.space),
        population=population,
        starts=Starts.FIXED,
    )
