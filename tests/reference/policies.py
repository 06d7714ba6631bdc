"""Slow float64 transcription of the released edge-pruned and weight-sharing policies.

Sources:
google-research `es_enas/policies.py`, classes NumpyTopologyPolicy (the forward pass),
NumpyEdgeSparsityPolicy and NumpyWeightSharingPolicy; google-deepmind/iris
`iris/policies/nas_policy.py` has the same forward pass.

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

import numpy as np


def edge_policy_action(
    weights_matrix, biases, edges, layer_sizes, observation, *, linear_first_hidden
):
    """Action of a network that has only the given edges, node by node.

    weights_matrix[nodes, nodes] is read at [from, to]; biases[nodes]; edges are pairs of
    node numbers, in any order, the smaller number being the source; layer_sizes are
    [inputs, hidden..., outputs]; observation is already normalised.
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
            values[i] = np.tanh(values[i] + biases[i])
        for first, second in edges:
            source, target = min(first, second), max(first, second)
            if source == i:
                values[target] += weights_matrix[source, target] * values[source]
    return np.tanh(np.array(values[num_nodes - num_outputs :], dtype=np.float64))


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
