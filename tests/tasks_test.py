"""Tasks: classic control against Gymnasium, the regression and the normalisers against NumPy."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import Population, Starts, controllers, es_enas, policies, strategies, tasks
from esenas_jax.tasks import normalizer
from tests.reference import ars as reference

EPS = float(np.finfo(np.float32).eps)

# ------------------------------------------------------------------------- classic control


@functools.cache
def gym_environment(name):
    environment = gymnasium.make(name).unwrapped
    environment.reset(seed=0)
    return environment


def gym_episode(name, start, actions):
    """States after every step, observations, rewards, ends; goes on after an end."""
    environment = gym_environment(name)
    environment.state = np.array(start, np.float64)
    rows = []
    for action in actions:
        obs, reward, terminated, truncated, _ = environment.step(np.array([action]))
        assert not truncated  # time limits are a wrapper's affair
        rows.append((np.array(environment.state), obs, float(reward), terminated))
    return [np.array(column) for column in zip(*rows, strict=True)]


def our_episode(environment, state, actions):
    """The same of ours, as one scan, in the dtype of the state."""

    def step(state, action):
        new, transition = environment.step(state, action[None])
        return new, (jnp.stack(list(new)), transition)

    _, (states, transitions) = jax.jit(lambda s, a: jax.lax.scan(step, s, a))(state, actions)
    assert not np.asarray(transitions.bonus).any()  # neither pays for being alive
    return [np.asarray(x) for x in (states, transitions.obs, transitions.reward, transitions.done)]


def drive(seed, steps=200):
    """Actions that push one way for a while, some beyond the full range."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.uniform(-1.6, 1.6, steps // 10), 10)


