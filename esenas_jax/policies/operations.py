"""Edges and operations: which edges there are, and what each hidden unit does with its sum."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.policies import costs
from esenas_jax.policies.edges import residual_edges
from esenas_jax.policies.feedforward import (
    Activation,
    Initializer,
    Network,
    forward,
    identity,
    layers,
    uniform,
)
from esenas_jax.policies.policy import Policy
from esenas_jax.spaces import OneOf, Product, Repeat
from esenas_jax.types import Array, Cost, Genotype


def step(x: Array) -> Array:
    """Return 1 where x >= 0, else 0."""
    return (x >= 0).astype(x.dtype)


def reciprocal(x: Array) -> Array:
    """Return 1 / x, and 10 at 0."""
    return jnp.where(x == 0, 10.0, 1.0 / jnp.where(x == 0, 1.0, x))


_FUNCTIONS: dict[str, Activation] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "exp": jnp.exp,
    "identity": identity,
    "sin": jnp.sin,
    "sigmoid": jax.nn.sigmoid,
    "abs": jnp.abs,
    "cos": jnp.cos,
    "square": jnp.square,
    "step": step,
    "reciprocal": reciprocal,
}
OPERATIONS = tuple(_FUNCTIONS)
RELEASED_OPERATIONS = (*OPERATIONS, "step")  # the release lists it twice: twelve entries
LARGEST = 1e30  # what a hidden unit passes on is at most


class OpNetwork(NamedTuple):
    """What an op-edge policy acts with."""

    layers: Network  # with skips
    operations: list[Array]  # int32 [units] of each hidden layer


def op_edges(
    obs_size: int,
    hidden: Sequence[int],
    action_size: int,
    num_edges: int,
    *,
    operations: Sequence[str] = OPERATIONS,
    output_activation: Activation = jnp.tanh,
    weight_init: Initializer = uniform,
    bias_init: Initializer = uniform,
    linear_first_hidden: bool = False,
) -> Policy:
    """Return the policy of `num_edges` edges that may skip layers, and an operation a hidden unit.

    The released `OpEdgePolicy`, in the manner of weight-agnostic networks: the edges of
    `residual_edges`, and for each hidden unit what it applies to its sum and bias. All operations
    of a layer's units are computed and each unit's own is selected; the others see a harmless
    number in place of its sum, so they put no NaN into values or gradients. A unit passes on
    numbers in [-1e30, 1e30]: what overflows (exp, square, reciprocal) stays a number, and cannot
    reach units that it has no edge to as 0 times infinity.

    Args:
        obs_size: O, at least 1.
        hidden: sizes of the hidden layers; () is a pruned linear policy, without operations.
        action_size: A, at least 1.
        num_edges: K, in [1, E]; E is the number of candidates of `residual_edges`.
        operations: names of `OPERATIONS` to choose among; `RELEASED_OPERATIONS` has one of them
            twice, which then is chosen twice as often.
        output_activation: of the outputs.
        weight_init: of the edges' weights, see `masks.drawing`; released U(-1, 1).
        bias_init: of the hidden biases; released U(-1, 1).
        linear_first_hidden: the released slip, see `feedforward.forward`: the first hidden unit
            has no operation either.

    Returns:
        A policy over `Product({"edges": SubsetOf(E, K), "ops": Repeat(OneOf(operations), hidden
        units)})` with parameters: weights [E], then biases.

    Raises:
        ValueError: if there are fewer than `num_edges` candidates, no operations, or unknown ones.

    Example:
        >>> policy = op_edges(11, (32,), 3, num_edges=64)
        >>> print(policy.space)
        {edges: 64 of 481, ops: 32 x (1 of 11)}
    """
    names = [_checks.known("an operation", name, OPERATIONS) for name in operations]
    if not names:
        raise ValueError(f"operations must be at least one, got {operations!r}.")
    edges = residual_edges(
        obs_size,
        hidden,
        action_size,
        num_edges,
        weight_init=weight_init,
        bias_init=bias_init,
        linear_first_hidden=linear_first_hidden,
    )
    shape = layers(obs_size, hidden, action_size, skips=True)

    def bind(params: Array, genotype: Genotype) -> OpNetwork:
        return OpNetwork(edges.bind(params, genotype["edges"]), shape.by_unit(genotype["ops"]))

    def apply(network: OpNetwork, obs: Array) -> Array:
        return forward(
            network.layers,
            obs,
            hidden_activations=[operating(names, ops) for ops in network.operations],
            output_activation=output_activation,
            linear_first_hidden=linear_first_hidden,
            skips=shape.skips,
        )

    # The slip's unit, the first hidden one, has an operation that is never read.
    slips = int(linear_first_hidden and shape.num_biases > 0)
    code = edges.max_edges + (shape.num_biases - slips) * costs.index_bits(len(names))
    subset = costs.subset_entropy(edges.max_edges, num_edges)

    def cost(genotype: Genotype) -> Cost:
        counts = jnp.zeros(len(names), jnp.int32).at[genotype["ops"][slips:]].add(1)
        return costs.cost(
            edges=num_edges,
            weights=num_edges,
            biases=edges.cost(genotype["edges"]).biases,
            code=code,
            entropy=subset + costs.choice_entropy(counts),
        )

    return edges._replace(
        space=Product({"edges": edges.space, "ops": Repeat(OneOf(len(names)), shape.num_biases)}),
        bind=bind,
        apply=apply,
        used=lambda genotype: edges.used(genotype["edges"]),
        cost=cost,
        matrices=None,
    )


def operating(names: Sequence[str], ops: Array) -> Activation:
    """Return the function that applies to each unit's sum [units] the unit's own operation.

    Args:
        names: of operations.
        ops: int32 [units], of each unit the place of its operation among them.
    """

    def activation(x: Array) -> Array:
        out = x
        for name in dict.fromkeys(names):
            chosen = jnp.zeros(ops.shape, bool)
            for place, other in enumerate(names):
                if other == name:
                    chosen = chosen | (ops == place)
            out = jnp.where(chosen, _FUNCTIONS[name](jnp.where(chosen, x, 1.0)), out)
        return jnp.clip(out, -LARGEST, LARGEST)

    return activation
