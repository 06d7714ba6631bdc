"""The same search on one device and on many: contracts 3 and 4, on eight host devices."""

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from esenas_jax import Population, Search, controllers, es_enas, policies, strategies, tasks
from esenas_jax.answer import choose_answer
from esenas_jax.population import AXIS, sharded
from esenas_jax.types import Evaluation
from experiments import train
from experiments.checkpoints import Checkpoints
from experiments.command_line import load_config
from experiments.workdir import Workdir
from tests.contract_test import COVERING, KEY, SHORT, TWICE, equal, make
from tests.support.compiling import in_a_process

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "experiments" / "configs"
SLOW = pytest.mark.slow
# Episodes, and moments that all devices gather; an update that leaves unused parameters out.
FEW = [TWICE, next(row for row in COVERING if row[2] == "es, of users")]
over_devices = pytest.mark.parametrize(
    "devices", [8, *(pytest.param(n, marks=SLOW) for n in (2, 4))]
)


def pendulum(population: Population) -> Search:
    """15 candidates, 6 directions: neither divides by 2, 4 or 8."""
    task = tasks.episodes(tasks.pendulum(), horizon=24, normalizer=tasks.es_normalizer())
    policy = policies.edge_pruned(3, (8,), 1, num_edges=12)
    return es_enas(
        policy,
        task,
        strategies.es(6, 3, 0.1, 0.05),
        controllers.regularized_evolution(policy.space, 10),
        population=population,
    )


def small(**changes) -> Population:
    return Population(**{"lanes": 2, "refill_every": 7, "chunk": 4, **changes})


@functools.cache
def after(generations: int, devices: int):
    """Return the state after some generations on some devices, and the rows of metrics."""
    if generations == 0:
        search = pendulum(small(devices=devices))
        return jax.device_get(jax.jit(search.init)(KEY)), None, jax.jit(search.step)
    state, rows, step = after(generations - 1, devices)
    state, metrics = jax.device_get(step(KEY, state))
    row = jax.tree.map(lambda x: x[None], metrics)
    rows = jax.tree.map(lambda x, y: np.concatenate([x, y]), rows, row) if rows else row
    return state, rows, step


# --- contract 3 -----------------------------------------------------------------------------------


def train_on(devices: int, folder: str, path: str, horizon: int) -> None:
    """Train the config in a file with eight virtual shards."""
    config = load_config(path)
    config.task.horizon = horizon
    config.update(
        {"devices": devices, "virtual_shards": 8, "generations": 20, "answer_episodes": 16}
    )
    train.train(config, Workdir(Path(folder) / str(devices)))
    print(f"trained on {devices} devices")


