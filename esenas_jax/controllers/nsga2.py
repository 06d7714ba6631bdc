"""NSGA-II: a population along the Pareto front of several objectives."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks, pareto
from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.spaces import Space, same
from esenas_jax.types import Array, Genotype, Key


class Hyper(NamedTuple):
    """Numbers that can vary from run to run without a new compilation, float32 []."""

    crossover_rate: Array


class State(NamedTuple):
    """The population. Empty places, while there are any, come last."""

    hyper: Hyper
    genotypes: Genotype  # [population_size]
    scores: Array  # float32 [population_size, M], -inf in an empty place
    members: Array  # int32 [], how many places are filled


class Plan(NamedTuple):
    """What all proposals of a generation share."""

    state: State
    order: Array  # int32 [population_size], places by rank and crowding distance, the best first
    turns: Array  # int32 [population_size], places in the order in which they run again
    fresh: Array  # bool [], whether proposals are still uniform


def nsga2(
    space: Space,
    population_size: int,
    num_objectives: int = 2,
    crossover_rate: float = 0.9,
    num_incumbents: int | None = None,
    num_best: int = 16,
    local: bool = False,
) -> Controller:
    """Return NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 2002).

    Proposals are uniform until `population_size` candidates have been evaluated. Afterwards both
    parents of a proposal win a binary tournament, by rank (which front of the non-dominated sort)
    and then by crowding distance; they are crossed with probability `crossover_rate`, else it is
    the first of them, and one decision is mutated. The best `population_size` of the population and
    of what was evaluated survive, by the same order, equals at random. Failed candidates never
    enter.

    Architectures are discrete, and copies would crowd the others out: of those that are the same
    in architecture and scores one is ranked, the rest comes after all fronts. The paper ranks them
    all.

    The paper's objectives are exact, so that a member is evaluated once. A return is not, and it is
    one of weights that change: a lucky one would stand in the front for ever. So the first
    `num_incumbents` candidates of a generation run members again, each a different one, drawn at
    random, and what they score replaces what the member had.

    Args:
        space: any.
        population_size: at least 2. As many as the candidates of a generation in config files that
            do not set it.
        num_objectives: M, at least 2.
        crossover_rate: in [0, 1]; the paper's 0.9.
        num_incumbents: how many candidates of a generation run a member again, at most the
            population; a quarter of it by default, 0 as in the paper.
        num_best: how many of the first front `best` offers, at least 1; those with the most room
            around them if there are more; ordered by the first objective, the highest first.
        local: mutations change one value, and always do, see `Space.mutate`.

    Raises:
        TypeError, ValueError: if a number is out of range.
    """
    size = _checks.integer("population_size", population_size, 2)
    num_objectives = _checks.integer("num_objectives", num_objectives, 2)
    crossover_rate = _checks.real("crossover_rate", crossover_rate, 0.0, 1.0)
    if num_incumbents is None:
        num_incumbents = size // 4
    num_incumbents = _checks.integer("num_incumbents", num_incumbents, 0, size)
    num_best = min(_checks.integer("num_best", num_best, 1), size)
    places = jnp.arange(size, dtype=jnp.int32)

    def init(key: Key) -> State:
        # Placeholders of the right shapes: an empty place is never a parent.
        return State(
            hyper=Hyper(jnp.asarray(crossover_rate, jnp.float32)),
            genotypes=space.sample(key, (size,)),
            scores=jnp.full((size, num_objectives), -jnp.inf, jnp.float32),
            members=jnp.int32(0),
        )

    def prepare(key: Key, state: State) -> Plan:
        k_order, k_turns = jax.random.split(key)
        member = places < state.members
        order, _ = _best_first(k_order, state.genotypes, state.scores, member, size)
        return Plan(
            state=state,
            order=order,
            turns=jax.random.permutation(k_turns, size).astype(jnp.int32),
            fresh=state.members < size,
        )

    def propose(key: Key, plan: Plan, i: Array) -> tuple[Genotype, Array]:
        k_fresh, k_parents, k_rate, k_cross, k_mutate = jax.random.split(key, 5)

        def tournament(key: Key) -> Genotype:
            k_first, k_other = jax.random.split(key)
            first = jax.random.randint(k_first, (), 0, size, jnp.int32)
            other = (first + jax.random.randint(k_other, (), 1, size, jnp.int32)) % size
            winner = plan.order[jnp.minimum(first, other)]
            return jax.tree.map(lambda x: x[winner], plan.state.genotypes)

        again = i < num_incumbents
        turn = plan.turns[jnp.minimum(i, size - 1)]

        def bred() -> Genotype:
            mother, father = (tournament(k) for k in jax.random.split(k_parents))
            crosses = (
                jax.random.uniform(k_rate, dtype=jnp.float32) < plan.state.hyper.crossover_rate
            )
            child = jax.tree.map(
                lambda x, y: jnp.where(crosses, x, y),
                space.crossover(k_cross, mother, father),
                mother,
            )
            child = space.mutate(k_mutate, child, local)
            return jax.tree.map(
                lambda member, new: jnp.where(again, member[turn], new),
                plan.state.genotypes,
                child,
            )

        # Of the two only one is carried out: the plan is the same for all candidates.
        genotype = jax.lax.cond(plan.fresh, lambda: space.sample(k_fresh), bred)
        return genotype, jnp.where(~plan.fresh & again, turn, -1)

    def update(
        key: Key, state: State, genotypes: Genotype, info: Array, scores: Array, valid: Array
    ) -> tuple[State, Metrics]:
        # Where the population has moved on since, another one may be in the member's place.
        there = jax.tree.map(lambda x: x[info], state.genotypes)
        again = valid & (info >= 0) & jax.vmap(same)(genotypes, there)
        place = jnp.where(again, info, size)
        times = jnp.zeros(size, jnp.float32).at[place].add(1.0, mode="drop")[:, None]
        sums = jnp.zeros_like(state.scores).at[place].add(scores, mode="drop")
        known = jnp.where(times > 0, sums / jnp.maximum(times, 1.0), state.scores)

        member = jnp.concatenate([places < state.members, valid & ~again])
        joined = jnp.where(member[:, None], jnp.concatenate([known, scores]), -jnp.inf)
        everyone = jax.tree.map(
            lambda old, fresh: jnp.concatenate([old, fresh]), state.genotypes, genotypes
        )
        order, ranks = _best_first(key, everyone, joined, member, size)
        survivors = order[:size]
        new = state._replace(
            genotypes=jax.tree.map(lambda x: x[survivors], everyone),
            scores=joined[survivors],
            members=jnp.minimum(jnp.sum(member, dtype=jnp.int32), size),
        )
        return new, {
            "population_max": jnp.max(new.scores[:, 0]),
            "front_size": jnp.sum(ranks[:size] == 0, dtype=jnp.float32),
            "incumbents": jnp.sum(again, dtype=jnp.float32),
        }

    def best(state: State) -> tuple[Genotype, Array]:
        ranks, room = _ranked(state.genotypes, state.scores, places < state.members, 1)
        roomy = jnp.lexsort((-room, ranks))[:num_best]
        front = ranks[roomy] == 0
        order = jnp.lexsort((-state.scores[roomy, 0], ~front))
        top = jax.tree.map(lambda x: x[roomy[order]], state.genotypes)
        return top, front[order]

    return Controller(
        space=space,
        init=init,
        prepare=prepare,
        propose=propose,
        update=update,
        best=best,
        num_objectives=num_objectives,
        num_incumbents=num_incumbents,
    )


def _best_first(
    key: Key, genotypes: Genotype, scores: Array, valid: Array, enough: int
) -> tuple[Array, Array]:
    """Return indices [n], the best first and equals at random, and their ranks [n]."""
    shuffled = jax.random.permutation(key, valid.size)
    mixed = jax.tree.map(lambda x: x[shuffled], genotypes)
    ranks, room = _ranked(mixed, scores[shuffled], valid[shuffled], enough)
    order = jnp.lexsort((-room, ~valid[shuffled], ranks))
    return shuffled[order], ranks[order]


def _ranked(genotypes: Genotype, scores: Array, valid: Array, enough: int) -> tuple[Array, Array]:
    """Return rank and crowding distance [n], of copies for the first alone; see `pareto`."""
    ranks = pareto.ranks(scores, valid & ~_copies(genotypes, scores, valid), enough)
    return ranks, pareto.crowding(scores, ranks)


def _copies(genotypes: Genotype, scores: Array, valid: Array) -> Array:
    """Return which have the architecture and the scores of a valid one before them, bool [n]."""
    names = _fingerprints(genotypes, len(scores))
    equal = jnp.all(scores[:, None] == scores[None], axis=2) & (names[:, None] == names[None])
    return jnp.any(jnp.tril(equal & valid[None], -1), axis=1)


def _fingerprints(genotypes: Genotype, count: int) -> Array:
    """Return a number for each of `count` architectures, uint32 [n].

    Two that differ have the same one by a chance of 2^-32: to compare all with all, value by value,
    takes half a second for the released 450 candidates with 736 choices.
    """

    def bits(leaf: Array) -> Array:
        whole = leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(jnp.uint32)
        return jax.lax.bitcast_convert_type(whole, jnp.uint32).reshape(count, -1)

    none = jnp.zeros((count, 0), jnp.uint32)
    values = jnp.concatenate([none, *map(bits, jax.tree.leaves(genotypes))], axis=1)
    x = values + jax.random.bits(jax.random.key(0), values.shape[1:], jnp.uint32)[None]
    # The finaliser of MurmurHash3: every bit of a value moves every bit of what it becomes.
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(x ^ (x >> 16), axis=1, dtype=jnp.uint32)
