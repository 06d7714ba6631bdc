"""Weight sharing: every edge has a colour, edges of one colour share a weight."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.policies import costs
from esenas_jax.policies.dense import dense
from esenas_jax.policies.feedforward import BY_MATRIX, Activation, Initializer, normal
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import OneOf, Repeat
from esenas_jax.types import Array, Cost, Key, PyTree


def partitioned(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_partitions: int,
    *,
    per_layer: bool = False,
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
        per_layer: each layer has K colours of its own; the release has K for the whole network.
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of the shared weights [K], or [layers * K]; released N(0, 1).
        bias_init: of the hidden biases.
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy over `Repeat(OneOf(K), E)` with parameters: shared weights [K] (those of each layer
        in turn if it has its own), then biases.

    Raises:
        ValueError: if `num_partitions` is below 1, or `weight_init` needs a layer's matrix.

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
    sizes = [n_in * n_out for n_in, n_out in base.shapes] if per_layer else [base.max_edges]
    return coloured(base, num_partitions, sizes, weight_init, bias_init)


def coloured(
    base: Policy,
    num_partitions: int | None,
    sizes: Sequence[int],
    weight_init: Initializer,
    bias_init: Initializer,
) -> Policy:
    """Return the policy with another one's edges, coloured.

    Args:
        base: a policy that has every edge and nothing to search, with parameters: weights [E], then
            biases.
        num_partitions: K colours of a palette, at least 1.
        sizes: of the edges in their order, how many share each palette; E in all.
        weight_init: of the shared weights [palettes * K].
        bias_init: of the biases.

    Raises:
        TypeError, ValueError: if there are no colours, or `weight_init` needs a layer's matrix.
    """
    total, num_biases = base.max_edges, base.num_params - base.max_edges
    colours = _checks.integer("num_partitions", num_partitions, 1)
    if weight_init in BY_MATRIX:
        raise ValueError(
            "weight_init of shared weights must draw every number alike (they are in no one "
            f"matrix), got {weight_init.__name__}."
        )
    shared = len(sizes) * colours
    firsts = np.repeat(np.arange(len(sizes), dtype=np.int32) * colours, sizes)

    def init(key: Key) -> Array:
        k_weights, k_biases = jax.random.split(key)
        return jnp.concatenate(
            [weight_init(k_weights, (shared,)), bias_init(k_biases, (num_biases,))]
        )

    def bind(params: Array, genotype: Array) -> PyTree:
        weights = params[:shared][genotype + firsts]
        return base.bind(jnp.concatenate([weights, params[shared:]]), ())

    def counts(genotype: Array) -> Array:
        return jnp.zeros(shared, jnp.int32).at[genotype + firsts].add(1)

    def used(genotype: Array) -> Array:
        return jnp.concatenate([counts(genotype) > 0, base.used(())[total:]])

    def cost(genotype: Array) -> Cost:
        each, whole = counts(genotype), base.cost(())
        return costs.cost(
            edges=whole.edges,
            weights=whole.edges - total + jnp.sum(each > 0, dtype=jnp.int32),
            biases=whole.biases,
            multiplications=whole.multiplications,
            code=total * costs.index_bits(colours),
            entropy=jnp.sum(jax.vmap(costs.choice_entropy)(each.reshape(-1, colours))),
        )

    return base._replace(
        num_params=shared + num_biases,
        space=Repeat(OneOf(colours), total),
        init=init,
        bind=bind,
        used=used,
        cost=cost,
    )
