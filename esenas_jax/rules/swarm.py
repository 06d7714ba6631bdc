"""Particle swarm: learners are drawn to where they, and the best of them, have been."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.rules.rule import Metrics, Moved, Rule, params_of, with_params
from esenas_jax.search import SearchState
from esenas_jax.types import Array, Key


class Memory(NamedTuple):
    """What the swarm knows, by slot."""

    velocity: Array  # float32 [M, P]
    best: Array  # float32 [M, P], the weights that scored best
    scores: Array  # float32 [M], of them


def swarm(
    inertia: float = 0.7, own_pull: float = 1.5, best_pull: float = 1.5, step: float = 1.0
) -> Rule:
    """Return the rule that moves learners as particles, with their own step as one force more.

        v <- inertia v + own_pull r (own - x) + best_pull r' (best - x) + step (y - x)
        x <- x + v

    x are the weights that were scored and y where the learner's own update led; `own` the best
    weights of the slot so far and `best` the best of all; r and r' are uniform in [0, 1), drawn for
    every weight. With step = 0 this is the textbook's particle swarm with inertia (Shi and
    Eberhart, "A modified particle swarm optimizer", 1998). Weights alone move.

    Args:
        inertia: of the velocity, at least 0; below 1 it dies down.
        own_pull: to the slot's best weights, at least 0.
        best_pull: to the population's, at least 0.
        step: how much of the learner's own step is added, at least 0.

    Raises:
        TypeError, ValueError: if a number is outside its range.
    """
    inertia = _checks.real("inertia", inertia, 0.0)
    own_pull = _checks.real("own_pull", own_pull, 0.0)
    best_pull = _checks.real("best_pull", best_pull, 0.0)
    step = _checks.real("step", step, 0.0)

    def init(learners: SearchState, number: int) -> Memory:
        params = params_of(learners)
        worst = jnp.full(number, -jnp.inf, jnp.float32)
        return Memory(jnp.zeros_like(params), params, worst)

    def apply(key: Key, memory: Memory, moved: Moved) -> tuple[Memory, Moved, Metrics]:
        x, y = params_of(moved.before), params_of(moved.after)
        better = moved.scores > memory.scores
        own = jnp.where(better[:, None], x, memory.best)
        scores = jnp.where(better, moved.scores, memory.scores)
        best = own[jnp.argmax(scores)]
        # Nobody is drawn to where nothing was scored.
        known = jnp.isfinite(scores)[:, None]
        to_own = jnp.where(known, own - x, 0.0)
        to_best = jnp.where(known.any(), best[None] - x, 0.0)
        k_own, k_best = jax.random.split(key)
        velocity = (
            inertia * memory.velocity
            + own_pull * jax.random.uniform(k_own, x.shape, x.dtype) * to_own
            + best_pull * jax.random.uniform(k_best, x.shape, x.dtype) * to_best
            + step * (y - x)
        )
        # Who overflows stands still: nothing would ever bring such weights back.
        sound = jnp.isfinite(x + velocity).all(axis=1, keepdims=True)
        velocity = jnp.where(sound, velocity, 0.0)
        moved = moved._replace(after=with_params(moved.after, x + velocity))
        speed = jnp.mean(jnp.linalg.norm(velocity, axis=1))
        return Memory(velocity, own, scores), moved, {"speed": speed}

    return Rule(init, apply, least=2)
