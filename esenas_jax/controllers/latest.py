"""The best architectures of the latest generation, for controllers that keep no population."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key


class Latest(NamedTuple):
    """The best of the last generation that brought any: earlier scores are of other weights."""

    genotypes: Genotype  # [A], best first
    valid: Array  # bool [A]


def nothing_yet(space: Space, key: Key, number: int) -> Latest:
    """Return A places without an architecture in them."""
    return Latest(space.sample(key, (number,)), jnp.zeros(number, bool))


def latest(old: Latest, genotypes: Genotype, scores: Array, valid: Array) -> Latest:
    """Return the best of a generation, or the old ones if all of its candidates failed.

    Args:
        old: [A].
        genotypes: [N].
        scores: float32 [N].
        valid: bool [N].
    """
    number = old.valid.size
    order = jnp.argsort(jnp.where(valid, scores, -jnp.inf), descending=True)[:number]
    top, is_valid = jax.tree.map(lambda x: x[order], (genotypes, valid))
    new = jax.tree.map(
        lambda fresh, before: jnp.concatenate([fresh, before])[:number],
        (top, is_valid),
        (old.genotypes, jnp.zeros_like(old.valid)),
    )
    return jax.tree.map(lambda x, y: jnp.where(valid.any(), x, y), Latest(*new), old)


def after(likeliest: Genotype, found: Latest) -> tuple[Genotype, Array]:
    """Return an architecture and then the best of the latest generation, [A] in all."""
    genotypes = jax.tree.map(
        lambda x, more: jnp.concatenate([x[None], more])[:-1], likeliest, found.genotypes
    )
    return genotypes, jnp.append(True, found.valid)[:-1]