def all_that_was_written(folder: Path) -> dict[str, object]:
    with np.load(folder / "policy.npz") as file:
        arrays = {name: file[name] for name in file if name != "config"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len({row["exact_mean"] for row in rows}) == 20  # it moved
    return {
        "policy": arrays,
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "result": (folder / "result.json").read_bytes(),
        "state": Checkpoints(folder / "checkpoints", read_only=True).leaves(20),
    }


def same_bits(folder: Path, path: Path, horizon: int, numbers: tuple[int, ...]) -> None:
    """Fail unless weights, genotypes, scores, all metrics and the answer are the same bits."""
    out = in_a_process(
        "from tests.devices_test import train_on\n"
        f"for devices in {numbers}:\n"
        f"    train_on(devices, {str(folder)!r}, {str(path)!r}, {horizon})\n"
    )
    for devices in numbers:
        assert f"trained on {devices} devices" in out
        assert any(f"on {devices} x cpu" in line for line in out)
    expected = all_that_was_written(folder / str(numbers[0]))
    for devices in numbers[1:]:
        got = all_that_was_written(folder / str(devices))
        for name in expected:
            np.testing.assert_equal(got[name], expected[name], err_msg=f"{name}, {devices} devices")


@pytest.mark.slow
def test_pendulum_is_the_same_bits_on_any_number_of_devices(tmp_path):
    same_bits(tmp_path, CONFIGS / "pendulum_edges.py", 50, (1, 2, 4, 8))


@pytest.mark.slow
def test_hopper_is_the_same_bits_on_one_device_and_on_eight(tmp_path):
    """Minutes: the quickstart, 20 generations of at most 200 steps."""
    same_bits(tmp_path, CONFIGS / "quickstart.py", 200, (1, 8))


def compare(row: tuple[str, ...], devices: int) -> None:
    """Fail unless three generations of a search are the same bits on one device and on many."""

    def run(number: int):
        population = small(devices=number, virtual_shards=devices)
        made = make(*row, population=population)
        state = jax.jit(made.init)(KEY)
        return jax.device_get(jax.jit(made.run, static_argnums=2)(KEY, state, 3))

    assert equal(run(devices), run(1)), row
    print(row)


def compare_in_a_process(rows: list[tuple[str, ...]], devices: int, quick: bool) -> None:
    """With the flag that the promise needs: without it some rows differ by a bit."""
    code = (
        f"from tests.devices_test import compare\nfor row in {rows}:\n    compare(row, {devices})\n"
    )
    assert in_a_process(code, quick) == [str(row) for row in rows]


@pytest.mark.parametrize(
    "rows",
    [FEW, pytest.param(COVERING, marks=SLOW)],
    ids=["two searches", "every search"],
)
def test_every_search_is_the_same_bits_on_one_device_and_on_four(rows):
    compare_in_a_process(rows, 4, quick=rows == FEW)


@pytest.mark.slow
@pytest.mark.short
def test_five_searches_are_the_same_bits_on_one_device_and_on_two():
    compare_in_a_process(SHORT, 2, quick=True)


@over_devices
def test_without_virtual_shards_devices_differ_by_rounding_alone(devices):
    (expected, metrics, _), (got, got_metrics, _) = after(20, 1), after(20, devices)
    first = jax.tree.map(lambda x: x[0], (metrics, got_metrics))
    for x, y in zip(jax.tree.leaves(first[0]), jax.tree.leaves(first[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)
    one, many = after(1, 1)[0], after(1, devices)[0]
    np.testing.assert_allclose(many.strategy.params, one.strategy.params, rtol=1e-4, atol=1e-6)
    for x, y in zip(many.moments, one.moments, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4)
    assert np.isfinite(got_metrics.exact_mean).all()
    assert got.moments.count == expected.moments.count


def reveal(population: Population) -> tuple[Evaluation, jax.Array]:
    """Scores that are made of all weights and genotypes: what each device made of a candidate."""
    search = pendulum(population)
    state = jax.jit(search.init)(KEY)
    ids = jnp.arange(search.num_candidates)

    def evaluate(key, network, apply):
        params, genotype = network
        number = jnp.sum(genotype * jnp.arange(1, genotype.size + 1)).astype(jnp.float32)
        zero = jnp.int32(0)
        places = jnp.arange(1, params.size + 1, dtype=jnp.float32)
        coarse = jnp.round(params * 2**10)  # sums of them are exact, in any order
        return Evaluation(
            jnp.sum(coarse * places), jnp.sum(coarse[::2]), zero, number, zero > 0, ()
        )

    task = tasks.SingleShot(3, 1, evaluate)

    def all_of_them(state, ids):
        made = jax.vmap(lambda i: search.candidate(KEY, state, state.generation, i))

        def bound(given, ids):
            asked = made(ids)
            return (asked.params, asked.genotype), lambda i: made(i[None]).key[0]

        return population.evaluate(task, (), bound, None, None, ids)

    seen = jax.jit(population.spread(all_of_them))(state, ids)
    return jax.device_get((seen, after(1, population.devices)[0].controller.genotypes))


@over_devices
def test_the_first_generations_genotypes_and_noise_are_the_same_bits(devices):
    expected, got = reveal(small()), reveal(small(devices=devices))
    assert equal(got, expected)
    assert np.unique(got[0].episode_return).size == 13  # 12 perturbed and one for the exact ones
    assert np.unique(got[0].episode_length).size == 15


@over_devices
def test_padding_is_counted_in_no_metric(devices):
    (alone_state, alone, _), (shared_state, shared, _) = after(20, 1), after(20, devices)
    assert (shared.episodes == 15).all()
    assert shared_state.moments.count == alone_state.moments.count == 20 * 15 * 24
    assert (shared.steps == 15 * 24).all()
    assert (shared.failed == 0).all()
    np.testing.assert_allclose(shared.fitness_max[0], alone.fitness_max[0], rtol=1e-5)


@pytest.mark.short
def test_failed_candidates_of_other_devices_fail_here_too():
    """Every third candidate fails wherever it runs; padding repeats the last and never counts."""

    def evaluate(key, network, apply):
        fails = jax.random.key_data(key)[0] % 3 == 0
        return tasks.single_score(jnp.where(fails, jnp.nan, apply(network, jnp.ones(3))[0]))

    def failed(devices: int):
        policy = policies.dense(3, (), 1)
        search = es_enas(
            policy,
            tasks.SingleShot(3, 1, evaluate),
            strategies.ars(5, 1),
            controllers.constant(policy.space),
            population=small(devices=devices),
            max_failed=0.9,
        )
        state = jax.jit(search.init)(KEY)
        return jax.jit(search.run, static_argnums=2)(KEY, state, 4)[1].failed.tolist()

    assert failed(8) == failed(1)
    assert 0 < sum(failed(1)) < 44


WITHOUT_ELEMENTS = """
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec
mesh = jax.make_mesh((2,), ("d",), devices=jax.devices()[:2])
def f(x, e):
    return jax.lax.psum(jnp.sin(x), "d"), e
everywhere = PartitionSpec()
f = jax.shard_map(f, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
jax.jit(f)(jnp.ones(4), jnp.zeros(0, jnp.int32))
"""


@pytest.mark.short
def test_arguments_without_elements_crash_jaxlib_0_11():
    """When no supported jaxlib does, `sharded` need not keep these arguments from XLA."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ELEMENTS],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    crashed = done.returncode < 0
    assert crashed or done.returncode == 0, done.stderr
    assert crashed == jaxlib.__version__.startswith("0.11."), "see `sharded` in population.py"


def test_every_kind_of_argument_comes_to_all_devices():
    class Given(NamedTuple):
        each: jax.Array  # [8]
        nothing: None
        rest: dict[str, jax.Array | float]

    each, whole = PartitionSpec(AXIS), PartitionSpec()
    rest = {
        "ints": jnp.zeros((8, 0), jnp.int32),
        "bools": jnp.zeros(0, bool),
        "host": np.zeros((0, 3), np.int64),
        "keys": jax.random.split(KEY, 8)[:0],
        "number": 2.0,
    }
    specs = Given(each, whole, dict.fromkeys(rest, whole) | {"ints": each})

    def f(given: Given, factor: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        assert given.rest["ints"].shape == (1, 0)
        assert given.rest["host"].shape == (0, 3)
        return given.each * factor * given.rest["number"], given.rest

    made = sharded(f, 8, (specs, whole), (each, specs.rest))
    got, seen = jax.jit(made)(Given(jnp.arange(8.0), None, rest), jnp.float32(3.0))
    np.testing.assert_array_equal(got, 6.0 * np.arange(8))
    assert {k: x.shape for k, x in seen.items()} == {k: jnp.shape(x) for k, x in rest.items()}


@pytest.mark.slow
def test_the_answer_is_the_same_on_two_devices_and_on_eight():
    def answer(devices: int):
        search = pendulum(small(devices=devices, virtual_shards=8))
        state = jax.jit(search.step)(KEY, jax.jit(search.init)(KEY))[0]
        return jax.device_get(choose_answer(search, KEY, state, 10))

    assert equal(answer(8), answer(2))


@pytest.mark.slow
def test_step_on_many_devices_works_under_vmap_over_run_keys():
    search = pendulum(small(devices=2))
    keys = jnp.stack([KEY, jax.random.key(8)])
    states = jax.jit(jax.vmap(search.init))(keys)
    states, metrics = jax.jit(jax.vmap(search.step))(keys, states)
    alone = after(1, 2)[1]
    np.testing.assert_allclose(metrics.exact_mean[0], alone.exact_mean[0], rtol=1e-5)
    assert metrics.exact_mean[0] != metrics.exact_mean[1]


class Pmapped(Population):
    """The population whose devices are mapped over by `jax.pmap`."""

    def spread(self, f):
        def everywhere(*arguments):
            mapped = jax.pmap(lambda _, a: f(*a), axis_name=AXIS, in_axes=(0, None))
            return jax.tree.map(lambda x: x[0], mapped(jnp.arange(self.devices), arguments))

        return everywhere


def compare_with_pmap(virtual_shards: int | None) -> None:
    """Fail unless three generations under `jax.pmap` and `jax.shard_map` are the same bits."""
    population = small(devices=8, virtual_shards=virtual_shards)
    mapped = pendulum(Pmapped(**dataclasses.asdict(population)))
    sharded = pendulum(population)
    step = jax.jit(sharded.step)
    state = other = jax.device_get(jax.jit(sharded.init)(KEY))
    for _ in range(3):
        state, metrics = step(KEY, state)
        other, other_metrics = jax.device_get(mapped.step(KEY, other))
        assert equal((other, other_metrics), jax.device_get((state, metrics)))
    print("equal")


@pytest.mark.slow
@pytest.mark.parametrize("virtual_shards", [None, 8])
def test_the_same_body_under_pmap_gives_the_same_bits(virtual_shards):
    code = f"from tests.devices_test import compare_with_pmap as f\nf({virtual_shards})\n"
    assert in_a_process(code) == ["equal"]


# --- contract 4 -----------------------------------------------------------------------------------

_COLLECTIVE = re.compile(
    r"= (\(?[^=]*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|"
    r"collective-broadcast|ragged-all-to-all)(?:-start)?\("
)


def exchanged(search: Search) -> list[tuple[str, int]]:
    """Return every collective of the compiled generation, and how many numbers each device gets."""
    state = jax.jit(search.init)(KEY)
    text = jax.jit(search.step).lower(KEY, state).compile().as_text()
    out = []
    for shapes, name in _COLLECTIVE.findall(text):
        sizes = re.findall(r"\w+\[([\d,]*)\]", shapes)
        assert sizes, shapes
        out += [(name, int(np.prod([int(n) for n in s.split(",") if n]))) for s in sizes]
    return out


@pytest.mark.parametrize("virtual_shards", [None, *(pytest.param(n, marks=SLOW) for n in (8, 16))])
def test_devices_exchange_scores_small_statistics_and_one_weight_sized_vector(virtual_shards):
    """25 candidates, 201 weights, 3 observations: every size can be told from the others."""
    task = tasks.episodes(tasks.pendulum(), horizon=24, normalizer=tasks.es_normalizer())
    policy = policies.edge_pruned(3, (40,), 1, num_edges=100)
    search = es_enas(
        policy,
        task,
        strategies.es(11, 3, 0.1, 0.05),
        controllers.regularized_evolution(policy.space, 25),
        population=small(devices=8, virtual_shards=virtual_shards),
    )
    shards = virtual_shards or 8
    padded = -(-25 // shards) * shards
    copies = virtual_shards or 1
    allowed = {"all-gather", "all-reduce"}
    sent = exchanged(search)
    assert {name for name, _ in sent} <= allowed
    sizes = sorted(size for _, size in sent)
    fields = 5 * [padded]  # of an Evaluation
    statistics = [copies, copies * task.obs_size, copies * task.obs_size]  # count, first, second
    assert sizes == sorted([copies * policy.num_params, *fields, *statistics])


@pytest.mark.slow
def test_one_device_exchanges_nothing():
    assert exchanged(pendulum(small(virtual_shards=4))) == []


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"devices": 9},
            r"devices must be in \[1, 8\], got 9; to split the CPU into 9, add --xla_force_",
        ),
        ({"devices": 0}, "devices must be at least 1, got 0"),
        ({"devices": 2.0}, r"devices must be an integer, got 2\.0"),
        ({"devices": 4, "virtual_shards": 6}, "must be None or a multiple of devices, 4, got 6"),
        ({"virtual_shards": 0}, "virtual_shards must be at least 1, got 0"),
        ({"virtual_shards": 16}, "a generation of 15 candidates can be cut into at most as many"),
    ],
)
def test_impossible_shards_are_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        pendulum(small(**given))
