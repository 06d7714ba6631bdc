"""What the learners see of an evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import Population, choose_answer, controllers, es_enas, policies, strategies, tasks
from esenas_jax.objectives import (
    hard_limit,
    linear_penalty,
    pareto,
    shifted_return,
    weighted_product,
)
from esenas_jax.policies import costs
from esenas_jax.runs import runs, variable
from esenas_jax.tasks import single_score
from esenas_jax.types import Cost

KEY = jax.random.key(0)


def seen(objective, score, amount, length=0.0):
    """What strategy and controller see of a return at so many edges."""
    evaluation = single_score(jnp.float32(score))._replace(episode_length=jnp.float32(length))
    cost = costs.cost(edges=amount, weights=1, biases=0)
    scores = objective.apply(objective.init(), evaluation, cost)
    assert all(x.dtype == jnp.float32 for x in scores)
    return jax.tree.map(lambda x: np.asarray(x).tolist(), tuple(scores))


@pytest.mark.parametrize(("shift", "score"), [(0.0, 90.0), (1.0, 50.0), (-2.0, 170.0)])
def test_the_shift_is_taken_from_every_step(shift, score):
    assert seen(shifted_return(shift), 90.0, 1, 40.0) == (score, score)
    # The others start from it too; at the target, or within the limit, they change nothing more.
    assert seen(weighted_product(7, shift_per_step=shift), 90.0, 7, 40.0) == (score + 1000,) * 2
    assert seen(linear_penalty(3, 7, shift_per_step=shift), 90.0, 7, 40.0) == (score, score)
    assert seen(hard_limit(7, shift_per_step=shift), 90.0, 7, 40.0) == (score, score)
    # A front is reported in returns.
    assert seen(pareto(shift_per_step=shift), 90.0, 7, 40.0) == (score, [90.0, -7.0])


@pytest.mark.parametrize(
    ("amount", "score"),
    # Up to 64 multiplications (r + 1000) (cost / 64)^0, above them (r + 1000) / (cost / 64).
    [(1, 1500.0), (63, 1500.0), (64, 1500.0), (96, 1000.0), (128, 750.0), (640, 150.0)],
)
def test_the_product_is_the_released_one_by_default(amount, score):
    objective = weighted_product()
    assert seen(objective, 500.0, amount) == pytest.approx((score, score), rel=1e-6)
    plain = weighted_product(penalize_strategy=False)
    assert seen(plain, 500.0, amount) == pytest.approx((500.0, score), rel=1e-6)


def test_the_product_by_hand():
    # (20 + 12) (4 / 16)^0.5 = 16, (20 + 12) (64 / 16)^-2 = 2; no cost counts as 1: 32 / 4.
    objective = weighted_product(16, 0.5, -2, 12)
    for amount, score in ((4, 16.0), (64, 2.0), (0, 8.0)):
        assert seen(objective, 20.0, amount) == pytest.approx((score, score), rel=1e-6)


def test_a_linear_penalty_is_paid_for_what_is_above_the_target():
    # 100 - 0.5 (30 - 20) = 95.
    for penalize_strategy in (False, True):
        objective = linear_penalty(0.5, 20, penalize_strategy=penalize_strategy)
        assert seen(objective, 100.0, 30) == (95.0 if penalize_strategy else 100.0, 95.0)
        assert seen(objective, 100.0, 20) == seen(objective, 100.0, 3) == (100.0, 100.0)
    assert seen(linear_penalty(2.0), -1.0, 3) == (-1.0, -7.0)


def test_beyond_a_hard_limit_is_worse_than_anything_within_and_worse_the_further():
    objective = hard_limit(64)
    within = [seen(objective, r, 64)[1] for r in (3e4, 0.0, -9e3, -1e9)]
    beyond = [seen(objective, r, c)[1] for c in (65, 66, 736, 10**6) for r in (-1e9, 0.0, 1e9)]
    assert within == [3e4, 0.0, -9e3, -1e4]  # what is below the floor stands on it
    assert max(beyond) < min(within)
    assert np.isfinite(beyond).all()
    distinct = beyond[::3]
    assert distinct == sorted(distinct, reverse=True)
    assert len(set(distinct)) == 4
    assert beyond == sorted(beyond, reverse=True)  # the return does not matter there
    assert seen(objective, 12.0, 65)[0] == 12.0


@pytest.mark.parametrize("name", Cost._fields)
def test_any_cost_can_be_weighed(name):
    amounts = Cost(*(jnp.int32(10 + i) for i in range(5)), entropy_bits=jnp.float32(15.5))
    amount = float(getattr(amounts, name))
    evaluation = single_score(jnp.float32(100.0))
    for objective, score in (
        (weighted_product(5.0, offset=0.0, cost=name), 500.0 / amount),
        (linear_penalty(2.0, cost=name), 100.0 - 2 * amount),
        (hard_limit(5.0, 0.0, cost=name), 4.0 - amount),
        (pareto(cost=name), [100.0, -amount]),
    ):
        found = objective.apply(objective.init(), evaluation, amounts).controller
        np.testing.assert_allclose(found, score, rtol=1e-6)
        assert objective.cost == name


@pytest.mark.parametrize(
    "objective",
    [shifted_return(), weighted_product(), linear_penalty(1.0), hard_limit(5), pareto()],
)
@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_what_failed_stays_failed(objective, score):
    for amount in (1, 10):
        strategy, controller = seen(objective, score, amount)
        assert not (np.isfinite(strategy) and np.isfinite(controller).all())


# --- in a search ----------------------------------------------------------------------------------


def searched(objective, controller=None):
    """A regression whose architectures have as many edges as they like."""
    task = tasks.polynomial_regression(jax.random.key(1), degree=3, batch_size=64)
    policy = policies.boolean_mask(task.obs_size, (4,), 1, output_activation=policies.identity)
    make = controller or (lambda space: controllers.regularized_evolution(space, 40, local=True))
    return es_enas(
        policy,
        task,
        strategies.es(16, 8, 0.1, 0.05),
        make(policy.space),
        objective=objective,
        population=Population(chunk=40),
    )


def test_numbers_of_an_objective_can_be_swept():
    search = searched(weighted_product())
    names = ["alpha", "beta", "offset", "shift_per_step", "target"]
    assert [n for n in variable(search) if "objective" in n] == [f"objective.{n}" for n in names]
    targets = np.array([8.0, 16.0], np.float32)
    state = runs(search, 2).init(jax.random.split(KEY), {"objective.target": targets})
    np.testing.assert_array_equal(state.objective.hyper["target"], targets)


def chosen(search, state):
    return jax.jit(lambda state: choose_answer(search, KEY, state, episodes=32))(state)


@functools.cache
def limited():
    """A search for at most 6 edges: it, its state after 60 generations, and their metrics."""
    search = searched(hard_limit(6, cost="edges"))
    begin, step = jax.jit(search.init), jax.jit(search.step)
    state, rows = begin(KEY), []
    for _ in range(60):
        state, metrics = step(KEY, state)
        rows.append(metrics)
    return search, state, rows


def test_beyond_the_limit_nothing_fails_and_the_answer_is_within():
    search, state, rows = limited()
    assert all((row.failed, row.discarded) == (0, 0) for row in rows)
    edges = [float(row.edges) for row in rows]
    assert edges[0] > 9 > 7 > edges[-1]  # half of 20 at first
    assert chosen(search, state).cost.edges <= 6


def test_the_answer_is_chosen_by_what_the_controller_sees():
    search = searched(linear_penalty(1e3, cost="edges"))
    _, state, _ = limited()
    state = state._replace(objective=search.objective.init())

    @jax.jit
    def edges_of_rivals(state):
        genotypes, _ = search.controller.best(state.controller)
        rivals = jnp.concatenate([genotypes, state.incumbent.genotypes])
        return jax.vmap(search.policy.cost)(rivals).edges

    edges = edges_of_rivals(state)
    assert edges.min() < edges.max()
    assert chosen(search, state).cost.edges == edges.min()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shifted_return(np.nan), "shift_per_step must be finite, got nan."),
        (lambda: shifted_return(np.inf), "shift_per_step must be finite, got inf."),
        (lambda: pareto(shift_per_step=np.inf), "shift_per_step must be finite, got inf."),
        (lambda: weighted_product(0), "target must be a positive finite number, got 0."),
        (lambda: weighted_product(alpha=np.inf), "alpha must be finite, got inf."),
        (lambda: weighted_product(beta="x"), "beta must be a number, got 'x'."),
        (lambda: weighted_product(offset=np.nan), "offset must be finite, got nan."),
        (lambda: linear_penalty(-1.0), "weight must be finite and at least 0, got -1.0."),
        (lambda: linear_penalty(1.0, -1.0), "target must be finite and at least 0, got -1.0."),
        (lambda: hard_limit(-1), "limit must be finite and at least 0, got -1."),
        (lambda: hard_limit(1, -1e7), "floor must be in [-1e+06, 1e+06], got -10000000.0."),
        *(
            (
                lambda make=make: make(cost="size"),
                f"cost must be one of {', '.join(Cost._fields)}, got 'size'.",
            )
            for make in (
                weighted_product,
                lambda cost: linear_penalty(1.0, cost=cost),
                lambda cost: hard_limit(1, cost=cost),
                pareto,
            )
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, message):
    with pytest.raises((TypeError, ValueError)) as raised:
        make()
    assert str(raised.value) == message
