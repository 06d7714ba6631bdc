"""The promises of the library, each tested over a table of everything that makes them.

A new strategy, controller, policy or task gets these tests by adding a row.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyglove as pg
import pytest
from flax import linen as nn

from esenas_jax import (
    Population,
    Search,
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
from esenas_jax.spaces import SubsetOf
from esenas_jax.types import Evaluation, Key
from tests.support.compiling import in_a_process, jit_as_shipped

KEY = jax.random.key(7)


def counting() -> tasks.Environment:
    """A world that shows integers: whatever it shows, the state's dtypes stay the same."""

    def show(position):
        return jnp.stack([position, -position])

    def reset(key):
        position = jax.random.randint(key, (), 0, 5)
        return position, show(position)

    def step(position, action):
        position = position + jnp.where(action[0] > 0, 1, -1)
        reward = position.astype(jnp.float32)
        zero = jnp.zeros((), jnp.float32)
        return position, tasks.Transition(show(position), reward, zero, position > 7)

    return tasks.Environment(obs_size=2, action_size=1, reset=reset, step=step)


TASKS = {
    "integers normalized as es": lambda: tasks.episodes(
        counting(), horizon=12, normalizer=tasks.es_normalizer()
    ),
    "regression": lambda: tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=64),
    "classification": lambda: tasks.supervised(
        tasks.Examples(np.eye(6, dtype=np.float32), np.arange(6) % 2), 2, batch_size=4
    ),
    "pendulum": lambda: tasks.episodes(tasks.pendulum(), horizon=24),
    "pendulum normalized as es": lambda: tasks.episodes(
        tasks.pendulum(), horizon=24, normalizer=tasks.es_normalizer()
    ),
    "mountain car normalized as ars, twice, held": lambda: tasks.episodes(
        tasks.mountain_car(),
        horizon=24,
        action_repeat=2,
        episodes=2,
        normalizer=tasks.ars_normalizer(),
    ),
}
POLICIES = {
    "linear": lambda o, a: policies.dense(o, (), a, output_activation=policies.identity),
    "dense": lambda o, a: policies.dense(o, (4,), a),
    "edge_pruned": lambda o, a: policies.edge_pruned(o, (4,), a, num_edges=5),
    "partitioned": lambda o, a: policies.partitioned(o, (4,), a, num_partitions=3),
    "edge_pruned, released slip": lambda o, a: policies.edge_pruned(
        o, (4, 3), a, num_edges=6, linear_first_hidden=True
    ),
    "independent_edges": lambda o, a: policies.independent_edges(o, (4,), a, num_edges=(3, 2)),
    "op_edges": lambda o, a: policies.op_edges(o, (4,), a, num_edges=5),
    "boolean_mask": lambda o, a: policies.boolean_mask(o, (4,), a),
}
# Made of the same parts as those above: one generation of each, and its tests in policies_test.
MORE_POLICIES = {
    "residual_edges": lambda o, a: policies.residual_edges(o, (4,), a, num_edges=5),
    "partitioned, per layer": lambda o, a: policies.partitioned(o, (4,), a, 3, per_layer=True),
    "random_mask": lambda o, a: policies.random_mask(o, (4,), a, num_edges=5),
    "magnitude_pruned": lambda o, a: policies.magnitude_pruned(
        o, (4,), a, 5, np.arange(4 * (o + 1 + a), dtype=np.float32)
    ),
    "toeplitz": lambda o, a: policies.toeplitz(o, (4,), a),
    "circulant": lambda o, a: policies.circulant(o, (4,), a),
    "from_flax": lambda o, a: policies.from_flax(nn.Dense(a), jnp.zeros(o), num_edges=2),
    "flax_dense": lambda o, a: policies.flax_dense(
        o, a, hidden=(4,), search="edges", num_edges=5, compute_dtype="bfloat16"
    ),
    "flax_convolutional": lambda o, a: policies.flax_convolutional(
        o, a, image=(o, 1, 1), channels=(2,), strides=(1,), search="partition", num_partitions=3
    ),
}
STRATEGIES = {
    "es": lambda: strategies.es(6, 3, 0.1, 0.05),
    "es, truncated, adam, ranks": lambda: strategies.es(
        6,
        3,
        0.1,
        0.05,
        num_elites=4,
        shaping=strategies.centered_ranks,
        optimizer=optax.adam,
        noise=strategies.hadamard(),
    ),
    "es, forward": lambda: strategies.es(
        12, 3, 0.1, 0.05, antithetic=False, noise=strategies.rademacher()
    ),
    "es, of users": lambda: strategies.es(6, 3, 0.1, 0.05, unused=strategies.Unused.SHARED),
    "ars V2-t": lambda: strategies.ars(6, 3, 0.1, 0.05, num_elites=4),
    "ars without exact": lambda: strategies.ars(
        6, 0, 0.1, 0.05, noise=strategies.shared_table(2**10, "float16")
    ),
}
CONTROLLERS = {
    "constant": controllers.constant,
    "random": lambda space: controllers.random(space, num_best=3),
    "hill_climbing": controllers.hill_climbing,
    "regularized_evolution": lambda space: controllers.regularized_evolution(space, 10),
    "reinforce": lambda space: controllers.reinforce(space, entropy_weight=0.1),
    "ppo, autoregressive": lambda space: controllers.ppo(
        space, controllers.autoregressive(4), minibatch_size=8
    ),
    "cross_entropy": controllers.cross_entropy,
    "nsga2": lambda space: controllers.nsga2(space, 10),
    "pyglove": lambda space: controllers.pyglove(space, pg.geno.Random(), 15),  # never exchanged
}
OPTIONS = {
    "defaults": {},
    "paired": {"starts": Starts.PAIR, "shared_architecture": True},
    "every third": {"starts": Starts.GENERATION, "propose_every": 3},
    "fixed": {"starts": Starts.FIXED, "objective": objectives.shifted_return(1.0)},
    "baseline": {"baseline_rate": 0.5},
    "released product": {"objective": objectives.weighted_product(4.0)},
    "penalty": {"objective": objectives.linear_penalty(0.1, penalize_strategy=True)},
    "limit": {"objective": objectives.hard_limit(4)},
    "pareto": {"objective": objectives.pareto("bits")},
}
NORMALIZED = (
    "pendulum normalized as es", "edge_pruned", "es", "regularized_evolution", "defaults"
)  # fmt: skip
TWICE = ("mountain car normalized as ars, twice, held", "linear", "ars V2-t", "constant", "fixed")
DENSE = ("integers normalized as es", "dense", "es", "constant", "defaults")
DISTRIBUTED = (
    "regression", "partitioned", "es, truncated, adam, ranks", "cross_entropy", "every third"
)  # fmt: skip
# Every factory at least once, in as few rows as there are controllers and one more.
COVERING = [
    NORMALIZED,
    ("regression", "independent_edges", "es, of users", "reinforce", "baseline"),
    TWICE,
    DENSE,
    ("classification", "edge_pruned", "es", "random", "penalty"),
    ("regression", "op_edges", "es, forward", "hill_climbing", "released product"),
    (
        "pendulum",
        "edge_pruned, released slip",
        "ars without exact",
        "ppo, autoregressive",
        "paired",
    ),
    DISTRIBUTED,
    ("regression", "boolean_mask", "ars V2-t", "nsga2", "pareto"),
    ("integers normalized as es", "boolean_mask", "es", "pyglove", "limit"),
]
# More pairs that know of each other, under `make test-all`.
MORE = [
    ("regression", "linear", "ars V2-t", "constant", "every third"),
    ("regression", "op_edges", "es, forward", "regularized_evolution", "defaults"),
    ("classification", "edge_pruned", "es", "regularized_evolution", "every third"),
    ("regression", "boolean_mask", "es", "hill_climbing", "released product"),
    ("regression", "boolean_mask", "es", "regularized_evolution", "limit"),
    ("regression", "boolean_mask", "es", "random", "penalty"),
    ("pendulum", "independent_edges", "es, truncated, adam, ranks", "random", "paired"),
    ("pendulum", "edge_pruned, released slip", "ars without exact", "random", "fixed"),
    ("regression", "edge_pruned", "es, of users", "reinforce", "baseline"),
    ("regression", "edge_pruned", "ars V2-t", "ppo, autoregressive", "paired"),
    ("regression", "partitioned", "es", "cross_entropy", "every third"),
    ("regression", "edge_pruned", "es", "pyglove", "paired"),
    (
        "mountain car normalized as ars, twice, held",
        "partitioned",
        "ars V2-t",
        "regularized_evolution",
        "every third",
    ),
]
TABLE = COVERING + MORE


