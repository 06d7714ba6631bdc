"""Training by gradient: what evolution goes on from, and is compared with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from esenas_jax import _checks
from esenas_jax.policies import Policy
from esenas_jax.tasks.task import SingleShot
from esenas_jax.types import Array, Genotype, Key, Stream, stream


def gradient_training(
    policy: Policy,
    task: SingleShot,
    steps: int,
    *,
    optimizer: optax.GradientTransformation | None = None,
    genotype: Genotype | None = None,
) -> Callable[[Key, Array], tuple[Array, Array]]:
    """Return the function that trains a policy's parameters by the gradient of its score.

    Of a policy with shared weights the gradient of each is the sum over its edges, as Deep
    Compression trains centroids (arXiv 1510.00149, section 3.3).

    Args:
        policy: of the task's sizes.
        task: single-shot, whose score has a gradient.
        steps: at least 1; each has examples of its own.
        optimizer: `optax.adam(1e-3)` by default.
        genotype: the architecture; may be left out where there is only one.

    Returns:
        key, parameters [P] -> trained parameters [P], scores [steps] before each step. Pure, and
        made for jit and vmap. A step whose gradient is not finite is left out.

    Raises:
        TypeError, ValueError: if the task has episodes, the sizes do not fit, or there is more than
            one architecture to choose from.

    Example:
        >>> from esenas_jax import policies, tasks
        >>> task = tasks.polynomial_regression(jax.random.key(1), degree=1)
        >>> policy = policies.dense(2, (), 1, output_activation=policies.identity)
        >>> train = jax.jit(gradient_training(policy, task, 300, optimizer=optax.adam(0.1)))
        >>> params, scores = train(jax.random.key(0), policy.init(jax.random.key(0)))
        >>> bool(scores[-1] > -5e-3)
        True
    """
    steps = _checks.integer("steps", steps, 1)
    if not isinstance(task, SingleShot):
        raise TypeError(f"the task must be single-shot, got {type(task).__name__}.")
    _checks.sizes(policy, task)
    if genotype is None and policy.space.log_cardinality > 0:
        raise ValueError(
            f"genotype must be an architecture of {policy.space}, got None: there are several."
        )
    if genotype is not None:
        policy.space.validate(genotype)
    transformation = optax.adam(1e-3) if optimizer is None else optimizer
    if not isinstance(transformation, optax.GradientTransformation):
        raise TypeError(
            "optimizer must be an optax optimizer, optax.adam(0.1) say, got a "
            f"{type(transformation).__name__}."
        )

    def train(key: Key, params: Array) -> tuple[Array, Array]:
        only = policy.space.sample(key) if genotype is None else genotype
        chosen = jax.tree.map(jnp.asarray, only)

        def loss(params: Array, step: Array) -> Array:
            network = policy.bind(params, chosen)
            seen = task.evaluate(stream(key, step, Stream.EPISODE), network, policy.apply)
            return -seen.episode_return

        def step(carry: tuple[Array, optax.OptState], t: Array) -> tuple:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, t)
            with jax.numpy_dtype_promotion("standard"):  # optax's optimisers mix dtypes
                updates, new_state = transformation.update(gradient, state, params)
            moved = params + jnp.asarray(updates)
            learnt = jax.tree.leaves((moved, new_state))
            sound = jnp.stack([jnp.isfinite(x).all() for x in learnt]).all()
            new = jax.tree.map(
                lambda x, y: jnp.where(sound, x, y), (moved, new_state), (params, state)
            )
            return new, -value

        first = (params, transformation.init(params))
        (params, _), scores = jax.lax.scan(step, first, jnp.arange(steps, dtype=jnp.int32))
        return params, scores

    return train
