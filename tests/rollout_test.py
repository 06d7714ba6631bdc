"""Episodes in lanes: every total against a plain Python loop, whatever the schedule."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import policies, tasks
from esenas_jax.population import CPU, WIDE, Population
from esenas_jax.rollout import rollout
from esenas_jax.tasks.task import Lens

RUN_KEY = jax.random.key(7)
REFERENCE = np.array([2.0, -1.0, 0.0], np.float32)
LONGEST = 9
SCHEDULES = {  # episodes, lanes, refill_every
    "one lane": (7, 1, 1),
    "one lane, refilled late": (5, 1, 4),
    "lanes that divide nothing": (13, 3, 2),
    "refilled after any episode": (11, 4, 20),
    "a lane each": (6, 6, 3),
    "more lanes than episodes": (4, 9, 2),
    "many lanes, several ending together": (40, 17, 4),
    "one episode": (1, 5, 3),
}
SLOW = pytest.mark.slow
CONVENTIONS = {"es": tasks.es_normalizer(), "ars": tasks.ars_normalizer()}


# A world whose every number is a small integer, so that float32 sums are exact in any order. An
# episode lasts `length` steps (1 .. LONGEST); afterwards nothing is what it was: whoever counts a
# step of the dead sees NaN.


class World(NamedTuple):
    length: jax.Array
    base: jax.Array
    time: jax.Array


def observe(world):
    return jnp.stack([world.time, world.base, world.time * world.base]).astype(jnp.float32)


def reset(key):
    k_length, k_base = jax.random.split(key)
    length = jax.random.randint(k_length, (), 1, LONGEST + 1)
    base = jax.random.randint(k_base, (), -3, 4)
    world = World(length, base, jnp.int32(0))
    return world, observe(world)


def step(world, action):
    world = world._replace(time=world.time + 1)
    dead = world.time > world.length
    reward = action[0] * world.time.astype(jnp.float32) + world.base.astype(jnp.float32)
    bonus = 1.0 + action[0]
    poison = jnp.where(dead, jnp.nan, 0.0)
    return world, tasks.Transition(
        observe(world) + poison, reward + poison, bonus + poison, world.time >= world.length
    )


COUNTING = tasks.Environment(3, 1, reset, step)


def start(episode):
    """The network of an episode is its number."""
    return episode.astype(jnp.float32), jax.random.fold_in(RUN_KEY, episode)


def lens(episode):
    del episode
    return Lens(jnp.asarray(REFERENCE), jnp.zeros(3), jnp.ones(3))


def apply(network, obs):
    return (network + obs[0])[None]


@functools.cache
def all_drawn():
    keys = jax.vmap(functools.partial(jax.random.fold_in, RUN_KEY))(jnp.arange(40))
    worlds, _ = jax.vmap(reset)(keys)
    return list(zip(worlds.length.tolist(), worlds.base.tolist(), strict=True))


def drawn(episode):
    """Length and base of the episode that `start` gives this number."""
    return all_drawn()[episode]


class Expected(NamedTuple):
    reward: float
    bonus: float
    steps: int
    seen: list


def by_hand(length, base, network, *, horizon, action_repeat, convention):
    """One episode in plain Python."""
    observation = lambda time: np.array([time, base, time * base], float)  # noqa: E731
    time, reward, bonus, seen, over = 0, 0.0, 0.0, [], False
    while not over:
        if convention == "ars":
            seen.append(observation(time))
        action = network + time
        for _ in range(action_repeat):
            time += 1
            reward += action * time + base
            bonus += 1 + action
            over = time in (length, horizon)
            if over:
                break
        if convention == "es":
            seen.append(observation(time))
    return Expected(reward, bonus, time, seen)


@functools.cache
def runner(schedule, convention, horizon=LONGEST + 3, action_repeat=1):
    num_episodes, lanes, refill_every = SCHEDULES[schedule]
    task = tasks.episodes(
        COUNTING,
        horizon=horizon,
        action_repeat=action_repeat,
        normalizer=CONVENTIONS.get(convention),
    )
    run = functools.partial(
        rollout, task, num_episodes=num_episodes, lanes=lanes, refill_every=refill_every
    )
    return jax.jit(lambda: run(start, lens, apply)), num_episodes


def check_sums(sums, expected):
    for e, episode in enumerate(expected):
        seen = np.array([o - REFERENCE for o in episode.seen]).reshape(-1, 3)
        assert float(sums.count[e]) == len(seen)
        np.testing.assert_array_equal(sums.first[e], np.sum(seen, axis=0))
        np.testing.assert_array_equal(sums.second[e], np.sum(np.square(seen), axis=0))


def check(schedule, convention, **task):
    run, num_episodes = runner(schedule, convention, **task)
    totals, sums = jax.tree.map(np.asarray, run())
    task = {"horizon": LONGEST + 3, "action_repeat": 1} | task
    expected = [
        by_hand(*drawn(e), float(e), convention=convention, **task) for e in range(num_episodes)
    ]
    for name in ("reward", "bonus", "steps"):
        np.testing.assert_array_equal(
            getattr(totals, name), [getattr(episode, name) for episode in expected]
        )
    if convention is None:
        assert sums == ()
    else:
        check_sums(sums, expected)
    return [episode.steps for episode in expected]


over_conventions = pytest.mark.parametrize("convention", CONVENTIONS)


@pytest.mark.parametrize(
    ("schedule", "convention"),
    [
        ("one lane, refilled late", "es"),
        ("lanes that divide nothing", "es"),
        ("lanes that divide nothing", "ars"),
        ("more lanes than episodes", "es"),
        ("many lanes, several ending together", "es"),
        *(
            pytest.param(schedule, convention, marks=SLOW)
            for schedule, convention in (
                ("one lane", "es"),
                ("refilled after any episode", "es"),
                ("a lane each", "es"),
                ("one episode", "es"),
                ("one lane, refilled late", "ars"),
            )
        ),
    ],
)
def test_totals_and_observations_are_those_of_a_python_loop(schedule, convention):
    check(schedule, convention)


@functools.cache
def padded():
    """Return the compiled rollout of the first so many of 13 episodes."""
    task = tasks.episodes(COUNTING, horizon=LONGEST + 3, normalizer=CONVENTIONS["es"])
    return jax.jit(
        lambda count: rollout(
            task, start, lens, apply,
            num_episodes=13, to_run=count, lanes=3, refill_every=2,
        )
    )  # fmt: skip


@pytest.mark.parametrize("to_run", [0, 1, 2, 5, 13])
def test_episodes_that_are_only_padding_are_not_run_and_sum_up_to_nothing(to_run):
    totals, sums = padded()(jnp.int32(to_run))
    task = {"horizon": LONGEST + 3, "action_repeat": 1, "convention": "es"}
    expected = [by_hand(*drawn(e), float(e), **task) for e in range(to_run)]
    for name in ("reward", "bonus", "steps"):
        values = [getattr(episode, name) for episode in expected]
        np.testing.assert_array_equal(getattr(totals, name), values + [0] * (13 - to_run))
    check_sums(jax.tree.map(lambda x: x[:to_run], sums), expected)
    assert not any(np.asarray(x)[to_run:].any() for x in sums)


def test_the_episodes_of_the_table_end_at_the_first_step_and_at_the_last():
    lengths = {drawn(e)[0] for e in range(13)}
    assert {1, LONGEST} <= lengths


@over_conventions
def test_the_horizon_cuts_an_episode_short_and_its_last_step_counts(convention):
    steps = check("lanes that divide nothing", convention, horizon=4)
    assert steps.count(4) > 1
    assert min(steps) < 4


@over_conventions
def test_one_step_is_an_episode(convention):
    assert check("lanes that divide nothing", convention, horizon=1) == [1] * 13


@over_conventions
@pytest.mark.parametrize("horizon", [6, pytest.param(12, marks=SLOW)])
def test_an_action_is_held_and_an_episode_may_end_while_it_is(convention, horizon):
    steps = check("lanes that divide nothing", convention, horizon=horizon, action_repeat=3)
    assert {s % 3 for s in steps} == {0, 1, 2}
    assert (max(steps) == 6) == (horizon == 6)


def test_nothing_is_summed_when_nothing_is_normalised():
    run, _ = runner("lanes that divide nothing", None)
    totals, sums = run()
    others, _ = runner("lanes that divide nothing", "es")[0]()
    jax.tree.map(np.testing.assert_array_equal, totals, others)
    assert sums == ()


# -------------------------------------------------------------------------------- failures


def failing(victim, *, of, when):
    """COUNTING with one episode in which `of` (reward or obs) is NaN from step `when` on."""

    def poisoned_step(world, action):
        world, transition = step(world, action)
        # The action tells which episode it is: apply adds the time before the step.
        number = action[0] - (world.time - 1).astype(jnp.float32)
        poison = jnp.where((number == victim) & (world.time >= when), jnp.nan, 0.0)
        wrong = getattr(transition, of) + poison
        return world, transition._replace(**{of: wrong})

    return COUNTING._replace(step=poisoned_step)


def run_failing(environment, lanes, convention):
    task = tasks.episodes(environment, horizon=LONGEST, normalizer=CONVENTIONS[convention])
    options = {"num_episodes": 13, "lanes": lanes, "refill_every": 2}
    run = jax.jit(lambda: rollout(task, start, lens, apply, **options))
    return jax.tree.map(np.asarray, run())


@pytest.mark.parametrize(("convention", "lanes"), [("es", 3), ("ars", 13)])
def test_a_lane_whose_reward_is_not_a_number_fails_alone_and_early(convention, lanes):
    victim = next(e for e in range(13) if drawn(e)[0] > 5)
    totals, sums = run_failing(failing(victim, of="reward", when=3), lanes, convention)
    assert np.isnan(totals.reward[victim])
    assert totals.steps[victim] == 3
    # To the others nothing happened, and what the victim saw is left out.
    task = {"horizon": LONGEST, "action_repeat": 1, "convention": convention}
    others = [e for e in range(13) if e != victim]
    expected = [by_hand(*drawn(e), float(e), **task) for e in others]
    for name in ("reward", "bonus", "steps"):
        np.testing.assert_array_equal(
            getattr(totals, name)[others], [getattr(episode, name) for episode in expected]
        )
    check_sums(jax.tree.map(lambda x: x[np.array(others)], sums), expected)
    assert not any(np.asarray(x)[victim].any() for x in sums)


def test_an_observation_that_is_not_a_number_never_enters_the_sums():
    # One NaN in the moments would stay for ever, and blind every candidate to come. The return
    # gives no warning when the episode ends before it is affected.
    victim = next(e for e in range(13) if drawn(e)[0] == 5)
    totals, sums = run_failing(failing(victim, of="obs", when=5), 3, "es")
    task = {"horizon": LONGEST, "action_repeat": 1, "convention": "es"}
    others = [e for e in range(13) if e != victim]
    expected = [by_hand(*drawn(e), float(e), **task) for e in others]
    np.testing.assert_array_equal(totals.reward[others], [e.reward for e in expected])
    check_sums(jax.tree.map(lambda x: x[np.array(others)], sums), expected)
    assert all(np.isfinite(x).all() for x in sums)


# ------------------------------------------------------------------------------ population


def evaluate(population, task, ids, run_key=RUN_KEY, shift=0.0):
    """Candidate i acts with the number i, and sees time later by `shift`."""

    def bound(given, i):
        return i.astype(jnp.float32), jax.random.fold_in(given[0], i)

    def seen_through(given, i):
        return lens(i)._replace(mean=jnp.zeros(3).at[0].set(-given[1]))

    return population.evaluate(task, (run_key, shift), bound, seen_through, apply, ids)


@pytest.mark.parametrize("lanes", [5, *(pytest.param(n, marks=SLOW) for n in (1, 40))])
def test_runs_that_share_lanes_score_as_each_alone(lanes):
    task = tasks.episodes(COUNTING, horizon=LONGEST, episodes=2, normalizer=tasks.es_normalizer())
    population, ids = Population(lanes=lanes, refill_every=2), jnp.array([4, 0, 7], jnp.int32)
    keys, shifts = jax.random.split(RUN_KEY, 4), jnp.arange(4, dtype=jnp.float32)
    of_a_run = functools.partial(evaluate, population, task, ids)
    together = jax.jit(jax.vmap(of_a_run))(keys, shifts)
    for run in range(4):
        alone = jax.jit(of_a_run)(keys[run], shifts[run])
        mine = jax.tree.map(lambda x, run=run: x[run], together)
        # Sums of small integers, in any order; means divide once.
        jax.tree.map(np.testing.assert_array_equal, mine, alone)
    assert len(set(np.asarray(together.statistics.first[:, 0]).tolist())) > 1
    assert len({tuple(row) for row in np.asarray(together.episode_return).tolist()}) == 4


@pytest.mark.parametrize("lanes", [1, 5])
def test_a_candidates_scores_are_means_over_its_own_episodes(lanes):
    repeats, ids = 3, [4, 0, 7, 2]
    task = tasks.episodes(
        COUNTING, horizon=LONGEST, episodes=repeats, normalizer=tasks.es_normalizer()
    )
    population = Population(lanes=lanes, refill_every=3)

    evaluation = jax.jit(functools.partial(evaluate, population, task))(jnp.array(ids, jnp.int32))
    count = 0
    for row, i in enumerate(ids):
        key = jax.random.fold_in(RUN_KEY, i)
        worlds = [reset(jax.random.fold_in(key, r))[0] for r in range(repeats)]
        options = {"horizon": LONGEST, "action_repeat": 1, "convention": "es"}
        mine = [by_hand(int(w.length), int(w.base), float(i), **options) for w in worlds]
        reward = sum(episode.reward for episode in mine)
        bonus = sum(episode.bonus for episode in mine)
        steps = sum(episode.steps for episode in mine)
        count += steps  # the es convention counts one observation a step
        # Sums of small integers, divided once.
        np.testing.assert_allclose(evaluation.episode_return[row], reward / 3, rtol=1e-6)
        np.testing.assert_allclose(
            evaluation.return_without_bonus[row], (reward - bonus) / 3, rtol=1e-6, atol=1e-6
        )
        assert int(evaluation.steps[row]) == steps
        np.testing.assert_allclose(evaluation.episode_length[row], steps / 3, rtol=1e-6)
    assert not np.asarray(evaluation.failed).any()
    assert float(evaluation.statistics.count) == count


def test_one_failed_episode_fails_its_candidate_and_no_other():
    task = tasks.episodes(failing(1.0, of="reward", when=1), horizon=LONGEST, episodes=2)

    of_three = functools.partial(evaluate, Population(lanes=2), task)
    evaluation = jax.jit(of_three)(jnp.arange(3, dtype=jnp.int32))
    assert evaluation.failed.tolist() == [False, True, False]
    assert np.isfinite(evaluation.episode_return).tolist() == [True, False, True]


@functools.cache
def pendulum_returns(lanes, refill_every):
    task = tasks.episodes(tasks.pendulum(), horizon=50, episodes=2)
    policy = policies.dense(3, (4,), 1)
    genotype = policy.space.sample(jax.random.key(0))

    def bound(given, i):
        key = jax.random.fold_in(jax.random.key(5), i)
        return policy.bind(policy.init(key), genotype), key

    population = Population(lanes=lanes, refill_every=refill_every)
    ids = jnp.arange(7, dtype=jnp.int32)
    returns = jax.jit(
        lambda: (
            population.evaluate(
                task, (), bound, lambda given, i: lens(i), policy.apply, ids
            ).episode_return
        )
    )
    return np.asarray(returns())


@SLOW
def test_lanes_change_pendulum_returns_only_by_rounding():
    first = pendulum_returns(64, 50)
    assert (first < -10).all()
    assert len(set(first.tolist())) == 7
    for schedule in ((1, 16), (3, 7)):
        np.testing.assert_allclose(pendulum_returns(*schedule), first, rtol=1e-5)


@pytest.mark.parametrize("lanes", [3, *(pytest.param(n, marks=SLOW) for n in (1, 64))])
def test_single_shot_candidates_are_the_same_in_any_number_of_lanes(lanes):
    task = tasks.polynomial_regression(jax.random.key(0), degree=2, batch_size=8)
    policy = policies.dense(3, (), 1, output_activation=policies.identity)
    genotype = policy.space.sample(jax.random.key(0))

    def key(i):
        return jax.random.fold_in(jax.random.key(5), i)

    def network(i):
        return policy.bind(policy.init(key(i)), genotype)

    def bound(given, ids):
        return jax.vmap(network)(ids), key

    ids = jnp.array([6, 1, 3, 0, 9, 4, 2], jnp.int32)
    evaluate = functools.partial(Population(lanes=lanes).evaluate, task, (), bound, None)
    evaluation = jax.jit(functools.partial(evaluate, policy.apply))(ids)
    alone = [float(task.evaluate(key(i), network(i), policy.apply).episode_return) for i in ids]
    np.testing.assert_allclose(evaluation.episode_return, alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lanes": 0}, ValueError, "lanes must be at least 1, got 0."),
        ({"refill_every": -1}, ValueError, "refill_every must be at least 1, got -1."),
        ({"chunk": 0}, ValueError, "chunk must be at least 1, got 0."),
        ({"lanes": 2.0}, TypeError, "lanes must be an integer, got 2.0."),
        ({"chunk": True}, TypeError, "chunk must be an integer, got True."),
        ({"noise_bytes": -1}, ValueError, "noise_bytes must be at least 0, got -1."),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, error, message):
    with pytest.raises(error) as raised:
        Population(**arguments)
    assert str(raised.value) == message


def test_fewer_directions_are_added_up_at_a_time_where_they_are_long():
    def chunk(size, **given):
        return Population(**given).chunk_for(jax.ShapeDtypeStruct((size,), jnp.float32))

    assert chunk(10_000) == CPU.chunk
    assert chunk(2**28) == chunk(2**30) == 1
    assert chunk(2**24) == 2**4 < CPU.chunk
    assert chunk(2**30, chunk=7) == 7


def test_other_devices_than_a_cpu_start_all_episodes_at_once(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for world in (tasks.pendulum(), tasks.mountain_car()):
        assert Population().lanes_for(tasks.episodes(world), 27) == WIDE.lanes
    assert Population(lanes=5).lanes_for(tasks.episodes(tasks.pendulum())) == 5
    single_shot = tasks.SingleShot(1, 1, lambda key, network, apply: tasks.single_score(0.0))
    assert Population().lanes_for(single_shot) == WIDE.lanes_single_shot


def test_worlds_that_never_end_early_have_more_lanes_unless_told():
    endless = tasks.episodes(tasks.pendulum())
    ending = tasks.episodes(tasks.mountain_car())
    assert Population().lanes_for(endless) == CPU.lanes_endless
    assert Population().lanes_for(ending) == CPU.lanes < CPU.lanes_endless
    # Of few episodes half are started at first, where they end early.
    assert Population().lanes_for(ending, 27) == 14
    assert Population().lanes_for(ending, 1000) == CPU.lanes
    assert Population().lanes_for(endless, 27) == CPU.lanes_endless
    assert Population(lanes=5).lanes_for(ending, 6) == 5
    assert Population(lanes=5).lanes_for(endless) == Population(lanes=5).lanes_for(ending) == 5
    # What says that it never ends does not.
    world = endless.environment
    state, _ = world.reset(jax.random.key(0))
    _, seen = jax.lax.scan(world.step, state, jnp.ones((200, 1), jnp.float32))
    assert not seen.done.any()
