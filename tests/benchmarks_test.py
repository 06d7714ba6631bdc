"""What the benchmarks work out from what they measure."""

import importlib.util
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import compression, functions, lanes, memory, noise, random_search, release, scaling
from benchmarks import learners as study
from benchmarks import policies as policies_benchmark
from benchmarks.accelerator.generations import ticks
from benchmarks.figures import intervals, new_panels
from benchmarks.figures import lines as draw_lines
from benchmarks.measure import Row
from esenas_jax import Population, controllers, es_enas, learners, policies, strategies, tasks
from esenas_jax.rollout import rollout
from esenas_jax.tasks.environment import Environment, Transition
from esenas_jax.tasks.task import Lens


@pytest.mark.parametrize(
    ("loss", "x", "expected"),
    [
        (functions.sphere, [1.0, -2.0, 3.0], 14.0),
        (functions.rosenbrock, [1.0, 1.0, 1.0], 0.0),
        (functions.rosenbrock, [0.0, 2.0, 1.0], 100 * 4 + 1 + 100 * 9 + 1),
        (functions.rastrigin, [0.0, 0.0], 0.0),
        (functions.rastrigin, [0.5, 1.0], (10 + 0.25 + 10) + (10 + 1 - 10)),
        (functions.ackley, [0.0, 0.0], 0.0),
        (functions.ackley, [3.0, 4.0], -20 * np.exp(-0.2 * np.sqrt(12.5)) + 20),
    ],
)
def test_functions_have_their_textbook_values(loss, x, expected):
    assert float(loss(jnp.array(x))) == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_a_search_over_weights_maximises_minus_the_loss_from_its_start():
    start = jnp.array([3.0, 4.0])
    strategy = noise.strategies.es(4, 1, 1e-3, 1e-4)
    search = functions.search_over_weights(functions.sphere, start, strategy, Population(lanes=4))
    state = search.init(jax.random.key(0))
    after, metrics = jax.jit(search.step)(jax.random.key(0), state)
    assert float(metrics.exact_mean) == pytest.approx(-25.0, rel=1e-6)
    assert float(functions.sphere(after.strategy.params)) < 25.0


# --- accelerator, scaling -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "num_lanes", "refill_every", "expected"),
    [
        ([5, 3, 9], 3, 4, 12),  # one block after another until the longest has ended
        ([5, 3, 9], 1, 4, 8 + 4 + 12),  # one after the other, each rounded up
        # Blocks of 2: lane 0 runs 2 steps, then 6; lane 1 runs 4, then 1.
        ([2, 4, 6, 1], 2, 2, 8),
    ],
)
def test_ticks_of_a_schedule_worked_out_by_hand(lengths, num_lanes, refill_every, expected):
    assert ticks(lengths, num_lanes, refill_every) == expected


def test_ticks_are_as_many_as_the_rollout_makes():
    lengths = np.random.default_rng(0).integers(1, 30, 23)
    table = jnp.asarray(lengths, jnp.int32)
    simulated = []

    def step(state, action):
        t = state + 1
        jax.debug.callback(lambda _: simulated.append(1), t)
        zero = jnp.zeros((), jnp.float32)
        return t, Transition(jnp.zeros(1), zero, zero, t >= table[action[0]])

    world = Environment(1, 1, lambda key: (jnp.int32(0), jnp.zeros(1)), step)
    totals, _ = rollout(
        tasks.episodes(world, horizon=100),
        lambda episode: (episode[None], jax.random.fold_in(jax.random.key(0), episode)),
        lambda episode: Lens(jnp.zeros(1), jnp.zeros(1), jnp.ones(1)),
        lambda episode, obs: episode,
        num_episodes=lengths.size,
        lanes=4,
        refill_every=3,
    )
    jax.effects_barrier()
    assert totals.steps.tolist() == lengths.tolist()
    assert len(simulated) == 4 * ticks(lengths, 4, 3)


