"""Augmented random search."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from esenas_jax import _checks
from esenas_jax.strategies.finite_differences import (
    Optimizer,
    Outcome,
    Unused,
    best_half,
    finite_differences,
    kept,
)
from esenas_jax.strategies.noise import Noise, gaussian
from esenas_jax.strategies.shaping import reciprocal, spread
from esenas_jax.strategies.strategy import Strategy
from esenas_jax.types import Array


def ars(
    num_directions: int = 8,
    num_exact: int = 8,
    noise_std: float = 0.03,
    step_size: float = 0.02,
    *,
    num_elites: int | None = None,
    optimizer: Optimizer = optax.sgd,
    noise: Noise | None = None,
    unused: Unused = Unused.KEPT,
    multiplicative: bool = False,
) -> Strategy:
    """Return augmented random search (arXiv 1803.07055, Algorithm 2).

    The parameters move by step_size / (b sigma_R) sum_d (r_d^+ - r_d^-) delta_d over the b
    directions that are largest in max(r^+, r^-); sigma_R is the standard deviation (divisor n) of
    the 2b returns kept. When they are all equal nothing moves.

    V1 and V2 keep all directions, V1-t and V2-t `num_elites` of them; V2 is V1 on a task with
    `tasks.ars_normalizer`. The survival bonus is taken from what is learnt from by
    `objectives.shifted_return`, so that the controller learns from the same scores.

    Args:
        num_directions: N of the paper, at least 1.
        num_exact: X, candidates at the unperturbed parameters, for the learning curve; the paper
            evaluates apart from training.
        noise_std: nu, positive.
        step_size: alpha, positive.
        num_elites: b, how many directions are kept, in [1, num_directions]; all by default.
        optimizer: step size -> optax optimiser; plain ascent by default.
        noise: source of perturbations, `gaussian()` by default.
        unused: what becomes of perturbations of parameters that an architecture does not use.
        multiplicative: perturbations are |parameter| times what is drawn: with plain
            ascent a parameter moves in proportion to its size, and stays 0 if it is. For a network
            that is trained already. Results that `tell` hears of late must not be of this kind: it
            does not know which parameters were perturbed.

    Raises:
        TypeError, ValueError: if a number is outside its range.
    """
    elites = num_directions if num_elites is None else num_elites
    _checks.integer("num_directions", num_directions, 1)
    _checks.integer("num_elites", elites, 1, num_directions)

    def direction_weights(outcome: Outcome) -> tuple[Array, Callable[[Array], Array]]:
        keep = kept(best_half(outcome), outcome.valid, elites)
        count = jnp.maximum(jnp.sum(keep, dtype=jnp.float32), 1.0)
        assert outcome.minus is not None
        returns = jnp.stack([outcome.plus, outcome.minus])
        deviation = returns - jnp.sum(jnp.where(keep, returns, 0.0)) / (2.0 * count)
        std = jnp.sqrt(jnp.sum(jnp.where(keep, deviation**2, 0.0)) / (2.0 * count))
        moves = keep & (spread(returns, keep) > 0)
        scale = reciprocal(count * jnp.where(std > 0, std, 1.0))

        def weighed(difference: Array) -> Array:
            return jnp.where(moves, difference * scale, 0.0)

        return returns, weighed

    return finite_differences(
        direction_weights,
        num_directions=num_directions,
        num_exact=num_exact,
        noise_std=noise_std,
        step_size=step_size,
        antithetic=True,
        optimizer=optimizer,
        noise=noise or gaussian(),
        unused=unused,
        multiplicative=multiplicative,
    )
