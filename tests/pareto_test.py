"""Dominance, fronts and crowding, against the transcription of the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import pareto
from tests.reference import nsga2 as reference

ranks, crowding = jax.jit(pareto.ranks), jax.jit(pareto.crowding)


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("levels", [3, 8, 10**6])  # few levels: many ties
def test_fronts_and_crowding_are_those_of_the_reference(objectives, levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        scores = rng.integers(0, levels, (30, objectives)).astype(np.float32)
        valid = rng.random(30) > 0.2
        kept = np.flatnonzero(valid)
        fronts = [kept[f] for f in reference.fast_non_dominated_sort(scores[valid].tolist())]
        poisoned = np.where(valid[:, None], scores, rng.choice([np.nan, np.inf, -np.inf, 1e9]))
        found = ranks(jnp.asarray(poisoned), jnp.asarray(valid), 30)
        expected = np.full(30, 30)
        for rank, front in enumerate(fronts):
            expected[front] = rank
        np.testing.assert_array_equal(found, expected)

        room = np.asarray(crowding(jnp.asarray(poisoned), found))
        for front in fronts:
            distance = reference.crowding_distance_assignment(scores[front].tolist())
            np.testing.assert_allclose(room[front], distance, rtol=1e-5)

        # Only as many fronts as are needed.
        for enough in (1, 7, 15):
            found = np.asarray(ranks(jnp.asarray(poisoned), jnp.asarray(valid), enough))
            last = next(r for r in range(len(fronts)) if sum(map(len, fronts[: r + 1])) >= enough)
            np.testing.assert_array_equal(found, np.where(expected <= last, expected, 30))


def test_of_none_there_is_no_front():
    nothing = jnp.full((4, 2), -jnp.inf, jnp.float32)
    assert ranks(nothing, jnp.zeros(4, bool), 4).tolist() == [4] * 4
    assert crowding(nothing, jnp.full(4, 4, jnp.int32)).shape == (4,)


def test_many_runs_are_each_alone_under_vmap():
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.integers(0, 5, (6, 12, 2)), jnp.float32)
    valid = jnp.asarray(rng.random((6, 12)) > 0.3)
    together = jax.vmap(pareto.ranks, (0, 0, None))(scores, valid, 5)
    room = jax.vmap(pareto.crowding)(scores, together)
    for r in range(6):
        alone = ranks(scores[r], valid[r], 5)
        np.testing.assert_array_equal(together[r], alone)
        np.testing.assert_array_equal(room[r], crowding(scores[r], alone))
