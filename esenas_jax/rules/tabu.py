"""Tabu search: learners stay away from where they have been, or from the best of them."""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.rules.rule import Metrics, Moved, Rule, params_of, unit, with_params
from esenas_jax.search import SearchState
from esenas_jax.types import Array, Key

# weights [P] -> what distances are measured between, float32 [F]: the weights themselves, or what
# a network does on a batch of observations
Behaviour = Callable[[Array], Array]


class Ring(NamedTuple):
    """The last R places where a slot has been, by slot."""

    params: Array  # float32 [M, R, P]
    behaviour: Array  # float32 [M, R, F]
    visits: Array  # int32 [], how many there were; the ring holds the last R
    best: Array  # float32 [M], the highest score there


def tabu(radius: float, ring_size: int = 16, behaviour: Behaviour | None = None) -> Rule:
    """Return the rule that keeps a learner away from where its slot has been.

    A move that ends less than `radius` from one of the last `ring_size` places is tabu: it goes on,
    away from the centre of those it is too near to, in steps of half a radius, until it is free.
    Between weights a free place is found in at most 4 ring_size steps, since a straight line runs
    2 radius at most through each of the balls; with another behaviour the search ends after as
    many, wherever it is then.

    Aspiration: a slot that has just scored higher than ever before moves as it likes.

    Args:
        radius: distance, positive, in the unit of the behaviour.
        ring_size: R, at least 1. The ring takes 4 M R (P + F) bytes.
        behaviour: distances are Euclidean between its values; by default between weights.

    Raises:
        TypeError, ValueError: if a number is outside its range; when learners begin, if the ring
            would be larger than the machine's memory.
    """
    radius = _checks.positive("radius", radius)
    ring_size = _checks.integer("ring_size", ring_size, 1)
    most = 4 * ring_size
    shown: Behaviour = behaviour or (lambda params: params)

    def init(learners: SearchState, number: int) -> Ring:
        size = params_of(learners).shape[1]
        features = jax.eval_shape(shown, jax.ShapeDtypeStruct((size,), jnp.float32)).size
        needed = 4 * number * ring_size * (size + features)
        if needed > (available := _memory()):
            raise ValueError(
                f"ring_size must be such that the rings fit into {available / 2**30:.3g} GiB of "
                f"memory, got {ring_size}: {number} learners of {size} weights take "
                f"{needed / 2**30:.3g} GiB."
            )
        return Ring(
            params=jnp.zeros((number, ring_size, size), jnp.float32),
            behaviour=jnp.zeros((number, ring_size, features), jnp.float32),
            visits=jnp.int32(0),
            best=jnp.full(number, -jnp.inf, jnp.float32),
        )

    def free(key: Key, ring: Array, seen: Array, filled: Array, y: Array) -> tuple[Array, Array]:
        """Return where a move to y [P] ends instead, and whether it was tabu."""

        def near(y: Array) -> Array:
            return filled & (jnp.linalg.norm(seen - shown(y)[None], axis=1) < radius)

        within = near(y)
        count = jnp.maximum(jnp.sum(within, dtype=jnp.float32), 1.0)
        centre = jnp.sum(jnp.where(within[:, None], ring, 0.0), axis=0) / count
        away = unit((y - centre)[None], key)[0] * (radius / 2.0)

        def goes_on(carry: tuple[Array, Array]) -> Array:
            return jnp.any(near(carry[1])) & (carry[0] < most)

        def further(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            # From y, not from the last place: the sum of many steps would round.
            j = carry[0] + 1
            return j, y + j.astype(jnp.float32) * away

        return jax.lax.while_loop(goes_on, further, (jnp.int32(0), y))[1], jnp.any(within)

    def apply(key: Key, memory: Ring, moved: Moved) -> tuple[Ring, Moved, Metrics]:
        y, number = params_of(moved.after), moved.scores.size
        filled = jnp.arange(ring_size, dtype=jnp.int32) < memory.visits
        ends, was_tabu = jax.vmap(free, (0, 0, 0, None, 0))(
            jax.random.split(key, number), memory.params, memory.behaviour, filled, y
        )
        aspires = moved.scores > memory.best
        pushed = was_tabu & ~aspires
        x, place = params_of(moved.before), memory.visits % ring_size
        ring = Ring(
            params=memory.params.at[:, place].set(x),
            behaviour=memory.behaviour.at[:, place].set(jax.vmap(shown)(x)),
            visits=memory.visits + 1,
            best=jnp.maximum(memory.best, moved.scores),
        )
        after = with_params(moved.after, jnp.where(pushed[:, None], ends, y))
        metrics = {"tabu": jnp.mean(pushed, dtype=jnp.float32)}
        return ring, moved._replace(after=after), metrics

    return Rule(init, apply)


def apart(radius: float) -> Rule:
    """Return the rule that keeps learners away from the best of the population.

    A move that ends less than `radius` from where the best learner's ends goes on, away from it, to
    that distance. The best learner itself moves as it likes.

    Args:
        radius: distance between weights, positive.

    Raises:
        TypeError, ValueError: if it is not.
    """
    radius = _checks.positive("radius", radius)

    def apply(key: Key, memory: tuple[()], moved: Moved) -> tuple[tuple[()], Moved, Metrics]:
        y, best = params_of(moved.after), jnp.argmax(moved.scores)
        away = y - y[best][None]
        near = jnp.linalg.norm(away, axis=1) < radius
        near = near & (jnp.arange(y.shape[0], dtype=jnp.int32) != best)
        near = near & jnp.isfinite(moved.scores[best])
        pushed = jnp.where(near[:, None], y[best][None] + radius * unit(away, key), y)
        metrics = {"near_the_best": jnp.mean(near, dtype=jnp.float32)}
        return memory, moved._replace(after=with_params(moved.after, pushed)), metrics

    return Rule(lambda learners, number: (), apply, least=2)


def _memory() -> int:
    """Return how many bytes the first device can hold."""
    found = jax.devices()[0].memory_stats() or {}
    return found.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
