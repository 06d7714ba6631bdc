"""Supervised tasks: splits, losses against NumPy, exams, and the digits under the runner."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import (
    Population,
    Starts,
    choose_answer,
    controllers,
    es_enas,
    objectives,
    pareto_front,
    policies,
    strategies,
    tasks,
)
from experiments import build, evaluate, train
from experiments.configs import digits as digits_config
from experiments.results import measured, summary
from experiments.workdir import Workdir

KEY = jax.random.key(3)


@functools.cache
def splits(seed: int = 0) -> tasks.Splits:
    return tasks.digits_splits(seed)


def rows(examples: tasks.Examples) -> set[tuple]:
    return {tuple(x.ravel().tolist()) for x in examples.inputs}


# --- splits ---------------------------------------------------------------------------------------


def test_the_digits_are_split_into_three_parts_with_nothing_in_common():
    parts = splits()
    assert [part.size for part in parts] == [1259, 179, 359]
    each = [rows(part) for part in parts]
    assert len(set.union(*each)) == sum(map(len, each)) == 1797  # no image is there twice
    assert parts.train.inputs.shape == (1259, 8, 8, 1)
    for part in parts:
        assert part.inputs.dtype == np.float32
        assert part.inputs.min() == 0.0
        assert part.inputs.max() == 1.0


def test_every_class_has_its_share_of_every_part():
    counts = np.array([np.bincount(part.labels, minlength=10) for part in splits()])
    shares = counts / counts.sum(axis=0)
    # The nearest whole number of images of a class, which has 174 at least.
    np.testing.assert_allclose(shares[1:], np.repeat([[0.1], [0.2]], 10, axis=1), atol=0.5 / 174)


def test_the_split_is_that_of_its_seed():
    again, other = tasks.digits_splits(0), splits(1)
    for x, y in zip(jax.tree.leaves(splits()), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y)
    assert rows(other.test) != rows(splits().test)
    assert rows(other.test) | rows(other.train) | rows(other.validation) == set.union(
        *map(rows, splits())
    )


# --- scores ---------------------------------------------------------------------------------------


def linear(weights):
    return weights, lambda network, obs: obs @ network


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """In float64, as the definition has it."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    return total - shifted[np.arange(labels.size), labels]


def test_the_score_and_the_exams_are_those_of_numpy():
    task = tasks.digits(0, batch_size=splits().train.size)  # all of it: in any order the same
    weights = np.random.default_rng(0).normal(size=(64, 10))
    network, apply = linear(jnp.asarray(weights, jnp.float32))

    def expected(part):
        logits = part.inputs.reshape(part.size, -1).astype(np.float64) @ weights
        return cross_entropy(logits, part.labels), logits.argmax(axis=1) == part.labels

    seen = jax.jit(lambda network: task.evaluate(KEY, network, apply))(network)
    np.testing.assert_allclose(-seen.episode_return, expected(splits().train)[0].mean(), rtol=1e-5)
    for exam, part in ((task.select, splits().validation), (task.report, splits().test)):
        loss, right = expected(part)
        told = jax.jit(lambda network, exam=exam: exam.evaluate(network, apply))(network)
        assert exam.size == part.size
        np.testing.assert_allclose(told.statistics[f"{exam.name}_loss"], loss, rtol=2e-5, atol=1e-5)
        np.testing.assert_array_equal(told.statistics[f"{exam.name}_accuracy"], right)
        np.testing.assert_allclose(told.episode_return, -loss, rtol=2e-5, atol=1e-5)


def test_a_mini_batch_has_no_example_twice_and_every_example_is_drawn_as_often():
    n, batch, draws = 12, 5, 3_000
    examples = tasks.Examples(np.eye(n, dtype=np.float32), np.zeros(n, np.int32))
    task = tasks.supervised(examples, 2, batch_size=batch)

    # The loss of an example is worth a power of two: the score tells which ones were drawn.
    def logits(network, obs):
        worth = obs @ jnp.exp2(jnp.arange(n, dtype=jnp.float32))
        return jnp.stack([-worth, jnp.float32(1e4) * jnp.ones(())])

    score = jax.jit(jax.vmap(lambda key: task.evaluate(key, None, logits).episode_return))
    losses = -np.asarray(score(jax.random.split(KEY, draws)), np.float64) * batch - 1e4 * batch
    drawn = (np.rint(losses).astype(int)[:, None] >> np.arange(n)) & 1
    np.testing.assert_array_equal(drawn.sum(axis=1), batch)
    share = batch / n
    five_errors = 5 * np.sqrt(share * (1 - share) / draws)
    np.testing.assert_allclose(drawn.mean(axis=0), share, atol=five_errors)


