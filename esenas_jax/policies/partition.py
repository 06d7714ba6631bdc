"""Weight sharing: every edge has a colour, edges of one colour share a weight."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.policies.dense import dense
from esenas_jax.policies.feedforward import Activation, Initializer, normal
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import OneOf, Repeat
from esenas_jax.types import Array, Cost, Key


def partitioned(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_partitions: int,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = normal,
    bias_init: Initializer = normal,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the fully connected policy with only `num_partitions` distinct weights.

    The released weight-sharing policy, the chromatic networks of arXiv 1907.06511: a genotype gives
    each edge of consecutive layers one of `num_partitions` colours.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () colours a linear policy.
        action_size: A, at least 1.
        num_partitions: K colours, at least 1.
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of the shared weights [K]; released N(0, 1).
        bias_init: of the hidden biases.
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy over `Repeat(OneOf(K), E)` with parameters: shared weights [K], then biases.

    Raises:
        ValueError: if `num_partitions` is below 1.

    Example:
        >>> policy = partitioned(17, (), 6, num_partitions=17)
        >>> policy.num_params, policy.space
        (17, Repeat(space=OneOf(num_categories=17), times=102))
    """
    base = dense(
        obs_size,
        hidden,
        action_size,
        hidden_activation=hidden_activation,
        output_activation=output_activation,
        linear_first_hidden=linear_first_hidden,
    )
    total, num_biases = base.max_edges, base.num_params - base.max_edges
    colours = _checks.integer("num_partitions", num_partitions, 1)

    def init(key: Key) -> Array:
        k_weights, k_biases = jax.random.split(key)
        return jnp.concatenate(
            [weight_init(k_weights, (colours,)), bias_init(k_biases, (num_biases,))]
        )

    def bind(params: Array, genotype: Array) -> tuple[tuple[Array, Array], ...]:
        return base.bind(jnp.concatenate([params[:colours][genotype], params[colours:]]), ())

    def present(genotype: Array) -> Array:
        return jnp.zeros(colours, bool).at[genotype].set(True)

    def used(genotype: Array) -> Array:
        return jnp.concatenate([present(genotype), base.used(())[total:]])

    def cost(genotype: Array) -> Cost:
        return Cost(jnp.int32(total), jnp.sum(present(genotype), dtype=jnp.int32))

    return base._replace(
        num_params=colours + num_biases,
        space=Repeat(OneOf(colours), total),
        init=init,
        bind=bind,
        used=used,
        cost=cost,
    )
