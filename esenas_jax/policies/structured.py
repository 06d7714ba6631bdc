"""Matrices of few numbers, nothing to search: the baselines of the chromatic networks."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax.policies import costs
from esenas_jax.policies.dense import dense
from esenas_jax.policies.feedforward import Activation, Initializer, fan_out_normal, normal
from esenas_jax.policies.policy import Policy
from esenas_jax.types import Array, Cost, Genotype, Key


def toeplitz(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = fan_out_normal,
    bias_init: Initializer = normal,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy whose matrices are constant along their diagonals (arXiv 1804.02395).

    The matrix of a layer is W[i, j] = t[j - i + in - 1], with in + out - 1 numbers t.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () is a linear policy.
        action_size: A, at least 1.
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of each layer's weights [in, out], of which the first column and row are
            taken; released N(0, 1 / out).
        bias_init: of the hidden biases; released N(0, 1).
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy of P = numbers of all layers + hidden units parameters, whose space has one
        element.

    Raises:
        TypeError, ValueError: if a size is not a positive integer.

    Example:
        >>> toeplitz(17, (41,), 6).num_params - 41
        103
    """
    return _structured(
        "toeplitz",
        lambda row, column, n_in: column - row + n_in - 1,
        lambda w: jnp.concatenate([w[::-1, 0], w[0, 1:]]),
        dense(
            obs_size,
            hidden,
            action_size,
            hidden_activation=hidden_activation,
            output_activation=output_activation,
            linear_first_hidden=linear_first_hidden,
        ),
        weight_init,
        bias_init,
    )


def circulant(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = fan_out_normal,
    bias_init: Initializer = normal,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy whose matrices are cut out of circulant ones.

    The matrix of a layer is W[i, j] = c[(j - i) mod n], with n = max(in, out) numbers c.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () is a linear policy.
        action_size: A, at least 1.
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of each layer's weights [in, out], of which the first row is taken, or the
            first column where that is longer.
        bias_init: of the hidden biases.
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy of P = numbers of all layers + hidden units parameters, whose space has one
        element.

    Raises:
        TypeError, ValueError: if a size is not a positive integer.

    Example:
        >>> circulant(17, (41,), 6).num_params - 41
        82
    """
    return _structured(
        "circulant",
        lambda row, column, n_in: (column - row) % max(n_in, column.size),
        lambda w: w[0] if w.shape[1] >= w.shape[0] else w[:, 0],
        dense(
            obs_size,
            hidden,
            action_size,
            hidden_activation=hidden_activation,
            output_activation=output_activation,
            linear_first_hidden=linear_first_hidden,
        ),
        weight_init,
        bias_init,
    )


def _structured(
    kind: str,
    place: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
    numbers: Callable[[Array], Array],
    base: Policy,
    weight_init: Initializer,
    bias_init: Initializer,
) -> Policy:
    """Return the dense policy of which each weight is one of a few numbers of its layer.

    Args:
        kind: as in `costs.matrix_weights`.
        place: row [in, 1], column [1, out], in -> which of its layer's numbers a weight is.
        numbers: weights [in, out] -> as many of them as the layer has numbers.
        base: the dense policy.
        weight_init: of weights [in, out].
        bias_init: of the biases.
    """
    counts = [costs.matrix_weights([shape])[kind] for shape in base.shapes]
    starts = [0, *np.cumsum(counts).tolist()]
    total = starts.pop()
    places = np.concatenate(
        [
            start + place(np.arange(n_in)[:, None], np.arange(n_out)[None], n_in).ravel()
            for start, (n_in, n_out) in zip(starts, base.shapes, strict=True)
        ]
    ).astype(np.int32)
    num_biases = base.num_params - base.max_edges

    def init(key: Key) -> Array:
        keys = jax.random.split(key, len(counts) + 1)
        pairs = zip(keys[1:], base.shapes, strict=True)
        drawn = [numbers(weight_init(k, shape)) for k, shape in pairs]
        return jnp.concatenate([*drawn, bias_init(keys[0], (num_biases,))])

    def bind(params: Array, genotype: Genotype) -> tuple[tuple[Array, Array], ...]:
        return base.bind(jnp.concatenate([params[:total][places], params[total:]]), genotype)

    def used(genotype: Genotype) -> Array:
        return jnp.concatenate([jnp.ones(total, bool), base.used(genotype)[base.max_edges :]])

    def cost(genotype: Genotype) -> Cost:
        return costs.cost(edges=base.max_edges, weights=total, biases=base.cost(genotype).biases)

    return base._replace(num_params=total + num_biases, init=init, bind=bind, used=used, cost=cost)
