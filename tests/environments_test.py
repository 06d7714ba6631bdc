"""Every Brax environment on each of its backends, under a search and under the runner."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.environments import ENVIRONMENTS, ONLY, combinations, one_generation, small_config
from esenas_jax import tasks
from experiments.build import plan

TABLE = Path(__file__).parent.parent / "benchmarks" / "results" / "cpu" / "environments.json"
# What compiles in seconds: it has no physics.
QUICK = ("fast", "spring")


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_steps_through_a_generation(name):
    """Half a minute each, to compile. `benchmarks.environments` has all backends."""
    backend = ONLY.get(name, ("spring",))[0]
    search = plan(small_config(name, backend)).search
    key = jax.random.key(0)
    state = jax.jit(search.init)(key)
    before = state.strategy.params
    state, metrics = jax.jit(search.step)(key, state)
    assert np.isfinite(metrics.exact_mean)
    assert (metrics.failed, metrics.episodes) == (0, 5)
    assert 5 <= metrics.steps <= 5 * 16
    assert 1 <= metrics.episode_length <= 16
    assert np.isfinite(state.strategy.params).all()
    # Equal scores move nothing: of "fast" for every action, of a pendulum as long as it stands.
    moved = not np.array_equal(state.strategy.params, before)
    assert moved == (metrics.fitness_max > metrics.fitness_min)


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        QUICK,
        *(pytest.param("inverted_pendulum", b, marks=pytest.mark.slow) for b in tasks.BACKENDS),
    ],
)
def test_the_runner_trains_and_measures_on_every_backend(name, backend, tmp_path):
    result = one_generation(name, backend, tmp_path)
    assert np.isfinite(result["return"]["mean"])
    assert result["failed_episodes"] == 0
    assert result["generations"] == 1
    assert 0 < result["env_steps"] <= 5 * 16
    assert 0 < result["episode_length"]["mean"] <= 16


def test_the_table_has_every_environment_that_brax_registers():
    assert sorted(ENVIRONMENTS) == tasks.brax_environments()
    for name, backends in ONLY.items():
        for backend in set(tasks.BACKENDS) - set(backends):
            with pytest.raises(ValueError, match=f"Brax cannot make {name} with"):
                tasks.brax_environment(name, backend)
    committed = json.loads(TABLE.read_text())["rows"]
    assert [row["name"] for row in committed] == [f"{n}, {b}" for n, b in combinations()]
    assert all(np.isfinite(row["value"]) for row in committed)
