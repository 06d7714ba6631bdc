"""Pruned once, nothing to search: the baselines of edge pruning."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.policies import costs
from esenas_jax.policies.dense import dense
from esenas_jax.policies.feedforward import Activation, Initializer, uniform
from esenas_jax.policies.masks import drawing
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import SubsetOf
from esenas_jax.types import Array, Cost, Genotype


def random_mask(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_edges: int,
    mask_seed: int = 0,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = uniform,
    bias_init: Initializer = uniform,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy that has `num_edges` edges of the dense one, drawn at random once.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () prunes a linear policy.
        action_size: A, at least 1.
        num_edges: K, in [1, E].
        mask_seed: of the draw, in [0, 2^32). A search over `edge_pruned` with the constant
            controller draws another mask for every run.
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        weight_init: of the edges' weights, see `masks.drawing`.
        bias_init: of the hidden biases.
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy of P = K + hidden units parameters, whose space has one element.

    Raises:
        ValueError: if the network has fewer than `num_edges` edges.

    Example:
        >>> random_mask(11, (32,), 3, num_edges=64).num_params
        96
    """
    base = dense(
        obs_size,
        hidden,
        action_size,
        hidden_activation=hidden_activation,
        output_activation=output_activation,
        weight_init=weight_init,
        bias_init=bias_init,
        linear_first_hidden=linear_first_hidden,
    )
    kept = _checks.integer("num_edges", num_edges, 1, base.max_edges)
    seed = _checks.integer("mask_seed", mask_seed, 0, 2**32 - 1)
    drawn = np.asarray(SubsetOf(base.max_edges, kept).sample(jax.random.key(seed)))
    return fixed_edges(base, drawn)._replace(init=drawing(base, weight_init, bias_init, drawn))


class Pruned(NamedTuple):
    """A policy that has some of another one's edges, and its weights."""

    policy: Policy  # with parameters: weights of the edges kept [K], then biases; nothing to search
    params: np.ndarray  # float32 [P], where its training begins
    edges: np.ndarray  # int32 [K], those kept, in increasing order


def prune(policy: Policy, params: Array | np.ndarray, num_edges: int) -> Pruned:
    """Return a policy with the `num_edges` largest weights of a trained one.

    Args:
        policy: that has every edge and nothing to search: `dense`, or `from_flax(search=None)`.
        params: its trained parameters, finite [P]: weights [E], then all others.
        num_edges: K, in [1, E]; of equal weights those of earlier edges are kept.

    Raises:
        TypeError, ValueError: if the policy has something to search, `params` are none of its, or
            `num_edges` is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> from esenas_jax import policies
        >>> small = prune(policies.dense(3, (), 1), jnp.array([0.5, -2.0, 1.0]), num_edges=2)
        >>> small.params.tolist(), small.edges.tolist()
        ([-2.0, 1.0], [1, 2])
    """
    if policy.space.log_cardinality > 0:
        raise ValueError(f"the policy must have nothing to search, got one over {policy.space}.")
    total = policy.max_edges
    kept = _checks.integer("num_edges", num_edges, 1, total)
    trained = trained_parameters(policy, params)
    largest = np.sort(np.argsort(-np.abs(trained[:total]), kind="stable")[:kept])
    start = np.concatenate([trained[largest], trained[total:]])
    made = fixed_edges(policy, largest)._replace(init=lambda key: jnp.asarray(start))
    return Pruned(made, start, largest.astype(np.int32))


def magnitude_pruned(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_edges: int,
    trained: Array | np.ndarray,
    *,
    hidden_activation: Activation = jnp.tanh,
    output_activation: Activation = jnp.tanh,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy that has the `num_edges` largest weights of a trained dense one.

    Training goes on from these weights: train, prune, fine-tune. If they were trained on normalised
    observations, the task goes on from those moments: `task.knowing(moments)`.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () prunes a linear policy.
        action_size: A, at least 1.
        num_edges: K, in [1, E].
        trained: finite parameters of the `dense` policy of these layers [E + hidden units].
        hidden_activation: of hidden units.
        output_activation: of the outputs.
        linear_first_hidden: the released slip, see `feedforward.forward`.

    Returns:
        A policy of P = K + hidden units parameters, whose space has one element. Of equal weights
        those of earlier edges are kept.

    Raises:
        ValueError: if the network has fewer than `num_edges` edges, or `trained` are no parameters
            of it.

    Example:
        >>> policy = magnitude_pruned(3, (), 1, num_edges=2, trained=jnp.array([0.5, -2.0, 1.0]))
        >>> policy.init(jax.random.key(0)).tolist()
        [-2.0, 1.0]
    """
    base = dense(
        obs_size,
        hidden,
        action_size,
        hidden_activation=hidden_activation,
        output_activation=output_activation,
        linear_first_hidden=linear_first_hidden,
    )
    kept = _checks.integer("num_edges", num_edges, 1, base.max_edges)
    params = np.asarray(trained, np.float32)
    if params.shape != (base.num_params,):
        raise ValueError(
            f"trained must be the {base.num_params} parameters of the dense policy with layers of "
            f"{', '.join(map(str, (obs_size, *hidden, action_size)))} units, got an array of shape "
            f"{params.shape}."
        )
    if not np.isfinite(params).all():
        raise ValueError(
            f"trained must be finite, got {np.sum(~np.isfinite(params))} parameters that are not."
        )
    return prune(base, params, kept).policy


def trained_parameters(policy: Policy, params: Array | np.ndarray) -> np.ndarray:
    """Return parameters [P] of a policy, float32; raise if they are none of its."""
    found = np.asarray(params, np.float32)
    if found.shape != (policy.num_params,):
        raise ValueError(
            f"params must be the policy's {policy.num_params} parameters, got an array of shape "
            f"{found.shape}."
        )
    if not np.isfinite(found).all():
        raise ValueError(f"params must be finite, got {np.sum(~np.isfinite(found))} that are not.")
    return found


def fixed_edges(base: Policy, edges: np.ndarray) -> Policy:
    """Return the policy that has these edges of a dense one [K], with parameters for no others."""
    total, kept = base.max_edges, edges.size

    def bind(params: Array, genotype: Genotype) -> tuple[tuple[Array, Array], ...]:
        weights = jnp.zeros(total, jnp.float32).at[edges].set(params[:kept])
        return base.bind(jnp.concatenate([weights, params[kept:]]), genotype)

    def used(genotype: Genotype) -> Array:
        return jnp.concatenate([jnp.ones(kept, bool), base.used(genotype)[total:]])

    def cost(genotype: Genotype) -> Cost:
        # The mask is stored with the weights, as that of a searched architecture is.
        entropy = costs.subset_entropy(total, kept)
        return costs.pruned(base.cost(genotype), total, kept, code=total, entropy=entropy)

    return base._replace(num_params=base.num_params - total + kept, bind=bind, used=used, cost=cost)