def test_a_teacher_is_what_a_candidate_is_compared_with():
    """Against the divergence of Hinton et al. in NumPy and float64."""
    rng = np.random.default_rng(0)
    n, classes, heat = 6, 3, 2.5
    examples = tasks.Examples(np.eye(n, dtype=np.float32), np.arange(n) % classes)
    teacher = 3.0 * rng.normal(size=(n, classes))
    task = tasks.supervised(
        examples, classes, batch_size=n, test=examples, teacher=teacher, temperature=heat
    )

    def likely(logits):
        p = np.exp(np.asarray(logits, np.float64) / heat)
        return p / p.sum(axis=1, keepdims=True)

    def answer(logits, obs):
        return obs @ logits

    @jax.jit
    def score(logits):
        return task.evaluate(KEY, logits, answer).episode_return

    other, teacher = (np.float32(x) for x in (rng.normal(size=(n, classes)), teacher))
    p, q = likely(teacher), likely(other)
    expected = -(heat**2) * (p * np.log(p / q)).sum(axis=1).mean()
    np.testing.assert_allclose(score(other), expected, rtol=1e-5)
    assert score(teacher) == pytest.approx(0.0, abs=1e-5)
    # The gradient is as long as at any other temperature, about: T (q - p) an example, not q - p.
    slope = jax.jit(jax.grad(score))(other)
    np.testing.assert_allclose(slope, heat * (p - q) / n, rtol=1e-4, atol=1e-6)
    # An exam asks for labels.
    seen = jax.jit(lambda logits: task.report.evaluate(logits, answer))(other)
    right = other.argmax(axis=1) == examples.labels
    np.testing.assert_array_equal(seen.statistics["test_accuracy"], right)


# --- networks -------------------------------------------------------------------------------------

NETWORKS = {
    "dense": lambda **more: policies.flax_dense(64, 10, hidden=(16,), **more),
    "convolutional": lambda **more: policies.flax_convolutional(64, 10, **more),
}


def test_the_small_convolutional_network_has_about_six_thousand_parameters():
    policy = NETWORKS["convolutional"]()
    windows = [9 * 1 * 8, 9 * 8 * 16, 9 * 16 * 32]
    kernels = sum(windows) + 32 * 10
    assert policy.num_params == kernels + 8 + 16 + 32 + 10 == 6218
    cost = policy.cost(policy.space.sample(KEY))
    places = [16, 4, 4]  # of an 8x8 image, strides 2, 2 and 1
    assert cost.multiplications == sum(w * p for w, p in zip(windows, places, strict=True)) + 320
    assert cost.edges == kernels


def test_windows_and_a_dense_layer_are_a_convolution():
    policy = NETWORKS["convolutional"](strides=(1, 2, 2))
    network = jax.jit(lambda key: policy.bind(policy.init(key), policy.space.sample(key)))(KEY)
    image = np.random.default_rng(0).random((8, 8, 1), np.float32)

    @jax.jit
    def expected(network, x):
        for name, stride in (("layers_1", 1), ("layers_4", 2), ("layers_7", 2)):
            layer = network[name]
            kernel = layer["kernel"].reshape(3, 3, x.shape[-1], -1)
            x = jax.lax.conv_general_dilated(
                x[None],
                kernel,
                (stride, stride),
                ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )[0]
            x = jax.nn.relu(x + layer["bias"].reshape(1, 1, -1))
        last = network["layers_10"]
        return x.mean(axis=(0, 1)) @ last["kernel"] + last["bias"]

    got = jax.jit(policy.apply)(network, image.ravel())
    np.testing.assert_allclose(got, expected(network, image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_computes_the_same_to_its_rounding_and_parameters_stay_float32(name):
    exact, rough = NETWORKS[name](), NETWORKS[name](compute_dtype="bfloat16")
    params = jax.jit(exact.init)(KEY)
    assert np.array_equal(params, jax.jit(rough.init)(KEY))
    layer = "layers_0" if name == "dense" else "layers_1"
    bound = jax.eval_shape(rough.bind, params, rough.space.sample(KEY))
    assert bound[layer]["kernel"].dtype == jnp.float32

    def outputs(policy):
        def of(params, x):
            network = policy.bind(params, policy.space.sample(KEY))
            return jax.vmap(policy.apply, (None, 0))(network, x)

        return np.asarray(jax.jit(of)(params, splits().test.inputs[:64].reshape(64, -1)))

    expected, got = outputs(exact), outputs(rough)
    assert got.dtype == np.float32
    # Each of four layers at most rounds its inputs, kernels and outputs, to 2^-9 each.
    assert not np.array_equal(got, expected)
    np.testing.assert_allclose(got, expected, atol=12 * 2**-9 * np.abs(expected).max())


def search_on_digits(policy, controller, **more):
    return es_enas(
        policy,
        tasks.digits(0, batch_size=32),
        strategies.es(2, 1, 0.1, 0.01),
        controller(policy.space),
        population=Population(lanes=5),
        starts=Starts.GENERATION,
        **more,
    )


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        pytest.param("whole", {}, marks=pytest.mark.slow),
        pytest.param("edges", {"search": "edges", "num_edges": 300}, marks=pytest.mark.slow),
        ("mask", {"search": "mask"}),
        pytest.param(
            "partition", {"search": "partition", "num_partitions": 9}, marks=pytest.mark.slow
        ),
        pytest.param("bfloat16", {"compute_dtype": "bfloat16"}, marks=pytest.mark.slow),
    ],
)
def test_a_generation_of_the_convolutional_network_moves_it(kind, arguments):
    policy = NETWORKS["convolutional"](**arguments)
    controller = controllers.random if "search" in arguments else controllers.constant
    search = search_on_digits(policy, controller)
    before = search.init(KEY)
    after, metrics = jax.jit(search.step)(KEY, before)
    assert after.strategy.params.dtype == jnp.float32
    assert not np.array_equal(after.strategy.params, before.strategy.params)
    assert np.isfinite(metrics.exact_mean)
    assert metrics.failed == 0


