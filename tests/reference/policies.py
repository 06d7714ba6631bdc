"""Slow float64 transcription of the released policies, and of their structured baselines.

Sources:
google-research `es_enas/policies.py`, classes NumpyTopologyPolicy (the forward pass),
NumpyEdgeSparsityPolicy, NumpyWeightSharingPolicy and OpEdgePolicy; google-deepmind/iris
`iris/policies/nas_policy.py` has the same forward pass. Toeplitz matrices are constant along their
diagonals (arXiv 1804.02395), circulant ones wrap around.

Nodes are numbered inputs, hidden layers in order, outputs: a topological order.

Quirks pinned:
  linear_first_hidden   True: the released slip. A node is treated as hidden when its
                        index is GREATER than the number of inputs, so the first hidden
                        unit passes its sum on without bias and without tanh. False: all
                        hidden units are alike. The slip sits in the shared forward pass,
                        so both the edge policy and the partition policy have it, in both
                        code bases. Without hidden layers the option changes nothing.
  always                tanh at the output; biases of inputs and outputs are never read;
                        a hidden unit with no incoming edge still emits tanh(bias).
"""

import itertools

import numpy as np


def edge_policy_action(
    weights_matrix, biases, edges, layer_sizes, observation, *, linear_first_hidden, operations=None
):
    """Action of a network that has only the given edges, node by node.

    weights_matrix[nodes, nodes] is read at [from, to]; biases[nodes]; edges are pairs of
    node numbers, in any order, the smaller number being the source; layer_sizes are
    [inputs, hidden..., outputs]; observation is already normalised. operations has the name
    of what each hidden node applies to its sum and bias, in their order; tanh without them.
    """
    weights_matrix = np.array(weights_matrix, dtype=np.float64)
    biases = np.array(biases, dtype=np.float64)
    observation = np.array(observation, dtype=np.float64)
    num_nodes = sum(layer_sizes)
    num_inputs = layer_sizes[0]
    num_outputs = layer_sizes[-1]
    if weights_matrix.shape != (num_nodes, num_nodes) or biases.shape != (num_nodes,):
        raise ValueError("parameters do not fit layer_sizes")
    if observation.shape != (num_inputs,):
        raise ValueError("observation does not fit layer_sizes")

    values = [0.0] * num_nodes
    for i in range(num_inputs):
        values[i] = observation[i]
    for i in range(num_nodes):
        is_hidden = num_inputs <= i < num_nodes - num_outputs
        is_slip = linear_first_hidden and i == num_inputs
        if is_hidden and not is_slip:
            name = "tanh" if operations is None else operations[i - num_inputs]
            values[i] = operation(name, values[i] + biases[i])
        for first, second in edges:
            source, target = min(first, second), max(first, second)
            if source == i:
                values[target] += weights_matrix[source, target] * values[source]
    return np.tanh(np.array(values[num_nodes - num_outputs :], dtype=np.float64))


def operation(name, x):
    """One of the released operations of a number."""
    if name == "tanh":
        return np.tanh(x)
    if name == "relu":
        return x if x > 0.0 else 0.0
    if name == "exp":
        return np.exp(x)
    if name == "identity":
        return x
    if name == "sin":
        return np.sin(x)
    if name == "sigmoid":
        return 1.0 / (1.0 + np.exp(-x))
    if name == "abs":
        return abs(x)
    if name == "cos":
        return np.cos(x)
    if name == "square":
        return x * x
    if name == "step":
        return 1.0 if x >= 0.0 else 0.0
    if name == "reciprocal":
        return 10.0 if x == 0.0 else 1.0 / x
    raise ValueError(f"no operation {name}")


def residual_edges(layer_sizes):
    """All edges from any layer to any later one.

    Target layer by target layer; inside a layer by source node, over all earlier layers; inside a
    source by target.
    """
    edges = []
    start = layer_sizes[0]
    for size in layer_sizes[1:]:
        for source in range(start):
            edges += [(source, target) for target in range(start, start + size)]
        start += size
    return edges


def toeplitz_weights(numbers, layer_sizes):
    """Weight of each edge of `aggregate_edges`, from in + out - 1 numbers a layer.

    The first belongs to the edge from the last source to the first target, the last to that from
    the first source to the last target.
    """
    weights, start = [], 0
    for n_in, n_out in itertools.pairwise(layer_sizes):
        for source in range(n_in):
            weights += [numbers[start + (n_in - 1 - source) + target] for target in range(n_out)]
        start += n_in + n_out - 1
    return weights


def circulant_weights(numbers, layer_sizes):
    """Weight of each edge of `aggregate_edges`, from max(in, out) numbers a layer.

    A source's weights are those of the source before it, moved on by one target.
    """
    weights, start = [], 0
    for n_in, n_out in itertools.pairwise(layer_sizes):
        size = max(n_in, n_out)
        row = list(numbers[start : start + size])
        for _ in range(n_in):
            weights += row[:n_out]
            row = [row[-1], *row[:-1]]
        start += size
    return weights


def aggregate_edges(layer_sizes):
    """All edges between consecutive layers, in the released order.

    Layer pair by layer pair; inside a pair by source node; inside a source by target.
    """
    edges = []
    start = 0
    for layer in range(len(layer_sizes) - 1):
        middle = start + layer_sizes[layer]
        end = middle + layer_sizes[layer + 1]
        for source in range(start, middle):
            edges += [(source, target) for target in range(middle, end)]
        start = middle
    return edges


def partition_policy_action(
    shared_weights, biases, colors, layer_sizes, observation, *, linear_first_hidden
):
    """Action of the full feed-forward network whose edges share weights by colour.

    shared_weights[C]; biases[nodes]; colors has one entry in range(C) for each edge of
    `aggregate_edges(layer_sizes)`, in that order.
    """
    shared_weights = np.array(shared_weights, dtype=np.float64)
    edges = aggregate_edges(layer_sizes)
    if len(colors) != len(edges):
        raise ValueError(f"{len(edges)} edges need a colour each, got {len(colors)}")
    num_nodes = sum(layer_sizes)
    weights_matrix = np.zeros((num_nodes, num_nodes), dtype=np.float64)
    for (source, target), color in zip(edges, colors, strict=True):
        weights_matrix[source, target] = shared_weights[int(color)]
    return edge_policy_action(
        weights_matrix,
        biases,
        edges,
        layer_sizes,
        observation,
        linear_first_hidden=linear_first_hidden,
    )
