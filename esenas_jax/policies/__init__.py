"""Policies: networks of weights and an architecture. Reading order: policy, feedforward, dense."""

from esenas_jax.policies.dense import dense
from esenas_jax.policies.edges import edge_pruned
from esenas_jax.policies.feedforward import fan_in_normal, identity, normal, uniform, zeros
from esenas_jax.policies.partition import partitioned
from esenas_jax.policies.policy import Policy

__all__ = [
    "Policy",
    "dense",
    "edge_pruned",
    "fan_in_normal",
    "identity",
    "normal",
    "partitioned",
    "uniform",
    "zeros",
]