# --- answers --------------------------------------------------------------------------------------


def test_validation_chooses_and_the_test_split_reports():
    policy = NETWORKS["dense"](search="mask")
    search = search_on_digits(policy, lambda space: controllers.random(space, num_best=3))

    @jax.jit
    def answer_of(key):
        state, _ = search.run(key, search.init(key), 2)
        return choose_answer(search, key, state, 8)

    answer = answer_of(KEY)
    loss = answer.selection.statistics["validation_loss"]
    assert loss.shape == (6, 179)  # three architectures under the final weights, three earlier
    assert answer.choice == np.argmin(loss.mean(axis=1))
    assert set(answer.report.statistics) == {"test_loss", "test_accuracy"}

    @jax.jit
    def expected_of(chosen):
        network = policy.bind(chosen.params, chosen.genotype)
        return search.task.report.evaluate(network, policy.apply)

    expected = expected_of(answer.chosen)
    np.testing.assert_allclose(answer.report.episode_return, expected.episode_return, rtol=1e-5)


def test_a_front_is_reported_on_the_test_split():
    policy = NETWORKS["dense"](search="mask")
    search = search_on_digits(
        policy, lambda space: controllers.nsga2(space, 5), objective=objectives.pareto("edges")
    )
    front = jax.jit(lambda key: pareto_front(search, key, search.init(key), 8))(KEY)
    assert front.evaluations.statistics["test_accuracy"].shape == (front.valid.size, 359)


def test_a_single_shot_without_exams_is_reported_on_draws_of_its_own():
    examples = splits().train
    task = tasks.supervised(examples, 10, batch_size=16)
    assert task.select is None
    policy = policies.flax_dense(64, 10, hidden=())
    search = es_enas(policy, task, strategies.es(2, 1), controllers.constant(policy.space))
    answer = jax.jit(lambda key: choose_answer(search, key, search.init(key), 8))(KEY)
    assert len(np.unique(answer.report.episode_return)) == 8
    assert answer.report.statistics == ()


# --- bad input ------------------------------------------------------------------------------------