def make(
    task: str,
    policy: str,
    strategy: str,
    controller: str,
    options: str,
    population: Population | None = None,
) -> Search:
    world = TASKS[task]()
    network = (POLICIES | MORE_POLICIES)[policy](world.obs_size, world.action_size)
    return es_enas(
        network,
        world,
        STRATEGIES[strategy](),
        CONTROLLERS[controller](network.space),
        population=population or Population(lanes=5, refill_every=7, chunk=4),
        **OPTIONS[options],
    )


@dataclasses.dataclass
class Case:
    """A search and its compiled functions, shared by the tests of a row."""

    search: Search
    traces: list[int]  # one for each time that `step` was traced
    traces_of_four_steps: int  # later ones trace anew if `conftest.room_for_programs` dropped it
    init: Callable
    step: Callable
    ask: Callable  # (state, ids) -> candidates
    states: list  # after 0, 1, 2, ... generations
    metrics: list

    @property
    def ids(self) -> jax.Array:
        return jnp.arange(self.search.num_candidates)


def case(row: tuple[str, ...], compiled=jax.jit) -> Case:
    return _case(row, compiled)


@functools.cache  # of both arguments, however `case` is called
def _case(row: tuple[str, ...], compiled) -> Case:
    search = make(*row)
    traces = []

    def traced(key, state):
        traces.append(1)
        return search.step(key, state)

    @compiled
    def ask(state, ids):
        return jax.vmap(lambda i: search.candidate(KEY, state, state.generation, i))(ids)

    init, step = compiled(search.init), compiled(traced)
    states, metrics = [init(KEY)], []
    for _ in range(4):
        state, seen = step(KEY, states[-1])
        states.append(state)
        metrics.append(seen)
    return Case(search, traces, len(traces), init, step, ask, states, metrics)