@pytest.mark.parametrize("start", [(0.1, 0.0), (np.pi, 0.5), (-3.0, -7.9), (20.0, 6.0)])
def test_pendulum_is_gymnasiums(start):
    environment = tasks.pendulum()
    actions = drive(0)
    # Action 1 is the full torque, 2 N m. In float64: an unstable rod forgets its float32 digits.
    wanted = gym_episode("Pendulum-v1", start, 2 * actions)
    with jax.enable_x64(True):
        state = type(environment.reset(jax.random.key(0))[0])(*(jnp.float64(x) for x in start))
        states, obs, reward, done = our_episode(environment, state, jnp.asarray(actions))
    # The rod falls at sqrt(15) a second for ten seconds at the most, from a rounding of 1e-16.
    np.testing.assert_allclose(states[:50], wanted[0][:50], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(states, wanted[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(reward, wanted[2], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(obs, wanted[1], rtol=1e-5, atol=1e-4)  # Gymnasium's are float32
    assert not done.any()
    # The case covers what it is for: torque is cut off, so is speed, and the rod goes round.
    assert np.abs(actions).max() > 1
    if abs(start[1]) > 5:
        assert (np.abs(states[:, 1]) == 8).any()
        assert np.abs(states[:, 0]).max() > np.pi


MOUNTAIN_CAR = {
    "resting": ((-0.5, 0.0), np.zeros(200)),
    "driven": ((-0.45, 0.02), drive(1)),
    "into the left wall": ((-0.9, -0.06), np.full(200, -1.5)),
    "past the flag": ((0.2, 0.05), np.full(200, 1.3)),
    "to the right end and back": ((0.5, 0.07), np.r_[np.full(20, 2.0), np.full(180, -2.0)]),
}


@pytest.mark.parametrize("case", MOUNTAIN_CAR)
def test_mountain_car_is_gymnasiums(case):
    environment = tasks.mountain_car()
    start, actions = MOUNTAIN_CAR[case]
    wanted = gym_episode("MountainCarContinuous-v0", start, actions.astype(np.float32))
    state = type(environment.reset(jax.random.key(0))[0])(*(jnp.float32(x) for x in start))
    states, obs, reward, done = our_episode(environment, state, jnp.asarray(actions, jnp.float32))
    # Both are float32. A rounding of the position's last digit, 1e-7, a step enters the velocity as
    # 0.0075 times that; over 200 steps it adds up to less than this.
    np.testing.assert_allclose(states, wanted[0], rtol=0, atol=200 * 1.2 * EPS)
    np.testing.assert_array_equal(obs, states)
    np.testing.assert_array_equal(done, wanted[3])
    np.testing.assert_allclose(reward, wanted[2], rtol=4 * EPS, atol=4 * EPS)
    position, velocity = states.T
    if case == "into the left wall":
        stopped = position == np.float32(-1.2)
        assert stopped.any()
        assert (velocity[stopped] == 0).all()
        assert not done.any()
    if case == "past the flag":
        assert reward[done].min() > 99
        assert 0 < done.sum() < len(done)
        assert (position[done] >= np.float32(0.45)).all()
        assert (velocity == np.float32(0.07)).any()
    if case == "to the right end and back":
        assert (position == np.float32(0.6)).any()
        # On the way back it is past the flag and moves away from it: not done.
        assert ((position >= 0.45) & ~done).any()


@pytest.mark.parametrize(
    ("make", "bounds"),
    [
        (tasks.pendulum, [(-np.pi, np.pi), (-1.0, 1.0)]),
        (tasks.mountain_car, [(-0.6, -0.4), (0.0, 0.0)]),
    ],
)
def test_episodes_start_where_gymnasiums_do_uniformly(make, bounds):
    environment = make()
    n = 4000
    keys = jax.random.split(jax.random.key(0), n)
    states, obs = jax.jit(jax.vmap(environment.reset))(keys)
    assert obs.shape == (n, environment.obs_size)
    assert obs.dtype == jnp.float32
    for column, (low, high) in zip(states, bounds, strict=True):
        values = np.asarray(column, np.float64)
        assert values.min() >= low - EPS * 4
        assert values.max() <= high + EPS * 4
        width = high - low
        # Mean and variance of a uniform, to five standard errors.
        assert abs(values.mean() - (low + high) / 2) <= 5 * width / np.sqrt(12 * n)
        assert abs(values.var() - width**2 / 12) <= 5 * width**2 / np.sqrt(180 * n)
    theta = np.asarray(states[0])
    if environment.obs_size == 3:
        expected = np.stack([np.cos(theta), np.sin(theta), np.asarray(states[1])], axis=1)
        np.testing.assert_allclose(obs, expected, rtol=0, atol=4 * EPS)
    else:
        np.testing.assert_array_equal(obs, np.stack(list(states), axis=1))


# ------------------------------------------------------------------------------ regression


def linear(weights):
    policy = policies.dense(len(weights), (), 1, output_activation=policies.identity)
    genotype = policy.space.sample(jax.random.key(0))
    return policy.bind(jnp.asarray(weights, jnp.float32), genotype), policy.apply


@pytest.mark.parametrize(("degree", "scale"), [(4, 5.0), (1, 0.5)])
def test_regression_scores_are_minus_the_mean_smooth_l1(degree, scale):
    target_key, key = jax.random.key(7), jax.random.key(8)
    task = tasks.polynomial_regression(target_key, degree=degree, batch_size=64, target_scale=scale)
    assert (task.obs_size, task.action_size) == (degree + 1, 1)
    target = scale * np.asarray(jax.random.normal(target_key, (degree + 1,)), np.float64)
    x = np.asarray(jax.random.normal(key, (64,)), np.float64)
    features = np.stack([x**power for power in range(degree + 1)], axis=1)
    rng = np.random.default_rng(0)
    both = set()
    for error in (0.01, 3.0):
        weights = (target + error * rng.normal(size=degree + 1)).astype(np.float32)
        evaluation = task.evaluate(key, *linear(weights))
        residual = features @ (weights - target)
        loss = np.where(np.abs(residual) <= 1, residual**2 / 2, np.abs(residual) - 0.5)
        both |= set((np.abs(residual) <= 1).tolist())
        # A residual is a difference of two sums of `degree + 1` products.
        products = np.abs(features) @ (np.abs(weights) + np.abs(target))
        limit = (degree + 4) * EPS * products.mean()
        np.testing.assert_allclose(evaluation.episode_return, -loss.mean(), rtol=1e-6, atol=limit)
        assert float(evaluation.return_without_bonus) == float(evaluation.episode_return)
        assert (int(evaluation.steps), bool(evaluation.failed)) == (0, False)
    assert both == {True, False}  # both branches of the loss


def test_the_regressions_target_is_the_best_there_is():
    task = tasks.polynomial_regression(jax.random.key(7), degree=2)
    assert (task.episodes, task.horizon) == (1, 0)  # one call, and no steps
    target = 5.0 * jax.random.normal(jax.random.key(7), (3,), jnp.float32)
    best = task.evaluate(jax.random.key(1), *linear(target)).episode_return
    assert -1e-6 < float(best) <= 0


def test_equal_keys_mean_equal_examples_and_targets():
    network, apply = linear([1.0, -2.0, 0.5])

    def score(target_seed, seed):
        task = tasks.polynomial_regression(jax.random.key(target_seed), degree=2, batch_size=16)
        return float(task.evaluate(jax.random.key(seed), network, apply).episode_return)

    assert score(0, 1) == score(0, 1)
    assert len({score(0, 1), score(0, 2), score(3, 1)}) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_a_score_that_is_not_finite_has_failed(value):
    assert bool(tasks.single_score(jnp.float32(value)).failed) == (not np.isfinite(value))


# ----------------------------------------------------------------------------- normalisers


def sums_of(states, mean):
    """What a generation's rollout adds: sums relative to the mean that stood, in float32."""
    delta = jnp.asarray(states, jnp.float32) - jnp.asarray(mean)[None]
    return normalizer.Sums(
        jnp.float32(len(states)), jnp.sum(delta, axis=0), jnp.sum(delta**2, axis=0)
    )


def stream(seed, generations, offset=0.0, size=3):
    """States of several generations, their spread growing and their mean drifting."""
    rng = np.random.default_rng(seed)
    scale = np.array([0.1, 1.0, 20.0])[:size]
    for generation in range(generations):
        states = rng.normal(size=(rng.integers(20, 60), size)) * (1 + generation / 3)
        yield ((states + generation / 2) * scale + offset).astype(np.float32)


def absorbed(generations, moments):
    for states in generations:
        moments = normalizer.merge(moments, sums_of(states, moments.mean))
    return moments


class Es:
    ours = tasks.es_normalizer()

    def __init__(self, size):
        self.moments = reference.MomentsES(size)

    def add(self, states):
        self.moments.add(states)

    def affine(self):
        std = np.where(self.moments.std == 0, 1, self.moments.std)
        return self.moments.mean, 1 / std


class Ars:
    ours = tasks.ars_normalizer()

    def __init__(self, size):
        self.filter = reference.RunningFilter(size)

    def add(self, states):
        for state in states:
            self.filter.push(state)
        self.filter.refresh()

    def affine(self):
        return self.filter.mean_in_use, 1 / (self.filter.std_in_use + 1e-8)


over_conventions = pytest.mark.parametrize("convention", [Es, Ars])


@over_conventions
def test_observations_are_scaled_as_in_the_reference(convention):
    mine, theirs = normalizer.init_moments(3), convention(3)
    for states in stream(0, 8):
        mine = normalizer.merge(mine, sums_of(states, mine.mean))
        theirs.add(states)
        mean, scale = convention.ours.affine(mine)
        wanted_mean, wanted_scale = theirs.affine()
        # Sums of some hundred terms of the size of the spread.
        np.testing.assert_allclose(mean, wanted_mean, rtol=0, atol=100 * EPS / wanted_scale.min())
        np.testing.assert_allclose(scale, wanted_scale, rtol=200 * EPS)


@over_conventions
def test_the_first_generation_sees_observations_as_they_are(convention):
    mean, scale = convention.ours.affine(normalizer.init_moments(4))
    assert mean.tolist() == [0.0] * 4
    assert scale.tolist() == [1.0] * 4
    mean, scale = tasks.identity_normalizer().affine(
        absorbed(stream(0, 2), normalizer.init_moments(3))
    )
    assert mean.tolist() == [0.0] * 3
    assert scale.tolist() == [1.0] * 3


@over_conventions
def test_an_input_that_never_changes_is_left_alone_or_turned_off(convention):
    generations = [np.zeros((37, 2), np.float32) for _ in range(3)]
    theirs = convention(2)
    for states in generations:
        theirs.add(states)
    _, scale = convention.ours.affine(absorbed(generations, normalizer.init_moments(2)))
    wanted = 0.0 if convention is Ars else 1.0
    assert scale.tolist() == [wanted] * 2 == theirs.affine()[1].tolist()


@over_conventions
def test_a_large_offset_does_not_cost_the_spread_its_digits(convention):
    # Spread 1 about 10,000, where sums of squares have lost everything in float32.
    rng = np.random.default_rng(0)
    generations = [(1e4 + rng.normal(size=(200, 1))).astype(np.float32) for _ in range(10)]
    start = normalizer.Moments(jnp.float32(1), jnp.float32([1e4]), jnp.float32([0]))
    mean, scale = convention.ours.affine(absorbed(generations, start))
    everything = np.concatenate([*generations, [[1e4]]]).astype(np.float64)
    np.testing.assert_allclose(mean, everything.mean(axis=0), rtol=4 * EPS)
    # The mean is off by up to a few of its last digits, 0.001: 10^-5 of the variance. Divisors n
    # and n - 1 differ by 1 in 2,001.
    np.testing.assert_allclose(scale, 1 / everything.std(axis=0), rtol=1e-3)


def far_away():
    """An environment that shows 10,000 plus noise of spread 1, and something that never changes."""

    def observe(key):
        return jnp.stack([1e4 + jax.random.normal(key), jnp.float32(-7.3)])

    def step(key, action):
        del action
        zero = jnp.zeros((), jnp.float32)
        new = jax.random.split(key, 1)[0]
        return new, tasks.Transition(observe(new), zero, zero, jnp.zeros((), bool))

    return tasks.Environment(2, 1, lambda key: (key, observe(key)), step)


@pytest.mark.parametrize("convention", [Ars, pytest.param(Es, marks=pytest.mark.slow)])
def test_a_run_normalises_inputs_that_are_far_from_zero_or_never_change(convention):
    task = tasks.episodes(far_away(), horizon=100, normalizer=convention.ours)
    policy = policies.dense(2, (), 1)
    search = es_enas(
        policy, task, strategies.ars(8, 0), controllers.constant(policy.space), max_failed=0.0
    )
    key = jax.random.key(0)
    state = jax.jit(search.init)(key)
    step = jax.jit(search.step)
    for generation in range(1, 3):
        state, _ = step(key, state)
        mean, scale = convention.ours.affine(state.moments)
        count = 16 * 100 * generation
        assert float(state.moments.count) == count
        # Five standard errors of a mean and of a standard deviation, and the mean's last digit.
        assert abs(float(mean[0]) - 1e4) < 5 / np.sqrt(count) + 1e4 * EPS
        assert abs(float(scale[0]) - 1) < 5 / np.sqrt(2 * count)
        # Its mean is known up to its last digit, and that is not magnified.
        assert abs(float((jnp.float32(-7.3) - mean[1]) * scale[1])) < 8 * EPS


def test_absorbing_generations_equals_absorbing_all_at_once():
    generations = list(stream(3, 6, offset=5.0))
    apart = absorbed(generations, normalizer.init_moments(3))
    together = absorbed([np.concatenate(generations)], normalizer.init_moments(3))
    everything = np.concatenate(generations).astype(np.float64)
    assert float(apart.count) == float(together.count) == len(everything)
    for moments in (apart, together):
        spread = everything.std(axis=0)
        np.testing.assert_allclose(
            (moments.mean - everything.mean(axis=0)) / spread, 0, atol=len(everything) * EPS
        )
        # Relative to 0 the offset of 50 spreads (the first input) costs 50^2 roundings.
        deviation = ((everything - everything.mean(axis=0)) ** 2).sum(axis=0)
        np.testing.assert_allclose(moments.deviation, deviation, rtol=50**2 * 4 * EPS)


@over_conventions
def test_absorbing_nothing_changes_nothing(convention):
    moments = absorbed(stream(0, 3), normalizer.init_moments(3))
    same = normalizer.merge(moments, normalizer.zero_sums(3))
    jax.tree.map(np.testing.assert_array_equal, moments, same)
    nothing = normalizer.merge(normalizer.init_moments(3), normalizer.zero_sums(3))
    jax.tree.map(np.testing.assert_array_equal, nothing, normalizer.init_moments(3))
    assert np.isfinite(convention.ours.affine(nothing)[1]).all()


@over_conventions
def test_counts_beyond_int32_go_on_counting(convention):
    start = normalizer.Moments(
        jnp.float32(3e9), jnp.float32([2.0, -1.0]), jnp.float32([3e9 * 4.0, 3e9 * 0.25])
    )
    rng = np.random.default_rng(0)
    moments = start
    for _ in range(20):
        states = rng.normal(size=(1000, 2)) * [2.0, 0.5] + [2.0, -1.0]
        moments = normalizer.merge(moments, sums_of(states, moments.mean))
    # 1,000 is a multiple of no power of two that matters: float32 counts in steps of 256 here.
    assert abs(float(moments.count) - (3e9 + 20_000)) <= 20 * 128
    mean, scale = convention.ours.affine(moments)
    np.testing.assert_allclose(mean, [2.0, -1.0], rtol=1e-5)
    np.testing.assert_allclose(scale, [0.5, 2.0], rtol=1e-4)
    # A generation of 10^9 that is different does move it: mean (3 * 2 + 1 * 6) / 4 and so on.
    shift = jnp.float32([4.0, 0.0])
    more = normalizer.Sums(jnp.float32(1e9), 1e9 * shift, 1e9 * (shift**2 + 1))
    moved = normalizer.merge(start, more)
    np.testing.assert_allclose(moved.mean, [3.0, -1.0], rtol=1e-5)
    np.testing.assert_allclose(
        moved.deviation, [3e9 * 4 + 1e9 * 17 - 4e9 * 1, 3e9 * 0.25 + 1e9], rtol=1e-5
    )


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: tasks.episodes(tasks.pendulum(), horizon=0),
            ValueError,
            "horizon must be at least 1, got 0.",
        ),
        (
            lambda: tasks.episodes(tasks.pendulum(), horizon=200.0),
            TypeError,
            "horizon must be an integer, got 200.0.",
        ),
        (
            lambda: tasks.episodes(tasks.pendulum(), horizon=10, action_repeat=3),
            ValueError,
            "horizon must be a multiple of action_repeat 3, got 10.",
        ),
        (
            lambda: tasks.episodes(tasks.pendulum(), horizon=10, action_repeat=11),
            ValueError,
            "action_repeat must be in [1, 10], got 11.",
        ),
        (
            lambda: tasks.episodes(tasks.pendulum(), action_repeat=0),
            ValueError,
            "action_repeat must be in [1, 1000], got 0.",
        ),
        (
            lambda: tasks.episodes(tasks.pendulum(), episodes=0),
            ValueError,
            "episodes must be at least 1, got 0.",
        ),
        (
            lambda: tasks.episodes(tasks.pendulum(), episodes=True),
            TypeError,
            "episodes must be an integer, got True.",
        ),
        (
            lambda: tasks.polynomial_regression(jax.random.key(0), degree=0),
            ValueError,
            "degree must be at least 1, got 0.",
        ),
        (
            lambda: tasks.polynomial_regression(jax.random.key(0), batch_size=0),
            ValueError,
            "batch_size must be at least 1, got 0.",
        ),
        (
            lambda: tasks.polynomial_regression(jax.random.key(0), target_scale=0),
            ValueError,
            "target_scale must be a positive finite number, got 0.",
        ),
        (
            lambda: tasks.polynomial_regression(jax.random.key(0), target_scale=float("inf")),
            ValueError,
            "target_scale must be finite, got inf.",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, error, message):
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == message


# --- examples of a generation ---------------------------------------------------------------------


def random_bits(jaxpr) -> list[tuple[int, ...]]:
    """Return the shapes of all random bits that a program draws, loops' bodies once."""
    shapes = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "random_bits":
            shapes.append(eqn.outvars[0].aval.shape)
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(inner, "jaxpr"):
                shapes += random_bits(inner.jaxpr)
            elif hasattr(inner, "eqns"):
                shapes += random_bits(inner)
    return shapes


@pytest.mark.parametrize(
    ("starts", "shape"),
    [("fixed", (97,)), ("generation", (97,)), ("pair", (2, 97)), ("candidate", (2, 97))],
)
@pytest.mark.parametrize("runs", [None, 3])
def test_examples_that_candidates_share_are_drawn_once_for_all_in_the_lanes(starts, shape, runs):
    task = tasks.polynomial_regression(jax.random.key(0), degree=2, batch_size=97)
    policy = policies.dense(3, (), 1, output_activation=policies.identity)
    search = es_enas(
        policy,
        task,
        strategies.ars(4, 2),
        controllers.constant(policy.space),
        population=Population(lanes=2),
        starts=Starts(starts),
    )
    step, init, key = search.step, search.init, jax.random.key(1)
    if runs:
        step, init, key = jax.vmap(step), jax.vmap(init), jax.random.split(key, runs)
    drawn = random_bits(jax.make_jaxpr(step)(key, jax.eval_shape(init, key)).jaxpr)
    assert [bits for bits in drawn if 97 in bits] == [shape]


# --- what an environment's functions return -------------------------------------------------------


def seen(**changes) -> tasks.Transition:
    usual = {"obs": jnp.zeros(3), "reward": 1.0, "bonus": 0.0, "done": False}
    return tasks.Transition(**usual | changes)


KEEPS = "a state that keeps the shape and dtype of every entry"
RETURNED = {  # what reset or step returns, the error, its sentence
    "no state": (
        "reset", jnp.zeros(3), TypeError, "(state, observation), got an array of shape (3,)"
    ),
    "a dict of observations": (
        "reset", (jnp.int32(0), {"a": jnp.zeros(3)}), TypeError,
        "an observation that is one array of shape (3,), got a dict",
    ),
    "a list of observations": (
        "reset", (jnp.int32(0), [0.0, 0.0, 0.0]), TypeError,
        "an observation that is one array of shape (3,), got a list",
    ),
    "another shape": (
        "reset", (jnp.int32(0), jnp.zeros((3, 1))), ValueError,
        "an observation of shape (3,), got (3, 1)",
    ),
    "no Transition": (
        "step", (jnp.int32(0), jnp.zeros(3), 1.0, False), TypeError,
        "(state, Transition), got a tuple of 4",
    ),
    "a tuple for a Transition": (
        "step", (jnp.int32(0), (jnp.zeros(3), 1.0, 0.0, False)), TypeError,
        "(state, Transition), got (state, a tuple of 4)",
    ),
    "a reward with an axis": (
        "step", (jnp.int32(0), seen(reward=jnp.ones(1))), ValueError,
        "one number as reward, got an array of shape (1,)",
    ),
    "an end with an axis": (
        "step", (jnp.int32(0), seen(done=jnp.zeros(1, bool))), ValueError,
        "one number as done, got an array of shape (1,)",
    ),
    "no bonus": (
        "step", (jnp.int32(0), seen(bonus=None)), TypeError, "one number as bonus, got None"
    ),
    "another dtype": (
        "step", (jnp.float32(0), seen()), ValueError,
        KEEPS + ", got float32 of shape () for state, which was int32 of shape ()",
    ),
    "another tree": (
        "step", ((jnp.int32(0),), seen()), ValueError,
        "a state with the entries of the old one, got state, which is missing in the new one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RETURNED)
def test_what_an_environment_must_not_return_is_named_before_any_compile(name):
    function, found, error, sentence = RETURNED[name]
    functions = {
        "reset": lambda key: (jnp.int32(0), jnp.zeros(3)),
        "step": lambda state, action: (state, seen()),
    } | {function: lambda *arguments: found}
    task = tasks.episodes(tasks.Environment(3, 1, **functions), horizon=4)
    policy = policies.dense(3, (), 1)
    search = es_enas(policy, task, strategies.ars(2, 1), controllers.constant(policy.space))
    key = jax.random.key(0)
    with pytest.raises(error) as raised:
        jax.eval_shape(search.step, key, jax.eval_shape(search.init, key))
    assert str(raised.value) == f"the environment's {function} must return {sentence}."


SEARCHES = {
    "swapped": (
        lambda p, t, s, c: (t, p, s, c),
        "policy must be of type Policy, got Episodes; are two arg",
    ),
    "swapped halves": (
        lambda p, t, s, c: (p, t, c, s),
        "strategy must be of type Strategy, got Control",
    ),
    "no task": (
        lambda p, t, s, c: (p, None, s, c),
        "task must be of type SingleShot or Episodes, got No",
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_arguments_in_another_order_are_named(name):
    order, sentence = SEARCHES[name]
    policy, task = policies.dense(3, (), 1), tasks.episodes(tasks.pendulum(), horizon=4)
    pieces = (policy, task, strategies.ars(2, 1), controllers.constant(policy.space))
    with pytest.raises(TypeError) as raised:
        es_enas(*order(*pieces))
    assert str(raised.value).startswith(sentence)
    search = es_enas(*pieces)
    with pytest.raises(ValueError, match=r"^generations must be at least 0, got -1\.$"):
        search.run(jax.random.key(0), None, -1)
