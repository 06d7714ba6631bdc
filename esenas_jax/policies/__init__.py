"""Policies: networks of weights and an architecture.

Reading order: policy, feedforward, costs, dense; masks, edges, boolean_mask, fixed; operations;
partition, quantized, structured; custom, flax_module, flax_networks.
"""

from esenas_jax.policies.boolean_mask import boolean_mask
from esenas_jax.policies.costs import matrix_weights
from esenas_jax.policies.custom import custom
from esenas_jax.policies.dense import dense
from esenas_jax.policies.edges import edge_pruned, independent_edges, residual_edges
from esenas_jax.policies.feedforward import (
    fan_in_normal,
    fan_out_normal,
    identity,
    normal,
    uniform,
    zeros,
)
from esenas_jax.policies.fixed import Pruned, magnitude_pruned, prune, random_mask
from esenas_jax.policies.flax_module import from_flax
from esenas_jax.policies.flax_networks import flax_convolutional, flax_dense
from esenas_jax.policies.operations import OPERATIONS, RELEASED_OPERATIONS, op_edges
from esenas_jax.policies.partition import partitioned
from esenas_jax.policies.policy import Policy
from esenas_jax.policies.quantized import Quantized, decode, encode, quantize
from esenas_jax.policies.structured import circulant, toeplitz

__all__ = [
    "OPERATIONS",
    "RELEASED_OPERATIONS",
    "Policy",
    "Pruned",
    "Quantized",
    "boolean_mask",
    "circulant",
    "custom",
    "decode",
    "dense",
    "edge_pruned",
    "encode",
    "fan_in_normal",
    "fan_out_normal",
    "flax_convolutional",
    "flax_dense",
    "from_flax",
    "identity",
    "independent_edges",
    "magnitude_pruned",
    "matrix_weights",
    "normal",
    "op_edges",
    "partitioned",
    "prune",
    "quantize",
    "random_mask",
    "residual_edges",
    "toeplitz",
    "uniform",
    "zeros",
]
