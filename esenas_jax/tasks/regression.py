"""The toy regression: recover a random polynomial."""

import jax
import jax.numpy as jnp
import optax

from esenas_jax import _checks
from esenas_jax.tasks.task import Apply, SingleShot
from esenas_jax.types import Array, Evaluation, Key, PyTree


def polynomial_regression(
    target_key: Key, *, degree: int = 4, batch_size: int = 2048, target_scale: float = 5.0
) -> SingleShot:
    """Return the task of fitting a polynomial of a standard normal, scored by minus smooth L1.

    Inputs are [1, x, x^2, ..., x^degree] with x ~ N(0, 1); the target is their sum under weights
    drawn from N(0, target_scale^2), so that a linear policy without activations can be exact.

    Args:
        target_key: of the target's weights.
        degree: at least 1; O = degree + 1 and A = 1.
        batch_size: examples an evaluation, drawn from the candidate's key.
        target_scale: positive.

    Raises:
        TypeError, ValueError: if a number is outside its range.
    """
    degree = _checks.integer("degree", degree, 1)
    batch_size = _checks.integer("batch_size", batch_size, 1)
    scale = _checks.positive("target_scale", target_scale)
    target = scale * jax.random.normal(target_key, (degree + 1,), jnp.float32)

    def evaluate(key: Key, network: PyTree, apply: Apply) -> Evaluation:
        x = jax.random.normal(key, (batch_size,), jnp.float32)
        features = jnp.vander(x, degree + 1, increasing=True)
        predicted = jax.vmap(apply, in_axes=(None, 0))(network, features)[:, 0]
        score = -jnp.mean(optax.losses.huber_loss(predicted, features @ target))
        return single_score(score)

    return SingleShot(obs_size=degree + 1, action_size=1, evaluate=evaluate)


def single_score(score: Array) -> Evaluation:
    """Return the evaluation of a candidate with one score, float32 [], and no episodes."""
    return Evaluation(
        episode_return=score,
        return_without_bonus=score,
        steps=jnp.int32(0),
        episode_length=jnp.zeros((), jnp.float32),
        failed=~jnp.isfinite(score),
        statistics=(),
    )