GOOD = tasks.Examples(np.ones((4, 3), np.float32), np.array([0, 1, 0, 1]))
INPUT = {
    "a label above the classes": (
        lambda: tasks.supervised(GOOD._replace(labels=np.array([0, 1, 2, 5])), 2, batch_size=1),
        r"labels of train must be in \[0, 1\], got 2.",
    ),
    "a label below them": (
        lambda: tasks.supervised(GOOD._replace(labels=np.array([0, -1, 1, 1])), 2, batch_size=1),
        r"labels of train must be in \[0, 1\], got -1.",
    ),
    "labels that are no classes": (
        lambda: tasks.supervised(GOOD._replace(labels=np.ones(4)), 2, batch_size=1),
        "labels of train must be integers, got float64.",
    ),
    "a label of the test": (
        lambda: tasks.supervised(
            GOOD, 2, batch_size=1, test=GOOD._replace(labels=np.array([0, 1, 2, 0]))
        ),
        r"labels of test must be in \[0, 1\], got 2.",
    ),
    "not as many": (
        lambda: tasks.supervised(GOOD._replace(labels=np.array([0, 1])), 2, batch_size=1),
        r"train must have inputs \[n, ...\] and labels \[n\], got the shapes \(4, 3\) and \(2,\).",
    ),
    "inputs of another size": (
        lambda: tasks.supervised(
            GOOD, 2, batch_size=1, validation=GOOD._replace(inputs=np.ones((4, 2), np.float32))
        ),
        (
            r"inputs of validation must have the shape of those to train on, \(3,\), got "
            r"\(2,\)."
        ),
    ),
    "inputs that are no numbers": (
        lambda: tasks.supervised(GOOD._replace(inputs=np.full((4, 3), np.nan)), 2, batch_size=1),
        "inputs of train must be finite, got nan.",
    ),
    "a batch larger than the data": (
        lambda: tasks.supervised(GOOD, 2, batch_size=5),
        "batch_size must be at most the 4 examples to train on, got 5.",
    ),
    "a teacher of other examples": (
        lambda: tasks.supervised(GOOD, 2, batch_size=1, teacher=np.zeros((3, 2))),
        r"teacher must be logits of the shape \(4, 2\), got \(3, 2\).",
    ),
    "a teacher that failed": (
        lambda: tasks.supervised(GOOD, 2, batch_size=1, teacher=np.full((4, 2), np.inf)),
        "teacher must be finite in float32, got inf.",
    ),
    "no temperature": (
        lambda: tasks.supervised(GOOD, 2, batch_size=1, temperature=0.0),
        r"temperature must be in \[0.01, 100\], got 0.0.",
    ),
    "one class": (
        lambda: tasks.supervised(GOOD, 1, batch_size=1), "num_classes must be at least 2, got 1.",
    ),
    "a class that is too small": (
        lambda: tasks.stratified_splits(GOOD.inputs, GOOD.labels, 0),
        (
            "every class must have examples left to train on, got 2 of class 0 with shares of 0.1 "
            "for validation and 0.2 for test."
        ),
    ),
    "a split seed": (
        lambda: tasks.digits(-1), "split_seed must be at least 0, got -1.",
    ),
    "an image of another size": (
        lambda: policies.flax_convolutional(64, 10, image=(8, 4, 1)),
        (
            r"image must be height, width and channels of the 64 observations, got "
            r"\(8, 4, 1\)."
        ),
    ),
    "strides that are not as many": (
        lambda: policies.flax_convolutional(64, 10, strides=(1, 2)),
        r"strides must be one for each of the channels \(8, 16, 32\), got \(1, 2\).",
    ),
    "a dtype": (
        lambda: policies.flax_dense(64, 10, compute_dtype="float16"),
        "compute_dtype must be one of float32, bfloat16, got 'float16'.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUT)
def test_bad_input_is_refused_in_one_sentence_before_any_compute(name, monkeypatch):
    make, sentence = INPUT[name]
    monkeypatch.setattr(jax, "jit", None)
    with pytest.raises((TypeError, ValueError), match=f"^{sentence}$"):
        make()


# --- under the runner -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", digits_config.NETWORKS)
def test_every_network_of_the_config_can_be_built(name):
    planned = build.plan(digits_config.get_config(f"{name},smoke"))
    assert planned.generations == 3
    assert planned.search.policy.action_size == 10


def test_a_run_ends_with_its_test_accuracy_under_that_name(tmp_path):
    config = digits_config.get_config("dense,smoke")
    config.strategy.num_directions = 4
    workdir = Workdir(tmp_path)
    found = train.train(config, workdir)
    assert found["report_examples"] == 359
    assert 0.0 <= found["test_accuracy"]["mean"] <= 1.0
    assert not {"return", "return_without_bonus", "first_return_without_bonus"} & set(found)
    told = summary(found, workdir)
    assert "Test accuracy" in told
    assert "359 examples that neither trained nor selected" in told
    assert "Return" not in told
    again = evaluate.evaluate(workdir, episodes=4, seed=9)
    assert again["test_accuracy"] == pytest.approx(found["test_accuracy"], rel=1e-5)
    assert list(measured(again, "")) == ["Test accuracy", "Test loss", "Measured on"]
    assert train.train(config, workdir) == found  # a finished run is known for one
    assert (tmp_path / "report" / "curve.png").stat().st_size > 10_000


@pytest.mark.slow
def test_many_runs_end_with_the_test_accuracy_of_each(tmp_path):
    config = digits_config.get_config("dense,smoke")
    config.strategy.num_directions = 4
    config.seeds = 2
    found = train.train(config, Workdir(tmp_path))
    each = [run["test_accuracy"]["mean"] for run in found["runs"]]
    assert found["settings"][0]["test_accuracy"]["mean"] == pytest.approx(np.mean(each))
    assert "test accuracy" in summary(found, Workdir(tmp_path))
    assert json.loads((tmp_path / "result.json").read_text())["best_run"] in (0, 1)
