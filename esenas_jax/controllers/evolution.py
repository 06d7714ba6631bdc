"""Regularized evolution: tournaments in an ageing population."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.controllers.controller import Controller, Metrics
from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key, PyTree


class State(NamedTuple):
    """The most recent members that were evaluated, oldest first; empty places come before them."""

    genotypes: Genotype  # [population_size]
    scores: Array  # float32 [population_size], -inf in an empty place
    members: Array  # int32 [], how many places are filled


class Plan(NamedTuple):
    """What all proposals of a generation share."""

    genotypes: Genotype  # [population_size], best first
    survival: Array  # float32 [population_size], see `prepare`
    fresh: Array  # bool [], whether proposals are still uniform


def regularized_evolution(
    space: Space,
    population_size: int,
    tournament_size: int | None = None,
    num_best: int = 8,
    local: bool = False,
) -> Controller:
    """Return regularized evolution (Real et al., AAAI 2019) with PyGlove's rules.

    Proposals are uniform until `population_size` candidates have been evaluated. Afterwards a
    proposal draws `tournament_size` members without replacement and mutates the best of them once.
    The population is the `population_size` members evaluated most recently; failed candidates
    never enter it.

    Args:
        space: any.
        population_size: at least 2. The released setting is the candidates of a generation, as it
            is in config files that do not set it; a larger one stays uniform for longer.
        tournament_size: in [2, population_size]; released floor(sqrt(population_size)), by default.
        num_best: how many architectures `best` offers for re-evaluation, at least 1; at most the
            population.
        local: mutations change one value, and always do, see `Space.mutate`; released False,
            PyGlove's `Uniform`.

    Raises:
        ValueError: if the tournament is larger than the population, or a number out of range.
    """
    size = _checks.integer("population_size", population_size, 2)
    if tournament_size is None:
        tournament_size = max(2, math.isqrt(size))
    tournament = _checks.integer("tournament_size", tournament_size, 2, size)
    num_best = min(_checks.integer("num_best", num_best, 1), size)

    def init(key: Key) -> State:
        # Placeholders of the right shapes: an empty place is never a parent.
        return State(
            genotypes=space.sample(key, (size,)),
            scores=jnp.full(size, -jnp.inf, jnp.float32),
            members=jnp.int32(0),
        )

    def prepare(key: Key, state: State) -> Plan:
        # The winner of a tournament of T among M members has rank >= r (0 is best) with probability
        # C(M - r, T) / C(M, T) = prod_{q < r} (M - q - T) / (M - q), so it can be drawn by its rank
        # from one uniform number. Equal scores change places at random once a generation.
        shuffled = jax.random.permutation(key, size)
        order = shuffled[jnp.argsort(state.scores[shuffled], descending=True)]
        left = (state.members - jnp.arange(size, dtype=jnp.int32)).astype(jnp.float32)
        factors = jnp.maximum(left - tournament, 0.0) / jnp.maximum(left, 1.0)
        return Plan(
            genotypes=jax.tree.map(lambda x: x[order], state.genotypes),
            survival=jnp.cumprod(factors),  # P(rank >= r + 1) at r
            fresh=state.members < size,
        )

    def propose(key: Key, plan: Plan, i: Array) -> tuple[Genotype, PyTree]:
        del i
        k_parent, k_mutate, k_fresh = jax.random.split(key, 3)
        u = jax.random.uniform(k_parent, dtype=jnp.float32)
        rank = jnp.sum(plan.survival > u, dtype=jnp.int32)
        parent = jax.tree.map(lambda x: x[rank], plan.genotypes)
        # Of the two only one is carried out: the plan is the same for all candidates.
        genotype = jax.lax.cond(
            plan.fresh,
            lambda: space.sample(k_fresh),
            lambda: space.mutate(k_mutate, parent, local),
        )
        return genotype, jnp.where(plan.fresh, -1, rank)

    def update(
        key: Key, state: State, genotypes: Genotype, info: Array, scores: Array, valid: Array
    ) -> tuple[State, Metrics]:
        del key
        # Oldest first, with everything that is no member moved to the front: the last `size`
        # entries are the new population.
        member = jnp.concatenate([jnp.arange(size, dtype=jnp.int32) >= size - state.members, valid])
        recent = jnp.argsort(member, stable=True)[-size:]
        joined = jnp.concatenate([state.scores, jnp.where(valid, scores, -jnp.inf)])
        new = State(
            genotypes=jax.tree.map(
                lambda old, fresh: jnp.concatenate([old, fresh])[recent], state.genotypes, genotypes
            ),
            scores=joined[recent],
            members=jnp.minimum(state.members + jnp.sum(valid, dtype=jnp.int32), size),
        )
        filled = jnp.isfinite(new.scores)
        mean = jnp.sum(jnp.where(filled, new.scores, 0.0)) / jnp.maximum(new.members, 1).astype(
            jnp.float32
        )
        return new, {
            "population_mean": mean,
            "population_max": jnp.max(new.scores),
            "share_random": jnp.mean((info < 0).astype(jnp.float32)),
        }

    def best(state: State) -> tuple[Genotype, Array]:
        order = jnp.argsort(state.scores, descending=True)[:num_best]
        top = jax.tree.map(lambda x: x[order], state.genotypes)
        return top, jnp.arange(num_best, dtype=jnp.int32) < state.members

    return Controller(
        space=space, init=init, prepare=prepare, propose=propose, update=update, best=best
    )
