"""What rules of a population of learners are: what they see, and what they may change."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax.search import SearchState
from esenas_jax.types import Array, Key, PyTree, Shared

Metrics = dict[str, Array]


class Moved(NamedTuple):
    """M learners that have just made a generation; every leaf but `Shared` ones has a leading [M].

    Exact evaluations are of the weights that a generation begins with, so what is known of a
    learner is how good it was before its move.
    """

    before: SearchState  # the learners that were scored
    after: SearchState  # where their generation led them
    scores: Array  # float32 [M], the mean exact score of `before`; -inf where all of them failed


class Rule(NamedTuple):
    """How learners learn from each other, and from their past: pure functions.

    Learners take part by slot. What a rule remembers belongs to the slot, whoever is in it.
    """

    init: Callable[[SearchState, int], PyTree]  # learners [M], M -> memory
    # key, memory, moved -> memory, moved, metrics. What it changes of `before` and `scores` is what
    # the rules after it are to believe.
    apply: Callable[[Key, PyTree, Moved], tuple[PyTree, Moved, Metrics]]
    least: int = 1  # learners that it takes


def compose(*rules: Rule) -> Rule:
    """Return the rules one after the other, each of which sees what those before it made.

    Without any, learners ignore each other.

    Example:
        >>> from esenas_jax import rules
        >>> both = rules.compose(rules.annealing(temperature=0.1), rules.culling())
        >>> both.least
        2
    """

    def init(learners: SearchState, number: int) -> tuple[PyTree, ...]:
        return tuple(rule.init(learners, number) for rule in rules)

    def apply(key: Key, memory: tuple, moved: Moved) -> tuple[tuple, Moved, Metrics]:
        new, metrics = [], {}
        for j, (rule, old) in enumerate(zip(rules, memory, strict=True)):
            mine, moved, seen = rule.apply(jax.random.fold_in(key, j), old, moved)
            new.append(mine)
            metrics |= seen
        return tuple(new), moved, metrics

    return Rule(init, apply, max((rule.least for rule in rules), default=1))


def params_of(learners: SearchState) -> Array:
    """Return the weights of learners, [M, P]."""
    return learners.strategy.params


def with_params(learners: SearchState, params: Array) -> SearchState:
    """Return learners with other weights [M, P], and all else as it was."""
    return learners._replace(strategy=learners.strategy._replace(params=params))


def each(f: Callable[..., Array], *states: PyTree) -> PyTree:
    """Apply f to the leaves of states, but leave what learners share as it is in the first."""
    return jax.tree.map(
        lambda *xs: xs[0] if isinstance(xs[0], Shared) else f(*xs),
        *states,
        is_leaf=lambda x: isinstance(x, Shared),
    )


def taken(states: PyTree, which: Array) -> PyTree:
    """Return states by slot, [M] from [M]: the learner in slot which[m] for slot m."""
    return each(lambda x: x[which], states)


def chosen(flag: Array, new: PyTree, old: PyTree) -> PyTree:
    """Return, by slot, the new state where flag [M], and the old one elsewhere."""

    def one(x: Array, y: Array) -> Array:
        return jnp.where(flag.reshape(flag.shape + (1,) * (x.ndim - 1)), x, y)

    return each(one, new, old)


def unit(vectors: Array, key: Key) -> Array:
    """Return vectors [M, P] at length 1, and a random direction for those that have none."""
    length = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    random = jax.random.normal(key, vectors.shape, vectors.dtype)
    random = random / jnp.linalg.norm(random, axis=1, keepdims=True)
    return jnp.where(length > 0, vectors / jnp.where(length > 0, length, 1.0), random)
