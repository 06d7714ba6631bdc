"""The toy regression: recover a random polynomial."""

import itertools
import operator
from collections.abc import Callable

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
        # Products, where `jnp.vander` takes powers, which take as long as all the rest.
        powers = itertools.accumulate([jnp.ones_like(x)] + degree * [x], operator.mul)
        features = jnp.stack(list(powers), axis=1)
        return single_score(-_mean_loss(apply)(network, features, features @ target))

    return SingleShot(obs_size=degree + 1, action_size=1, evaluate=evaluate)


def _mean_loss(apply: Apply) -> Callable[[PyTree, Array, Array], Array]:
    """Return the function from a network, features [B, O] and targets [B] to the mean smooth L1.

    Of candidates that share their examples, predictions are laid out by example: a matrix product
    makes them so, and to turn them around takes longer than the rest (64 candidates of 2,048
    examples: 135 us, and 55 us without). A mean is a product too: XLA adds the terms of a sum one
    by one on CPUs (420 us).
    """

    def loss(network: PyTree, features: Array, targets: Array) -> Array:
        predicted = jax.vmap(apply, in_axes=(None, 0))(network, features)[:, 0]
        return _mean(optax.losses.huber_loss(predicted, targets))

    shared = jax.custom_batching.custom_vmap(loss)

    @shared.def_vmap
    def _(
        size: int, batched: list[PyTree], network: PyTree, features: Array, targets: Array
    ) -> tuple[Array, bool]:
        del size
        axes = jax.tree.map(lambda b: 0 if b else None, batched)
        if any(batched[1:]):
            return jax.vmap(loss, in_axes=tuple(axes))(network, features, targets), True

        def one(x: Array) -> Array:
            return jax.vmap(lambda mine: apply(mine, x)[0], in_axes=(axes[0],))(network)

        predicted = jax.vmap(one)(features)  # [B, candidates]
        wanted = jnp.broadcast_to(targets[:, None], predicted.shape)
        return _mean(optax.losses.huber_loss(predicted, wanted)), True

    # A rule for vmap has no gradient: that is the loss's own.
    differentiable = jax.custom_vjp(shared)
    differentiable.defvjp(
        lambda *given: jax.vjp(loss, *given), lambda gradient, cotangent: gradient(cotangent)
    )
    return differentiable


def _mean(losses: Array) -> Array:
    """Return the mean over the first axis."""
    weights = jnp.full(losses.shape[0], 1.0 / losses.shape[0], losses.dtype)
    return jnp.matmul(weights, losses, precision=jax.lax.Precision.HIGHEST)


def finite(output: PyTree) -> Array:
    """Return whether all numbers of a network's output are finite, bool [].

    A score that is made of an output may be finite where the output is not: argmax takes the first
    NaN for the largest number. A task of your own fails such a candidate with

        single_score(jnp.where(finite(logits), score, jnp.nan))
    """
    return jnp.stack(
        [jnp.bool_(True), *(jnp.isfinite(x).all() for x in jax.tree.leaves(output))]
    ).all()


def single_score(score: Array) -> Evaluation:
    """Return the evaluation of a candidate with one score, float32 [], and no episodes.

    A score that is not finite is that of a failed candidate.
    """
    return Evaluation(
        episode_return=score,
        return_without_bonus=score,
        steps=jnp.int32(0),
        episode_length=jnp.zeros((), jnp.float32),
        failed=~jnp.isfinite(score),
        statistics=(),
    )