def over(*rows_and_compilers):
    """Run a test on rows, each with how its programs are compiled, or with a mark besides."""
    params = [
        pytest.param(row, compiled, marks=marks, id=" | ".join((*row, compiled.__name__)))
        for row, compiled, marks in rows_and_compilers
    ]
    return pytest.mark.parametrize(("row", "compiled"), params)


SLOW = pytest.mark.slow
# One device's part of `make test-short`; `devices_test` runs the same rows on two.
SHORT = [NORMALIZED, TWICE, DENSE, DISTRIBUTED, COVERING[1]]
every_row = over(
    *(
        (row, jax.jit, pytest.mark.short if row in SHORT else () if row in COVERING else SLOW)
        for row in TABLE
    )
)
# Quick rows: episodes whose normalizer gathers statistics, and a front of single shots.
IN_PARTS = [
    (row, jax.jit, () if row == NORMALIZED or row[3] == "nsga2" else SLOW) for row in COVERING
]


def equal(a, b) -> bool:
    """Whether two trees are the same, bit for bit."""
    same_tree = jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return same_tree and all(
        x.dtype == y.dtype
        and x.shape == y.shape
        and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in pairs
    )


def described(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_every_factory_is_in_the_table():
    for position, known in enumerate((TASKS, POLICIES, STRATEGIES, CONTROLLERS, OPTIONS)):
        assert {row[position] for row in COVERING} == set(known)


# --- contract 1 -----------------------------------------------------------------------------------


@every_row
def test_the_state_is_a_fixed_point_and_the_second_call_traces_nothing(row, compiled):
    made = case(row, compiled)
    for state in [jax.eval_shape(made.search.init, KEY), *made.states]:
        assert described(state) == described(made.states[0])
    assert made.traces_of_four_steps == 1


@pytest.mark.parametrize(
    "row", [pytest.param(r, marks=() if r == DENSE else SLOW, id=" | ".join(r)) for r in COVERING]
)
def test_with_64_bits_all_numbers_stay_32(row):
    with jax.enable_x64(True):
        search = make(*row)
        state = jax.eval_shape(search.init, KEY)
        after, metrics = jax.eval_shape(search.step, KEY, state)
    assert described(after) == described(state)
    found = {x.dtype for x in jax.tree.leaves((after, metrics))}
    # float16 is that of a table of noise
    assert found <= {jnp.dtype(name) for name in ("float32", "float16", "int32", "bool")}


# --- contract 2 -----------------------------------------------------------------------------------


def close(a, b) -> bool:
    """Whether two trees are the same to rounding, and all integers and keys exactly."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        x.shape == y.shape
        and x.dtype == y.dtype
        and (
            np.allclose(x, y, rtol=1e-4, atol=1e-5, equal_nan=True)
            if jnp.issubdtype(x.dtype, jnp.floating)
            else np.array_equal(x, y)
        )
        for x, y in pairs
    )


@over(*IN_PARTS)
def test_step_is_tell_of_evaluate_of_candidates(row, compiled):
    """To rounding: programs of parts and of a whole may contract a product and a sum, or not."""
    for (told, told_metrics), (after, metrics) in told_and_stepped(row, compiled):
        assert close(told, after)
        for x, y in zip(jax.tree.leaves(told_metrics), jax.tree.leaves(metrics), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(k, marks=() if row == DENSE else SLOW, id=" | ".join(row))
        for k, row in enumerate(COVERING)
    ],
)
def test_step_is_tell_of_evaluate_of_candidates_bit_for_bit(place):
    code = f"from tests.contract_test import compare_bits; compare_bits({place})"
    assert in_a_process(code) == ["the same bits"]


def compare_bits(place: int) -> None:
    """Compare a row of `COVERING` in a process in which nothing is contracted."""
    for (told, told_metrics), (after, metrics) in told_and_stepped(COVERING[place], jax.jit):
        assert equal(told, after)
        # Reports, which no state depends on: their sums may be fused in another order.
        for x, y in zip(jax.tree.leaves(told_metrics), jax.tree.leaves(metrics), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)
    print("the same bits")


def told_and_stepped(row, compiled):
    """Yield what two generations come to, from the parts of a step and from the step."""
    made = case(row, compiled)
    search, states, ids = made.search, made.states, made.ids
    evaluate, tell = compiled(search.evaluate), compiled(search.tell)
    for before, after, metrics in zip(states, states[1:3], made.metrics, strict=False):
        asked = made.ask(before, ids)
        seen = evaluate(before, asked)
        told = tell(KEY, before, before.generation, ids, asked.genotype, asked.info, seen)
        yield told, (after, metrics)


def test_noise_that_is_kept_is_the_noise_that_is_drawn_again():
    """A step, and a late one, whose candidates were made from an earlier state."""
    row = ("regression", "linear", "es", "constant", "defaults")
    kept, again = (
        make(*row, population=Population(lanes=5, chunk=4, noise_bytes=most)) for most in (None, 0)
    )
    before = jax.jit(kept.init)(KEY)
    after = jax.jit(kept.step)(KEY, before)[0]
    assert close(after, jax.jit(again.step)(KEY, before)[0])
    late = [jax.jit(search.step_from)(KEY, before.source, after)[0] for search in (kept, again)]
    assert close(*late)
    assert described(late[0]) == described(before)
    timely = jax.jit(kept.step)(KEY, after)[0]
    assert not np.allclose(late[0].strategy.params, timely.strategy.params, rtol=1e-3)


@over((DISTRIBUTED, jax.jit, ()), *((row, jit_as_shipped, SLOW) for row in COVERING))
def test_a_run_is_its_steps_however_it_is_cut(row, compiled):
    """Bit for bit as users compile it; compiled quickly, to rounding."""
    same = equal if compiled is jit_as_shipped else close
    made = case(row, compiled)
    run = compiled(made.search.run, static_argnums=2)
    halfway, first = run(KEY, made.states[0], 2)
    end, second = run(KEY, halfway, 2)
    assert same(halfway, made.states[2])
    assert same(end, made.states[4])
    curve = np.concatenate([first.exact_mean, second.exact_mean])
    assert same(curve, np.array([m.exact_mean for m in made.metrics]))
    # Two programs that round a few numbers otherwise may agree on one key by chance.
    for key in jax.random.split(KEY, 10):
        start = made.init(key)
        by_steps = made.step(key, made.step(key, start)[0])[0]
        assert same(run(key, start, 2)[0], by_steps)


@pytest.mark.parametrize(
    "policy",
    [pytest.param(name, marks=() if name == "from_flax" else SLOW) for name in MORE_POLICIES],
)
def test_every_policy_keeps_the_state_and_moves_it(policy):
    search = make("regression", policy, "es", "regularized_evolution", "defaults")
    before = jax.jit(search.init)(KEY)
    after, metrics = jax.jit(search.step)(KEY, before)
    assert described(after) == described(before)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics))
    assert not np.array_equal(after.strategy.params, before.strategy.params)
    # What is logged of the architectures is what they cost.
    costs = jax.vmap(search.policy.cost)(after.controller.genotypes)
    for name, each in costs._asdict().items():
        exact = np.asarray(each[-search.strategy.num_exact :], np.float64)
        np.testing.assert_allclose(getattr(metrics, name), exact.mean(), rtol=1e-5, err_msg=name)


@SLOW
@pytest.mark.parametrize("row", MORE[:2], ids=[row[1] for row in MORE[:2]])
def test_jit_equals_eager_to_rounding(row):
    made = case(row)
    with jax.disable_jit():
        state, metrics = made.search.step(KEY, made.states[0])
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(made.states[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(metrics.exact_mean, made.metrics[0].exact_mean, rtol=1e-5)


# --- contract 3, the part that needs no sharding --------------------------------------------------


def with_key_data(candidate):
    return candidate._replace(key=jax.random.key_data(candidate.key))


@every_row
def test_candidates_do_not_depend_on_their_place_in_a_block(row, compiled):
    made = case(row, compiled)
    state, ids = made.states[2], made.ids
    backwards = with_key_data(made.ask(state, ids[::-1]))
    shifted = with_key_data(made.ask(state, jnp.roll(ids, 3)))
    expected = jax.tree.map(lambda x: np.roll(np.asarray(x)[::-1], 3, axis=0), backwards)
    assert equal(shifted._replace(info=()), expected._replace(info=()))


@over(*((row, jax.jit, () if row == NORMALIZED else SLOW) for row in TABLE))
def test_a_candidate_alone_is_the_one_of_a_block(row, compiled):
    made = case(row, compiled)
    search, state = made.search, made.states[2]
    one = compiled(lambda i: search.candidate(KEY, state, state.generation, i))
    block = with_key_data(made.ask(state, made.ids))
    for i in (0, 4, search.num_candidates - 1):
        mine = jax.tree.map(lambda x, i=i: np.asarray(x)[i], block)
        assert equal(with_key_data(one(i))._replace(info=()), mine._replace(info=()))


@SLOW
@pytest.mark.parametrize("lanes", [1, 15, 100])
def test_scores_do_not_depend_on_the_number_of_lanes(lanes):
    row = NORMALIZED
    search, state = case(row).search, case(row).states[1]
    other = es_enas(
        search.policy,
        search.task,
        search.strategy,
        search.controller,
        population=Population(lanes=lanes, refill_every=5, chunk=100),
        **OPTIONS[row[-1]],
    )
    next_state, metrics = jax.jit(other.step)(KEY, state)
    np.testing.assert_allclose(metrics.exact_mean, case(row).metrics[1].exact_mean, rtol=1e-5)
    np.testing.assert_allclose(
        next_state.strategy.params, case(row).states[2].strategy.params, rtol=1e-4, atol=1e-5
    )
    assert metrics.steps == case(row).metrics[1].steps


# --- contract 5 -----------------------------------------------------------------------------------


@functools.cache
def vmapped(row: tuple[str, ...]) -> tuple[Callable, Callable]:
    """Return `init` and `step` of several runs, each with a run key of its own."""
    search = case(row).search
    return jax.jit(jax.vmap(search.init)), jax.jit(jax.vmap(search.step))


@over(*((row, jax.jit, () if row == NORMALIZED else SLOW) for row in TABLE))
def test_step_works_under_vmap_over_run_keys(row, compiled):
    made = case(row, compiled)
    keys = jnp.stack([KEY, jax.random.key(8)])
    init, step = vmapped(row)
    states = init(keys)
    states, metrics = step(keys, states)
    states, metrics = step(keys, states)
    expected = made.states[2]
    if row[3] == "reinforce":
        # The best genotype is the mode of a distribution, in which several are equally likely
        # still: rounding decides between them.
        states, expected = (
            s._replace(incumbent=s.incumbent._replace(genotypes=())) for s in (states, expected)
        )
    for x, y in zip(jax.tree.leaves(states), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x[0], y, rtol=1e-4, atol=1e-5)
    assert metrics.exact_mean[0] != metrics.exact_mean[1]


def test_step_works_under_vmap_over_hyperparameters_without_recompiling():
    made = case(NORMALIZED)
    state = made.states[0]
    factor = jnp.array([1.0, 2.0])
    hyper = jax.tree.map(lambda x: x * factor, state.strategy.hyper)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    states = states._replace(strategy=states.strategy._replace(hyper=hyper))
    after, _ = vmapped(NORMALIZED)[1](jnp.stack([KEY, KEY]), states)
    alone = state._replace(strategy=jax.tree.map(lambda x: x[1], states.strategy))
    made.step(KEY, state)  # compiled now, whatever tests before this one have dropped
    before = len(made.traces)
    expected, _ = made.step(KEY, alone)
    assert len(made.traces) == before
    np.testing.assert_allclose(
        after.strategy.params[0], made.states[1].strategy.params, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        after.strategy.params[1], expected.strategy.params, rtol=1e-4, atol=1e-5
    )


# --- contract 7 -----------------------------------------------------------------------------------


def failing(share: float | jax.Array) -> tasks.SingleShot:
    """A task in which a share of the candidates fails, by a coin that their key throws."""

    def evaluate(key: Key, network, apply) -> Evaluation:
        k_fails, k_how = jax.random.split(key)
        score = -jnp.sum((apply(network, jnp.ones(2)) - 0.3) ** 2)
        failure = jax.random.choice(k_how, jnp.array([jnp.nan, jnp.inf, -jnp.inf]))
        fails = jax.random.uniform(k_fails) < share
        return tasks.single_score(jnp.where(fails, failure, score))

    return tasks.SingleShot(obs_size=2, action_size=1, evaluate=evaluate)


def failing_search(share: float | jax.Array = 0.0) -> Search:
    policy = policies.edge_pruned(2, (4,), 1, num_edges=5)
    return es_enas(
        policy,
        failing(share),
        strategies.es(20, 10, 0.1, 0.05),
        controllers.regularized_evolution(policy.space, 50),
        max_failed=0.4,
    )


@functools.cache
def failing_step():
    """Return the compiled step (share of failures, state) -> (state, metrics)."""
    return jax.jit(lambda share, state: failing_search(share).step(KEY, state))


@functools.cache
def failing_round():
    """Return a search, its first state, all candidates, their evaluations, and compiled `tell`."""
    search = failing_search()
    state = jax.jit(search.init)(KEY)
    ids = jnp.arange(search.num_candidates)
    ask = jax.jit(jax.vmap(lambda i: search.candidate(KEY, state, state.generation, i)))
    asked = ask(ids)
    seen = jax.jit(search.evaluate)(state, asked)
    tell = jax.jit(functools.partial(search.tell, KEY))
    return search, state, ids, (asked.genotype, asked.info, seen), tell


def test_failed_candidates_are_counted_and_never_win():
    """They score NaN, infinity or minus infinity."""
    search, state, *_ = failing_round()
    rows = []
    for _ in range(5):
        state, metrics = failing_step()(0.2, state)
        rows.append(metrics)
    metrics = jax.tree.map(lambda *x: np.stack(x), *rows)
    assert (metrics.failed > 0).all()
    assert (metrics.discarded == 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics))
    assert np.isfinite(state.strategy.params).all()
    # The population of 50 is full with the finite scores of the last two generations.
    assert np.isfinite(state.controller.scores).all()
    assert np.isfinite(state.incumbent.score)
    answer = choose_answer(search, KEY, state, episodes=32)
    assert np.isfinite(answer.chosen.params).all()


def test_above_the_allowed_share_of_failures_only_the_counters_move():
    _, before, *_ = failing_round()
    state = before
    for discarded in (1, 2, 3):
        state, metrics = failing_step()(0.7, state)
        assert metrics.discarded == discarded
    assert state.generation == 3
    assert state.discarded == 3
    unchanged = state._replace(generation=before.generation, discarded=before.discarded)
    assert equal(unchanged, before)
    # A good generation ends the row of discarded ones.
    after, metrics = failing_step()(0.0, state)
    assert metrics.discarded == 0
    assert after.discarded == 0


def test_exactly_the_allowed_share_may_fail():
    _, state, ids, (genotypes, info, seen), tell = failing_round()
    for failed, discarded in ((20, 0), (21, 1)):
        lost = seen._replace(episode_return=seen.episode_return.at[:failed].set(jnp.nan))
        _, metrics = tell(state, state.generation, ids, genotypes, info, lost)
        assert (metrics.failed, metrics.discarded) == (failed, discarded)


def test_a_candidate_that_never_came_back_is_a_failed_one():
    _, state, ids, (genotypes, info, seen), tell = failing_round()
    nan = seen._replace(episode_return=seen.episode_return.at[3].set(jnp.nan))
    failed, _ = tell(state, state.generation, ids, genotypes, info, nan)
    kept = np.delete(ids, 3)
    some = jax.tree.map(lambda x: np.asarray(x)[kept], (genotypes, info, seen))
    lost, metrics = tell(state, state.generation, kept, *some)
    assert metrics.failed == 1
    assert equal(lost.strategy, failed.strategy)
    assert equal(lost.controller.scores, failed.controller.scores)
    assert lost.controller.members == 49  # of 50 places: what stands in the empty one is nothing
    assert equal(lost.controller.genotypes[1:], failed.controller.genotypes[1:])


def test_an_update_that_overflows_is_discarded():
    policy = policies.dense(2, (), 1)
    strategy = strategies.es(20, 10)
    search = es_enas(policy, failing(0.0), strategy, controllers.constant(policy.space))
    before = jax.jit(search.init)(KEY)
    hyper = before.strategy.hyper._replace(step_size=jnp.float32(jnp.inf))
    before = before._replace(strategy=before.strategy._replace(hyper=hyper))
    after, metrics = jax.jit(search.step)(KEY, before)
    assert (metrics.failed, metrics.discarded) == (0, 1)
    assert equal(after.strategy, before.strategy)


def test_an_update_that_overflows_in_the_optimiser_alone_is_discarded():
    """The squares that Adam keeps would be infinite, and all its later steps 0."""

    def evaluate(key: Key, network, apply) -> Evaluation:
        return tasks.single_score(1e25 * network[0])

    policy = policies.dense(2, (), 1)._replace(bind=lambda params, genotype: params)
    strategy = strategies.es(20, 10, optimizer=optax.adam, shaping=strategies.raw)
    task = tasks.SingleShot(2, 1, evaluate)
    search = es_enas(policy, task, strategy, controllers.constant(policy.space))
    before = jax.jit(search.init)(KEY)
    after, metrics = jax.jit(search.step)(KEY, before)
    assert (metrics.failed, metrics.discarded) == (0, 1)
    assert equal(after.strategy, before.strategy)


def test_a_contender_that_failed_is_not_the_answer_whatever_it_scored():
    def evaluate(key: Key, network, apply) -> Evaluation:
        score = tasks.single_score(network[0])
        return score._replace(failed=network[0] > 0.5)

    policy = policies.dense(2, (), 1)._replace(bind=lambda params, genotype: params)
    task = tasks.SingleShot(2, 1, evaluate)
    search = es_enas(policy, task, strategies.es(2, 1), controllers.constant(policy.space))
    state = search.init(KEY)
    state = state._replace(
        strategy=state.strategy._replace(params=jnp.ones(policy.num_params)),
        incumbent=state.incumbent._replace(
            params=jnp.zeros(policy.num_params), valid=jnp.ones_like(state.incumbent.valid)
        ),
    )
    answer = choose_answer(search, KEY, state, 4)
    assert (answer.choice, answer.score) == (1, 0.0)


def test_late_evaluations_do_not_become_the_incumbent():
    _, state, ids, results, tell = failing_round()
    now, _ = tell(state, jnp.int32(0), ids, *results)
    moved_on = state._replace(generation=jnp.int32(1))
    late, _ = tell(moved_on, jnp.int32(0), ids, *results)
    assert np.isfinite(now.incumbent.score)
    assert late.incumbent.score == -np.inf
    assert equal(late.strategy, now.strategy)


@pytest.mark.parametrize(
    "strategy",
    [
        strategies.es(20, 10),
        strategies.ars(20, 10),
        pytest.param(strategies.es(20, 10, antithetic=False), marks=SLOW),
        pytest.param(strategies.es(20, 10, shaping=strategies.centered_ranks), marks=SLOW),
        pytest.param(
            strategies.es(20, 10, antithetic=False, shaping=strategies.centered_ranks), marks=SLOW
        ),
    ],
    ids=["es", "ars", "es, forward", "es, ranks", "es, forward, ranks"],
)
def test_equal_scores_move_no_weights(strategy):
    def evaluate(key: Key, network, apply) -> Evaluation:
        return tasks.single_score(jnp.float32(0.1))

    policy = policies.dense(2, (4,), 1)
    task = tasks.SingleShot(2, 1, evaluate)
    search = es_enas(policy, task, strategy, controllers.constant(policy.space))
    before = jax.jit(search.init)(KEY)
    after, metrics = jax.jit(search.step)(KEY, before)
    assert np.array_equal(after.strategy.params, before.strategy.params)
    assert metrics.strategy["update_norm"] == 0


# --- contract 8 -----------------------------------------------------------------------------------


def temporary_bytes(candidates: int, hidden: int) -> int:
    policy = policies.dense(3, (hidden, hidden), 1)
    task = tasks.episodes(tasks.pendulum(), horizon=8, normalizer=tasks.es_normalizer())
    search = es_enas(
        policy,
        task,
        strategies.es(candidates // 2 - 8, 16),
        controllers.constant(policy.space),
        population=Population(lanes=8, chunk=8),
    )
    state = jax.eval_shape(search.init, KEY)
    compiled = jax.jit(search.step).lower(KEY, state).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_peak_memory_does_not_grow_with_candidates_times_weights():
    hidden = 128
    weights = 4 * policies.dense(3, (hidden, hidden), 1).num_params
    few, many = temporary_bytes(64, hidden), temporary_bytes(1024, hidden)
    # 960 more candidates may cost their scalars, and not as much as two copies of the weights.
    assert many - few < 2 * weights
    assert many > 8 * weights  # and the measure does see the lanes' own weights


# --- contract 9 -----------------------------------------------------------------------------------


@every_row
def test_exact_candidates_run_the_unperturbed_weights_and_fresh_architectures(row, compiled):
    made = case(row, compiled)
    search, state = made.search, made.states[2]
    asked = made.ask(state, made.ids)
    exact = np.asarray(made.ids) >= search.strategy.num_perturbed
    at_base = np.all(np.asarray(asked.params) == np.asarray(state.strategy.params), axis=1)
    assert np.array_equal(at_base, exact)
    if row[3] == "random":
        for leaf in jax.tree.leaves(asked.genotype):
            assert len({np.asarray(one).tobytes() for one in leaf}) > 1


def test_the_controller_learns_from_exact_candidates_and_the_curve_is_their_mean():
    made = case(NORMALIZED)
    search, before = made.search, made.states[0]
    seen = jax.jit(search.evaluate)(before, made.ask(before, made.ids))
    exact = seen.episode_return[search.strategy.num_perturbed :]
    np.testing.assert_allclose(made.metrics[0].exact_mean, exact.mean(), rtol=1e-6)
    np.testing.assert_allclose(made.metrics[0].exact_std, exact.std(), rtol=1e-5)
    # 15 candidates went into a population of 10: the last three members are the exact ones.
    np.testing.assert_allclose(made.states[1].controller.scores[-3:], exact, rtol=1e-6)


# --- options that the fidelity section names ------------------------------------------------------


def keys_and_architectures(options: dict) -> tuple[np.ndarray, np.ndarray, list]:
    policy = policies.edge_pruned(3, (8,), 1, num_edges=12)
    task = tasks.episodes(tasks.pendulum(), horizon=8)
    strategy = strategies.es(6, 4)
    search = es_enas(policy, task, strategy, controllers.random(policy.space), **options)
    state = search.init(KEY)
    ask = jax.jit(jax.vmap(functools.partial(search.candidate, KEY, state), (None, 0)))
    out = []
    for generation in (0, 1, 2):
        asked = ask(jnp.int32(generation), jnp.arange(16))
        out.append((np.asarray(jax.random.key_data(asked.key)), np.asarray(asked.genotype)))
    return out


def test_starts_are_shared_by_exactly_those_who_should():
    groups = {
        Starts.FIXED: (1, 1),
        Starts.GENERATION: (1, 3),
        Starts.PAIR: (6 + 4, 30),
        Starts.CANDIDATE: (16, 48),
    }
    for starts, (in_one, in_three) in groups.items():
        keys = [k for k, _ in keys_and_architectures({"starts": starts})]
        assert len(np.unique(keys[0], axis=0)) == in_one, starts
        assert len(np.unique(np.concatenate(keys), axis=0)) == in_three, starts
        if starts is Starts.PAIR:
            assert np.array_equal(keys[0][0:12:2], keys[0][1:12:2])


def test_pairs_have_architectures_of_their_own_unless_shared():
    (_, own), *_ = keys_and_architectures({})
    assert len(np.unique(own, axis=0)) == 16
    (_, shared), *_ = keys_and_architectures({"shared_architecture": True})
    assert np.array_equal(shared[0:12:2], shared[1:12:2])
    assert len(np.unique(shared, axis=0)) == 10


def test_architectures_rest_between_proposals():
    generations = [g for _, g in keys_and_architectures({"propose_every": 2})]
    assert np.array_equal(generations[0], generations[1])
    assert not np.array_equal(generations[1], generations[2])
    made = case(DISTRIBUTED)
    states = made.states
    assert equal(states[0].controller, states[1].controller)
    assert equal(states[1].controller, states[2].controller)
    assert not equal(states[2].controller, states[3].controller)
    assert equal(states[3].controller, states[4].controller)
    # Along a run that learns, too, a block of generations has the same architectures.
    asked = [made.ask(state, made.ids).genotype for state in states]
    assert equal(asked[0], asked[1])
    assert equal(asked[1], asked[2])
    assert not equal(asked[2], asked[3])
    assert equal(asked[3], asked[4])


# --- the answer -----------------------------------------------------------------------------------


def test_the_answer_is_the_contender_that_scored_best_and_is_reported_on_other_starts():
    made = case(NORMALIZED)
    answer = choose_answer(made.search, KEY, made.states[4], episodes=24)
    scores = answer.selection.episode_return
    num_best = 8
    assert scores.shape == (2 * num_best, 2)
    best = int(np.argmax(scores.mean(axis=1)))
    final = best < num_best
    expected = made.states[4].strategy.params if final else made.states[4].incumbent.params
    assert np.array_equal(answer.chosen.params, expected)
    assert answer.report.episode_return.shape == (32,)
    assert len(np.unique(answer.report.episode_return)) == 32  # 32 different starts
    assert not np.isin(answer.report.episode_return, scores[best]).any()


def test_a_front_is_measured_anew_and_marked_by_what_it_turned_out_to_be_worth():
    made = case(next(row for row in COVERING if row[3] == "nsga2"))
    search, state = made.search, made.states[4]
    front = pareto_front(search, KEY, state, episodes=3)
    genotypes, is_one = search.controller.best(state.controller)
    places = int(is_one.sum())
    assert front.valid.tolist() == [True] * places + [False] * (is_one.size - places)
    bits = np.asarray(front.cost.bits)[:places]
    np.testing.assert_array_equal(
        bits, np.sort(jax.vmap(search.policy.cost)(genotypes).bits[is_one])
    )
    assert (np.asarray(front.contenders.params) == np.asarray(state.strategy.params)).all()
    # The same three starts for all, and none that chose the answer.
    seen = np.asarray(front.evaluations.episode_return)
    assert seen.shape == (is_one.size, 3)
    assert len(np.unique(seen[0])) == 3
    answer = choose_answer(search, KEY, state, episodes=24)
    assert not np.isin(seen, answer.selection.episode_return).any()
    worth = seen[:places].mean(axis=1)
    for k in range(places):
        better = (worth >= worth[k]) & (bits <= bits[k]) & ((worth > worth[k]) | (bits < bits[k]))
        assert front.dominated[k] == better.any()


def test_the_incumbent_is_the_best_generation_as_it_stood():
    made = case(NORMALIZED)
    fitness = [float(m.exact_mean) for m in made.metrics]
    best = int(np.argmax(fitness))
    incumbent = made.states[4].incumbent
    assert incumbent.score == pytest.approx(fitness[best])
    assert np.array_equal(incumbent.params, made.states[best].strategy.params)
    assert equal(incumbent.moments, made.states[best].moments)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": policies.dense(4, (), 1)}, r"observation size must be the task's, 3, got 4"),
        ({"policy": policies.dense(3, (), 2)}, r"action size must be the task's, 1, got 2"),
        ({"max_failed": 1.5}, r"max_failed must be in \[0, 1\], got 1\.5"),
        ({"propose_every": 0}, r"propose_every must be at least 1, got 0"),
        (
            {"starts": "somewhere"},
            r"starts must be one of fixed, generation, pair, candidate, got 'somewhere'",
        ),
        (
            {"controller": controllers.random(SubsetOf(5, 2))},
            r"controller's space must be the policy's, 0 x \(1 of 1\), got 2 of 5\.",
        ),
        (
            {"task": tasks.episodes(tasks.pendulum(), horizon=10**9)},
            r"fewer than 2\^31 environment steps, got 10000000000: 10 candidates",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, message):
    policy = policies.dense(3, (), 1)
    given = {
        "policy": policy,
        "task": tasks.episodes(tasks.pendulum()),
        "strategy": strategies.es(4, 2),
        "controller": controllers.constant(policy.space),
    }
    with pytest.raises((TypeError, ValueError), match=message):
        es_enas(**(given | change))
