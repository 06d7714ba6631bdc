"""Dominance among scores of several objectives, all maximised (Deb et al., IEEE TEC 2002)."""

import jax
import jax.numpy as jnp

from esenas_jax.types import Array


def ranks(scores: Array, valid: Array, enough: int | Array) -> Array:
    """Return the front that each is in: 0 if nothing dominates it, 1 if only front 0 does, ...

    One dominates another that is better in no objective and worse in at least one; equals dominate
    each other not. The non-dominated sort of section III-A, front by front, until there are
    `enough` in them.

    Args:
        scores: float32 [n, M].
        valid: bool [n]; the others dominate nothing and are in no front.
        enough: how many are needed, int32 [].

    Returns:
        int32 [n], n for those that are in none of these fronts.
    """
    count = valid.size
    first, second = scores[:, None], scores[None]
    dominates = jnp.all(first >= second, axis=2) & jnp.any(first > second, axis=2)

    def goes_on(carry: tuple[Array, Array]) -> Array:
        found, _ = carry
        ranked = found < count
        return jnp.any(valid & ~ranked) & (jnp.sum(ranked, dtype=jnp.int32) < enough)

    def peel(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        found, rank = carry
        left = valid & (found == count)
        beaten = jnp.any(dominates & left[:, None], axis=0)
        return jnp.where(left & ~beaten, rank, found), rank + 1

    nowhere = jnp.full(count, count, jnp.int32)
    return jax.lax.while_loop(goes_on, peel, (nowhere, jnp.int32(0)))[0]


def crowding(scores: Array, ranks: Array) -> Array:
    """Return how much room each has in its front: its crowding distance (section III-B).

    The sum over the objectives of the distance between its two neighbours in the front, in units of
    what the front spans; infinite at both ends of an objective. Of equals the first and the last
    are the ends. An objective in which the whole front is equal has no room inside.

    Args:
        scores: float32 [n, M], finite where the rank is one of a front.
        ranks: int32 [n], as `ranks` gives them; n where there is none.

    Returns:
        float32 [n]; of no meaning where there is no rank.
    """
    count = ranks.size

    def along(values: Array) -> Array:
        order = jnp.lexsort((values, ranks))
        value, rank = values[order], ranks[order]
        change = rank[1:] != rank[:-1]
        end = jnp.ones(1, bool)
        starts, stops = jnp.concatenate([end, change]), jnp.concatenate([change, end])
        low = jnp.full(count + 1, jnp.inf, jnp.float32).at[rank].min(value)
        high = jnp.full(count + 1, -jnp.inf, jnp.float32).at[rank].max(value)
        span = (high - low)[rank]
        gap = jnp.roll(value, -1) - jnp.roll(value, 1)
        room = jnp.where(span > 0, gap / jnp.where(span > 0, span, 1.0), 0.0)
        return jnp.zeros(count, jnp.float32).at[order].set(jnp.where(starts | stops, jnp.inf, room))

    there = jnp.where((ranks < count)[:, None], scores, 0.0)
    return jnp.sum(jax.vmap(along, in_axes=1)(there), axis=0)
