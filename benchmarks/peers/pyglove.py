"""PyGlove's regularized evolution: proposals a second, results heard included.

16 of the 64 edges of an 8-8 network. The spaces of the papers, 64 of 736 edges, take PyGlove a
minute to build and a thirtieth of a second for every proposal.
"""

from typing import Any

import jax
import numpy as np

from benchmarks.measure import Row, paired_ratio
from esenas_jax import controllers, policies
from esenas_jax.types import Key, PyTree

INPUTS, OUTPUTS, KEPT = 8, 8, 16
POPULATION, TOURNAMENT = 64, 8
THEIRS = 64  # proposals in one timing of PyGlove
OURS = 6400  # and of ours, in generations of 64


def rows(pairs: int) -> list[Row]:
    """Time both in turn, each with a full population."""
    import pyglove as pg

    edges = INPUTS * OUTPUTS
    space: Any = pg.sublist_of(
        KEPT, candidates=range(edges), choices_sorted=False, choices_distinct=True
    )
    evolution: Any = pg.evolution.regularized_evolution(
        population_size=POPULATION, tournament_size=TOURNAMENT, seed=0
    )
    evolution.setup(pg.template(space).dna_spec())
    scores = np.random.default_rng(0)

    def theirs() -> None:
        for _ in range(THEIRS):
            dna = evolution.propose()
            evolution.feedback(dna, float(scores.normal()))

    theirs()  # the population is full

    policy = policies.edge_pruned(INPUTS, (), OUTPUTS, num_edges=KEPT)
    controller = controllers.regularized_evolution(policy.space, POPULATION, TOURNAMENT)
    ids = jax.numpy.arange(POPULATION)

    def generation(state: PyTree, key: Key) -> tuple[PyTree, None]:
        k_plan, k_propose, k_score, k_update = jax.random.split(key, 4)
        plan = controller.prepare(k_plan, state)
        genotypes, info = jax.vmap(
            lambda i: controller.propose(jax.random.fold_in(k_propose, i), plan, i)
        )(ids)
        score = jax.random.normal(k_score, (POPULATION,))
        valid = jax.numpy.ones(POPULATION, bool)
        return controller.update(k_update, state, genotypes, info, score, valid)[0], None

    keys = jax.random.split(jax.random.key(0), OURS // POPULATION)
    run = jax.jit(lambda state: jax.lax.scan(generation, state, keys)[0])
    state = run(controller.init(jax.random.key(0)))  # the population is full
    ratio, interval, times = paired_ratio(theirs, lambda: run(state), pairs)
    thousands = OURS / THEIRS / 1000
    print(
        f"evolution, {KEPT} of {edges} edges: PyGlove {THEIRS / np.median(times[:, 0]):,.0f} "
        f"proposals/s, ours {OURS / np.median(times[:, 1]):,.0f}."
    )
    return [
        Row(
            f"evolution, {KEPT} of {edges} edges: time a proposal, PyGlove / ours",
            thousands * ratio,
            (thousands * interval[0], thousands * interval[1]),
            "thousand x",
        )
    ]
