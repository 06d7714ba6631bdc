"""Culling: the worse half makes way for descendants of the better."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.rules.rule import Metrics, Moved, Rule, params_of, taken, with_params
from esenas_jax.rules.rule import chosen as chosen_by_slot
from esenas_jax.search import SearchState
from esenas_jax.strategies.shaping import reciprocal
from esenas_jax.types import Array, Key

# key, the learners, the slots of the survivors [S], best first -> a newcomer for every slot [M]
Newcomers = Callable[[Key, Moved, Array], Moved]


def clones_of_the_best(key: Key, moved: Moved, survivors: Array) -> Moved:
    """Put the best learner in every slot."""
    del key
    return taken(moved, jnp.broadcast_to(survivors[0], moved.scores.shape))


def _sound(moved: Moved, survivors: Array) -> Array:
    """Return how many survivors have a score, the first ones, int32 []; 1 at least."""
    return jnp.maximum(jnp.sum(jnp.isfinite(moved.scores[survivors]), dtype=jnp.int32), 1)


def clones_of_survivors(key: Key, moved: Moved, survivors: Array) -> Moved:
    """Put a random survivor in every slot, one that did not fail."""
    number = _sound(moved, survivors)
    place = jax.random.randint(key, moved.scores.shape, 0, number, jnp.int32)
    return taken(moved, survivors[place])


def bred(key: Key, moved: Moved, survivors: Array) -> Moved:
    """Put a convex combination of two survivors in every slot, nearer to the better one.

    The better parent's share is 1 / (1 + exp(-d)), d being by how much it scored better, in
    standard deviations of the survivors' scores: a share that neither a shift nor a factor of the
    loss changes. All but the weights is the better parent's: controller, moments, and its score,
    until the newcomer has one.
    """
    better, worse = _parents(key, moved, survivors)
    scores = moved.scores[survivors]
    std = jnp.std(scores, where=jnp.isfinite(scores))
    difference = jnp.nan_to_num(moved.scores[better] - moved.scores[worse])  # if all have failed
    share = jax.nn.sigmoid(difference * reciprocal(jnp.where(std > 0, std, 1.0)))[:, None]
    params = params_of(moved.after)
    return _child(moved, better, share * params[better] + (1.0 - share) * params[worse])


def crossed(key: Key, moved: Moved, survivors: Array) -> Moved:
    """Put a uniform crossover of two survivors in every slot.

    Every weight is one of the parents', each with probability 1/2; all else is the better one's.
    """
    k_parents, k_weights = jax.random.split(key)
    better, worse = _parents(k_parents, moved, survivors)
    params = params_of(moved.after)
    from_better = jax.random.bernoulli(k_weights, 0.5, params.shape)
    return _child(moved, better, jnp.where(from_better, params[better], params[worse]))


def _parents(key: Key, moved: Moved, survivors: Array) -> tuple[Array, Array]:
    """Return the slots of two parents for every slot, [M] and [M], the better one first.

    They are different survivors, where two did not fail.
    """
    number, size = moved.scores.size, _sound(moved, survivors)
    k_first, k_other = jax.random.split(key)
    first = jax.random.randint(k_first, (number,), 0, size, jnp.int32)
    # Survivors stand in order of their scores.
    further = jax.random.randint(k_other, (number,), 0, jnp.maximum(size - 1, 1), jnp.int32)
    other = (first + 1 + further) % size
    return survivors[jnp.minimum(first, other)], survivors[jnp.maximum(first, other)]


def _child(moved: Moved, better: Array, params: Array) -> Moved:
    parent = taken(moved, better)
    return parent._replace(after=with_params(parent.after, params))


def culling(share: float = 0.5, newcomers: Newcomers = clones_of_the_best) -> Rule:
    """Return the rule that replaces the worst learners of the population.

    Slots whose score is among the floor(share M) worst get newcomers. A newcomer is a whole
    learner, its controller included, and goes its own way from there: its slot's key is its own.

    Args:
        share: of the learners that are replaced, in (0, 1).
        newcomers: `clones_of_the_best`, `clones_of_survivors`, `bred` or `crossed`.

    Raises:
        TypeError, ValueError: if `share` is outside its range.
    """
    share = _checks.share("share", share, whole=False)

    def init(learners: SearchState, number: int) -> tuple[()]:
        del learners
        if math.floor(share * number + 1e-9) < 1:
            raise ValueError(
                f"share must be at least 1/{number} of {number} learners, got {share:g}."
            )
        left = number - math.floor(share * number + 1e-9)
        if newcomers in (bred, crossed) and left < 2:
            raise ValueError(
                f"share must leave two of {number} learners to breed, got {share:g}, which leaves "
                f"{left}."
            )
        return ()

    def apply(key: Key, memory: tuple[()], moved: Moved) -> tuple[tuple[()], Moved, Metrics]:
        number = moved.scores.size
        survive = number - math.floor(share * number + 1e-9)
        order = jnp.argsort(-moved.scores).astype(jnp.int32)
        culled = jnp.zeros(number, bool).at[order[survive:]].set(True)
        new = newcomers(key, moved, order[:survive])
        return memory, chosen_by_slot(culled, new, moved), {}

    return Rule(init, apply, least=2)
