"""Controllers whose proposals come from the host: any algorithm of PyGlove.

The device keeps what was handed in and what came of it; the algorithm itself is in `pyglove_host`.
A generation is the same program as with any other controller.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.controllers.controller import Controller, Host, Metrics
from esenas_jax.controllers.random import random
from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key, PyTree

if TYPE_CHECKING:
    import pyglove as pg


class Round(NamedTuple):
    """What the host handed in, and what came of it."""

    genotypes: Genotype  # [N], by the candidate that proposes
    proposer: Array  # int32 [N], of each result: the candidate whose proposal it is of
    scores: Array  # float32 [N], of several objectives [N, M]
    valid: Array  # bool [N], whether there is a result that did not fail


class Asked(NamedTuple):
    """Which proposal a candidate runs, int32 [] each."""

    proposer: Array
    round: Array


class State(NamedTuple):
    """The device's side of the exchange."""

    seed: Array  # int32 [], of what the algorithm draws without a seed of its own
    told: Array  # int32 [], rounds that ended with results
    round: Round  # the latest: of its results those of the round before, until there are new ones
    best: PyTree  # as `random` has it


def pyglove(
    space: Space,
    algorithm: "pg.DNAGenerator",
    num_candidates: int,
    spec: "pg.DNASpec | None" = None,
    num_best: int = 8,
    num_objectives: int = 1,
) -> Controller:
    """Return the controller that asks an algorithm of PyGlove, on the host.

    `search.host()` starts the algorithm for a run, and its `exchange` goes before every generation:

        host = search.host()
        for _ in range(generations):
            state = state._replace(controller=host.exchange(state.controller))
            state, metrics = step(run_key, state)

    The algorithm hears of every proposal that was evaluated, in the order of the candidates, as in
    the released code: its score, a float (a tuple of several objectives), and the mean of the two
    where a pair shares an architecture. Of a failed candidate it hears nothing, as of a worker that
    PyGlove has lost, and nothing of results that come after the next exchange. What it draws is
    decided by the run key, unless it has a seed of its own.

    Args:
        space: of the policy.
        algorithm: any `pg.DNAGenerator`: those of `pg.evolution`, `pg.geno.Random`, one's own. Each
            run has a copy of its own, as it was made.
        num_candidates: N, of the search.
        spec: PyGlove's specification of the space, where algorithm or user know its names
            (`Translation.spec`). By default that of `to_pyglove`, which takes half a minute for 64
            of 736 items; it is built when the algorithm is started.
        num_best: how many architectures of the latest generation `best` offers for re-evaluation,
            at least 1, by the first objective. Scores of earlier generations belong to other
            weights.
        num_objectives: M, at least 1; above 1 of an algorithm for several, `pg.evolution.nsga2`.

    Raises:
        TypeError: if the algorithm is none of PyGlove's.
        ValueError: if a number is out of range, there is only one architecture, or several
            objectives for an algorithm that hears of one.
    """
    import pyglove as pg  # here, because it takes its time

    if not isinstance(algorithm, pg.DNAGenerator):
        raise TypeError(f"algorithm must be a pg.DNAGenerator, got {algorithm!r}.")
    if space.log_cardinality == 0.0:
        raise ValueError(
            f"the space must have several architectures, got {space}: controllers.constant "
            "proposes the one that it has."
        )
    num_candidates = _checks.integer("num_candidates", num_candidates, 1)
    if _checks.integer("num_objectives", num_objectives, 1) > 1 and not algorithm.multi_objective:
        raise ValueError(
            f"num_objectives must be 1 of an algorithm that hears of one, got {num_objectives}."
        )
    row = () if num_objectives == 1 else (num_objectives,)
    latest = random(space, num_best)  # of several objectives it goes by the first

    def init(key: Key) -> State:
        k_seed, k_genotypes, k_best = jax.random.split(key, 3)
        return State(
            seed=jax.random.randint(k_seed, (), 0, 2**31 - 1, jnp.int32),
            told=jnp.int32(0),
            round=Round(
                genotypes=space.sample(k_genotypes, (num_candidates,)),  # until the first exchange
                proposer=jnp.zeros(num_candidates, jnp.int32),
                scores=jnp.zeros((num_candidates, *row), jnp.float32),
                valid=jnp.zeros(num_candidates, bool),
            ),
            best=latest.init(k_best),
        )

    def update(
        key: Key, state: State, genotypes: Genotype, info: Asked, scores: Array, valid: Array
    ) -> tuple[State, Metrics]:
        if valid.size > num_candidates:
            raise ValueError(
                f"num_candidates must be that of the search, {valid.size}, got {num_candidates}."
            )
        # Late results are of architectures that another round has taken the places of.
        now = info.round == state.told
        valid = valid & now

        def padded(x: Array) -> Array:
            # Candidates that never came back have no results.
            return jnp.zeros((num_candidates, *x.shape[1:]), x.dtype).at[: valid.size].set(x)

        proposer = padded(info.proposer)
        results = Round(state.round.genotypes, proposer, padded(scores), padded(valid))
        first = scores[:, 0] if row else scores
        best, _ = latest.update(key, state.best, genotypes, info, first, valid)
        told = State(state.seed, state.told + 1, results, best)
        return jax.tree.map(lambda x, y: jnp.where(now.any(), x, y), told, state), {}

    def host(proposers: Sequence[int]) -> Host:
        from esenas_jax.controllers.pyglove_host import PyGloveHost

        return PyGloveHost(space, algorithm, proposers, spec)

    return Controller(
        space=space,
        init=init,
        prepare=lambda key, state: state,
        propose=lambda key, plan, i: (
            jax.tree.map(lambda x: x[i], plan.round.genotypes),
            Asked(i, plan.told),
        ),
        update=update,
        best=lambda state: latest.best(state.best),
        num_objectives=num_objectives,
        host=host,
    )