def test_weak_scaling_keeps_the_candidates_of_a_device_and_strong_scaling_all_of_them():
    points = scaling.plan("pendulum", 200, 512, 128, 6)
    assert [p.devices for p in points.weak] == [1, 2, 4]  # powers of two that there are
    assert {p.candidates // p.devices for p in points.weak} == {512}
    assert {p.candidates for p in points.strong} == {2048}
    assert points.weak[-1] == points.strong[-1]
    assert [p.seeds for p in points.seeds] == [1, 10, 100]


def test_seeds_share_their_rate():
    point = scaling.Point("pendulum", 200, 64, seeds=10)
    measured = scaling.Measured(live=1000, seconds=np.array([2.0, 4.0, 8.0]))
    steps, generations = scaling.rate_rows("title", point, measured)
    assert (steps.value, steps.unit) == (250.0, "live steps/s")
    assert (generations.value, generations.unit) == (2.5, "generations/s")


# --- memory, lanes, noise -------------------------------------------------------------------------


def test_a_field_of_a_process_status_is_read_in_bytes():
    status = "Name:\tpython\nVmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"
    assert memory.resident(status, "VmHWM") == 2 * 2**20
    assert memory.resident(status, "VmRSS") == 2**20


def test_losses_are_round_by_round_against_the_best_choice():
    measured = {(16, 8): np.array([1.0, 2.0, 1.0]), (32, 8): np.array([3.0, 4.0, 1.0])}
    losses = lanes.losses(measured)
    assert losses[16, 8].tolist() == [1.0, 1.0, 1.0]
    assert losses[32, 8].tolist() == [3.0, 2.0, 1.0]


def test_the_choice_for_all_worlds_is_the_one_with_the_least_greatest_loss():
    a, b, c = (16, 8), (32, 8), (64, 8)
    ones = np.ones(3)
    per_world = {
        "one": {a: ones, b: 1.2 * ones, c: 1.5 * ones},
        "two": {a: 1.4 * ones, b: 1.3 * ones, c: ones},
    }
    assert lanes.choice_for_all(per_world) == b


def test_the_ratio_of_losses_is_a_geometric_mean():
    reference = np.array([1.0, 10.0, 100.0])
    ratio, (low, high) = noise.ratio_of_losses(reference * [0.5, 2.0, 1.0], reference)
    assert ratio == pytest.approx(1.0)
    assert (low, high) == pytest.approx((0.5, 2.0))
    ratio, interval = noise.ratio_of_losses(reference / 4, reference)
    assert ratio == pytest.approx(0.25)
    assert interval == pytest.approx((0.25, 0.25))


def test_tuning_takes_the_setting_with_the_least_loss_and_none_that_diverged():
    wanted = noise.Setting(0.03, 0.03 * 0.3)

    def train(seed, setting):
        if setting.noise_std > 0.05:
            return math.nan
        return (
            1.0
            + abs(math.log(setting.noise_std / wanted.noise_std))
            + abs(math.log(setting.step_size / wanted.step_size))
        )

    assert noise.tuned(train) == pytest.approx(wanted)


# --- policies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["edges", "colours"])
def test_gathered_forms_are_the_policies_that_they_are_measured_against(form):
    if form == "edges":
        policy = policies.independent_edges(3, (4,), 2, (5, 3), bias_init=policies.zeros)
        bind, apply = policies_benchmark.gathered_edges(policy)
    else:
        policy = policies.partitioned(3, (4,), 2, num_partitions=3)
        bind, apply = policies_benchmark.looked_up_colours(policy)
    params, genotypes = policies_benchmark.population(policy, 4)
    assert len(np.unique(params[:, 0])) == 4  # each its own
    obs = jnp.array([0.3, -0.2, 0.9])
    expected, got = (
        jax.jit(jax.vmap(lambda *mine, b=b, a=a: a(b(*mine), obs)))(params, genotypes)
        for b, a in ((policy.bind, policy.apply), (bind, apply))
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


# --- figures and peers ----------------------------------------------------------------------------


def _size(path):
    """Return the width and height that a PNG says it has."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return tuple(int.from_bytes(head[k : k + 4], "big") for k in (16, 20))


def test_rows_that_were_not_measured_are_drawn_too(tmp_path):
    rows = [
        Row("measured", 1.2, (1.1, 1.3), "x", 1.25, "at_most"),
        Row("not measured", None, None, "x", 1.25, "at_most"),
        Row("alone in its panel, and not measured", None, None, "steps/s"),
    ]
    intervals(rows, tmp_path / "two.png", "Title", "Subtitle")
    intervals(rows[:1], tmp_path / "one.png", "Title", "Subtitle")
    assert _size(tmp_path / "two.png")[0] == 1200
    assert _size(tmp_path / "two.png")[1] > _size(tmp_path / "one.png")[1] > 150


def test_lines_have_their_ticks_where_something_was_measured():
    panels, _ = new_panels(1, "Title", "Subtitle")
    draw_lines(panels[0], {"a": ([64, 1024], [1.0, 2.0]), "b": ([64, 256], [3.0, 4.0])}, "x", "y")
    assert panels[0].get_xticks().tolist() == [64, 256, 1024]


def test_missing_peers_end_in_one_sentence(monkeypatch):
    peers = pytest.importorskip("benchmarks.peers.__main__")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "evosax" else found(name)
    )
    monkeypatch.setattr(sys, "argv", ["peers", "--quick"])
    with pytest.raises(SystemExit, match=r"^error: evosax is not installed; .*\[bench\]") as error:
        peers.main()
    assert isinstance(error.value.code, str)  # printed by Python, which then exits with 1


def test_pyglove_and_we_propose_from_the_same_space():
    from benchmarks.peers import pyglove

    space = policies.edge_pruned(pyglove.INPUTS, (), pyglove.OUTPUTS, num_edges=pyglove.KEPT).space
    genotype = space.sample(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(genotype)) == pyglove.KEPT


def test_both_forms_in_pytorch_take_the_same_steps_and_learn():
    torch = pytest.importorskip("torch")
    loop, vectorised = (random_search.pytorch(torch, form) for form in (False, True))
    one, other = loop().numpy(), vectorised().numpy()
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    target = 5.0 * torch.randn(5, generator=torch.Generator().manual_seed(0)).numpy()
    assert np.linalg.norm(one - target) < 0.5 * np.linalg.norm(target)


def test_without_pytorch_its_rows_are_there_and_not_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    rows = random_search.beside_pytorch(5)
    assert [(row.value, row.holds, row.target) for row in rows] == [
        (None, None, 20.0), (None, None, 1.0)
    ]  # fmt: skip
    assert "pip install -e '.[torch]'" in capsys.readouterr().out


@pytest.mark.parametrize("value", [None, 0.97])
def test_what_random_search_learns_is_drawn_measured_or_not(value, tmp_path):
    falling = [np.geomspace(10, 1e-6 * (seed + 1), 500) for seed in range(5)]
    curves = {"constant": falling, "decay": falling}
    rows = [Row(f"split {k}", value, None, "test accuracy") for k in range(5)]
    random_search.draw(curves, {1: 0.03, 64: 0.04}, rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_losses_of_compression_are_paired_with_the_unpruned_network_of_the_split():
    stages = compression.STAGES
    found = [
        {"unpruned": base, "bytes of float32": 400}
        | {stage: base - 2.0 - k for k, stage in enumerate(stages)}
        | {f"bytes, {noise} noise": 10 + split for noise in compression.NOISE}
        for split, base in enumerate((90.0, 99.0))
    ]
    rows = {row.name: row for row in compression.rows_of(found, judged=True)}
    for k, stage in enumerate(stages):
        less = rows[f"{stage}: {compression.LESS}"]
        # All splits lose as much: there is no doubt about it, whatever accuracies differ by.
        assert (less.value, less.interval) == (-2.0 - k, (-2.0 - k, -2.0 - k))
    assert rows["unpruned: accuracy"].value == 94.5
    assert rows["unpruned: accuracy"].interval == (90.0, 99.0)
    assert rows["unpruned in float32: size"].value == 400


@pytest.mark.parametrize("name", study.RULES)
def test_every_rule_of_the_study_can_be_applied(name):
    problem = study.regression(0)
    search = es_enas(
        problem.policy,
        problem.task,
        strategies.ars(2, 1, noise_std=problem.noise_std, step_size=problem.step_size),
        controllers.constant(problem.policy.space),
    )
    population = learners(search, study.LEARNERS, study.rule(name, problem, 10))
    key = jax.random.key(0)
    state = jax.eval_shape(population.step, key, jax.eval_shape(population.init, key))[0]
    assert state.learners.strategy.params.shape == (study.LEARNERS, problem.policy.num_params)


def test_a_threshold_is_four_fifths_of_the_way_and_a_run_that_never_gets_there_counts_whole():
    climb = np.clip(np.arange(100.0) - 20.0, 0.0, 50.0)  # 0 until 20, 50 from 70 on
    tried = np.stack([climb, climb + 10.0])
    aim = release.threshold(tried)
    assert aim == pytest.approx(5.0 + 0.8 * 50.0)
    # The first ten generations whose average is there, 45.5, begin with 61.
    taken, there = release.until(np.stack([climb, climb / 2, np.full(100, np.nan)]), aim)
    assert taken.tolist() == [66, 100, 100]
    assert there == 1
    assert release.distance(np.array([[1.0, 3.0]]), best=10.0).tolist() == [8.0]
    assert release.distance(np.array([[1.0, np.nan]]), best=0.0)[0] > 1e8
    with pytest.raises(ValueError, match="must not fail in its best setting"):
        release.threshold(np.full((2, 20), np.nan))
