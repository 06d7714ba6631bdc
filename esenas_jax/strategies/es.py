"""Evolution strategies as released with ES-ENAS."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from esenas_jax import _checks
from esenas_jax.strategies.finite_differences import (
    Optimizer,
    Outcome,
    Unused,
    finite_differences,
    kept,
    largest_difference,
)
from esenas_jax.strategies.noise import Noise, gaussian
from esenas_jax.strategies.shaping import reciprocal, z_score
from esenas_jax.strategies.strategy import Strategy
from esenas_jax.types import Array


def es(
    num_directions: int = 150,
    num_exact: int = 150,
    noise_std: float = 0.1,
    step_size: float = 0.01,
    *,
    num_elites: int | None = None,
    antithetic: bool = True,
    shaping: Callable[[Array, Array], Array] = z_score,
    ranking: Callable[[Outcome], Array] = largest_difference,
    shape_exact: bool = True,
    double_when_truncated: bool = True,
    optimizer: Optimizer = optax.sgd,
    noise: Noise | None = None,
    unused: Unused = Unused.KEPT,
    multiplicative: bool = False,
) -> Strategy:
    r"""Return the ES strategy; the defaults are the released ones.

    Source: google-research, `es_optimization/algorithms.py` (`MCOptimizer`) with the settings of
    `es_enas/config.py`.

    With v the shaped scores, antithetic and forward finite differences estimate the gradient as

        1 / (2 D sigma) sum_d (v_d^+ - v_d^-) g_d    and    1 / (D sigma) sum_d (v_d - v_exact) g_d.

    Args:
        num_directions: D, at least 1.
        num_exact: X, candidates at the unperturbed parameters; at least 1 for forward differences.
        noise_std: sigma, positive.
        step_size: positive.
        num_elites: b, how many directions are kept, in [1, D]; all by default.
        antithetic: perturb along +g and -g; else forward differences against the exact mean.
        shaping: `z_score`, `centered_ranks` or `raw`.
        ranking: what the kept directions are largest in; `best_half` is the choice of ARS.
        shape_exact: the exact mean is one more value in the shaping, as released. Forward
            differences need it and always have it.
        double_when_truncated: an antithetic gradient of fewer than D directions is multiplied by 2,
            a released compatibility quirk.
        optimizer: step size -> optax optimiser, `optax.adam` say; plain ascent by default.
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
        plus, minus, valid = outcome.plus, outcome.minus, outcome.valid
        perturbed = plus[None] if minus is None else jnp.stack([plus, minus])  # [halves, D]
        include = outcome.exact_valid & (shape_exact or minus is None)
        values = shaping(
            jnp.append(perturbed.ravel(), outcome.exact_mean),
            jnp.append(jnp.tile(valid, perturbed.shape[0]), include),
        )
        perturbed, exact = values[:-1].reshape(perturbed.shape), values[-1]
        if minus is None:
            # Without a finite exact mean there is nothing to compare with: no direction counts.
            valid = valid & outcome.exact_valid
            shaped = outcome._replace(plus=perturbed[0])
            perturbed = perturbed - exact
        else:
            shaped = outcome._replace(plus=perturbed[0], minus=perturbed[1])
        keep = kept(ranking(shaped), valid, elites)
        count = jnp.maximum(jnp.sum(keep, dtype=jnp.float32), 1.0)

        def weighed(difference: Array) -> Array:
            if minus is not None:
                difference = difference / 2.0
                if double_when_truncated and elites < num_directions:
                    difference = 2.0 * difference
            return jnp.where(keep, difference * reciprocal(count * outcome.noise_std), 0.0)

        return perturbed, weighed

    return finite_differences(
        direction_weights,
        num_directions=num_directions,
        num_exact=num_exact,
        noise_std=noise_std,
        step_size=step_size,
        antithetic=antithetic,
        optimizer=optimizer,
        noise=noise or gaussian(),
        unused=unused,
        multiplicative=multiplicative,
    )
