"""Checks of the reference modules against numbers worked out by hand in the comments."""

import collections
import math
import random

import numpy as np
import pytest

from tests.reference import ars, es, evolution, nsga2, policies

SQRT = math.sqrt


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------------------- es


def test_antithetic_step_without_normalisation():
    # p = 0.5 (1, 2) = (0.5, 1). Mean of 3 p and -1 p is p; over sigma^2 = 0.25 that is
    # 4 p = (2, 4); times the step 0.1, added to (1, 1).
    theta = np.array([1.0, 1.0])
    new = es.es_update(
        theta, [[1, 2]], [3], [1], [7], noise_std=0.5, step_size=0.1, normalize=False
    )
    close(new, [1.2, 1.4])
    close(theta, [1.0, 1.0])


def test_normalisation_pools_the_exact_mean_as_one_entry():
    # Exact returns 1 and 3: one entry, 2. Pool 3, 1, 2: mean 2, variance 2/3, so the
    # values are +-sqrt(3/2). Gradient (sqrt(3/2) + sqrt(3/2)) / 2 = sqrt(3/2).
    # (As two entries the pool 3, 1, 1, 3 would have variance 1 and give 1.)
    options = {"noise_std": 1.0, "step_size": 1.0}
    close(es.es_update([0], [[1]], [3], [1], [1, 3], **options), [SQRT(1.5)])
    # No exact evaluations: pool 3, 1, variance 1.
    close(es.es_update([0], [[1]], [3], [1], [], **options), [1.0])


def test_equal_values_give_nan_like_the_released_code():
    new = es.es_update([0], [[1]], [2], [2], [2], noise_std=1.0, step_size=1.0)
    assert np.isnan(new).all()


def test_top_directions_and_the_factor_two():
    noise = np.eye(2)
    plus, minus = [5, 1], [1, 0]  # differences 4 and 1
    options = {"noise_std": 1.0, "step_size": 1.0, "normalize": False}

    def step(**more):
        return es.es_update([0, 0], noise, plus, minus, [0], **options, **more)

    # All four values: (5 - 1) / 4 and (1 - 0) / 4.
    close(step(), [1.0, 0.25])
    # Both kept by name: the same, not doubled.
    close(step(num_top_directions=2), [1.0, 0.25])
    close(step(num_top_directions=9), [1.0, 0.25])
    # One kept: (5 - 1) / 2 = 2, doubled to 4.
    close(step(num_top_directions=1), [4.0, 0.0])
    close(step(num_top_directions=1, double_when_fewer=False), [2.0, 0.0])


def test_ranking_difference_or_max():
    # Differences 1 and 6, maxima 10 and 1.
    def step(**more):
        return es.es_update(
            [0, 0],
            np.eye(2),
            [10, 1],
            [9, -5],
            [0],
            noise_std=1.0,
            step_size=1.0,
            normalize=False,
            num_top_directions=1,
            **more,
        )

    close(step(), [0.0, 6.0])  # (1 + 5) / 2 * 2
    close(step(ranking="max"), [1.0, 0.0])  # (10 - 9) / 2 * 2


def test_top_directions_with_normalisation():
    # Pool 4, 0, 1, 1, 1.5: mean 1.5, squares 6.25 + 2.25 + .25 + .25 + 0 = 9, variance
    # 1.8. The dropped pair counts in the pool. Kept: (4 - 1) / sqrt(1.8) / 2 * 2.
    new = es.es_update(
        [0, 0],
        np.eye(2),
        [4, 0],
        [1, 1],
        [1, 2],
        noise_std=1.0,
        step_size=1.0,
        num_top_directions=1,
    )
    close(new, [3 / SQRT(1.8), 0.0])


def test_forward_differences():
    # Exact mean 2; differences 3, 0, -11; p = 2 g, over sigma^2 = 4 leaves g / 2; mean
    # over 3.
    options = {
        "noise_std": 2.0,
        "step_size": 1.0,
        "estimator": "forward_fd",
        "normalize": False,
    }

    def step(**more):
        return es.es_update(np.zeros(3), np.eye(3), [5, 2, -9], None, [1, 3], **options, **more)

    close(step(), [0.5, 0.0, -11 / 6])
    # Ranked by value, not by |value - exact| (the third would win); not doubled.
    close(step(num_top_directions=1), [1.5, 0.0, 0.0])
    close(step(num_top_directions=2), [0.75, 0.0, 0.0])
    with pytest.raises(ValueError, match="exact"):
        es.es_update([0], [[1]], [1], None, [], **options)


def test_forward_differences_normalised():
    # Pool 4, 1 and the exact 1: mean 2, variance (4 + 1 + 1) / 3 = 2. Differences
    # 3 / sqrt 2 and 0, mean over 2.
    new = es.es_update(
        [0, 0],
        np.eye(2),
        [4, 1],
        None,
        [0, 2],
        noise_std=1.0,
        step_size=1.0,
        estimator="forward_fd",
    )
    close(new, [1.5 / SQRT(2), 0.0])


def test_centered_ranks():
    close(es.centered_ranks([10, -3, 7]), [0.5, -0.5, 0.0])
    # Ranks 1, 3, 3, 3, 5 -> (rank - 1) / 4 - 0.5.
    close(es.centered_ranks([0, 2, 2, 2, 9]), [-0.5, 0, 0, 0, 0.5])
    # Ranks 1.5, 1.5, 3.5, 3.5 -> (rank - 1) / 3 - 0.5 = -1/3, 1/3: short of the ends.
    close(es.centered_ranks([1, 1, 2, 2]), [-1 / 3, -1 / 3, 1 / 3, 1 / 3])
    close(es.centered_ranks([4, 4, 4]), [0, 0, 0])
    close(es.centered_ranks([4]), [0])
    close(es.centered_ranks([-np.inf, 0, np.inf]), [-0.5, 0, 0.5])


# --------------------------------------------------------------------------- ars


def test_ars_step():
    # b = N: all kept. Rewards 3, 0, 1, 2: mean 1.5, squares 2.25 + 2.25 + .25 + .25 = 5,
    # std sqrt(1.25). Step (3 - 1, 0 - 2) / sqrt(1.25) / 2.
    new = ars.ars_update([1, 1], np.eye(2), [3, 0], [1, 2], num_elites=2, step_size=0.1)
    close(new, [1 + 0.1 / SQRT(1.25), 1 - 0.1 / SQRT(1.25)])
    more = ars.ars_update([1, 1], np.eye(2), [3, 0], [1, 2], num_elites=99, step_size=0.1)
    close(more, new)


def test_ars_keeps_the_best_maxima_and_normalises_over_them():
    # Maxima 4, 10, 1; b = 1 keeps the second. Rewards 10, 8: std 1; (10 - 8) / 1 / 1.
    # The first has the larger difference but is dropped.
    new = ars.ars_update([0, 0, 0], np.eye(3), [4, 8, 0], [-4, 10, 1], num_elites=1, step_size=1.0)
    close(new, [0.0, -2.0, 0.0])


def test_ars_ties_keep_more_than_asked():
    # Maxima 5, 5, 5, 0 with b = 2: the 50th percentile is 5, so three are kept.
    # Rewards 5, 5, 5, 1, 3, 5: mean 4, squares 1 + 1 + 1 + 9 + 1 + 1 = 14, std
    # sqrt(7/3). Differences 4, 2, 0, divided by 3.
    new = ars.ars_update(
        np.zeros(4),
        np.eye(4),
        [5, 5, 5, 0],
        [1, 3, 5, -100],
        num_elites=2,
        step_size=1.0,
    )
    std = SQRT(7 / 3)
    close(new, [4 / std / 3, 2 / std / 3, 0.0, 0.0])


def test_es_defaults_equal_ars_up_to_the_extra_entry():
    # With everything kept and the std taken over the 2 N values only, the
    # ES step equals the ARS step at alpha = step / (2 sigma).
    rng = np.random.default_rng(0)
    theta, noise = rng.normal(size=4), rng.normal(size=(6, 4))
    plus, minus = rng.normal(size=6), rng.normal(size=6)
    first = es.es_update(theta, noise, plus, minus, [], noise_std=0.1, step_size=0.01)
    second = ars.ars_update(theta, noise, plus, minus, num_elites=6, step_size=0.05)
    close(first, second)


def test_running_filter():
    filter_ = ars.RunningFilter(3)
    close(filter_.normalize([4, 4, 4]), np.full(3, 4 / (1 + 1e-8)))  # mean 0, std 1
    filter_.push([3, 0, 5])
    filter_.refresh()
    # One state: "variance" 9, 0, 25 -> std 3, inf, 5.
    close(filter_.std_in_use, [3, np.inf, 5])
    close(filter_.normalize([6, 7, 5]), [3 / (3 + 1e-8), 0.0, 0.0])
    filter_.push([5, 1, 5])
    # Not refreshed: unchanged.
    close(filter_.normalize([6, 7, 5]), [3 / (3 + 1e-8), 0.0, 0.0])
    filter_.refresh()
    # Mean 4, 0.5, 5; ddof-1 variances 2, 0.5, 0.
    close(filter_.mean_in_use, [4, 0.5, 5])
    close(filter_.variance(), [2, 0.5, 0])
    close(filter_.normalize([4 + SQRT(2), 0.5, 9]), [1 / (1 + 1e-8 / SQRT(2)), 0, 0])


def test_running_filter_merge():
    # 1, 2, 6: mean 3, ddof-1 variance (4 + 1 + 9) / 2 = 7.
    left, right, empty = (ars.RunningFilter(1) for _ in range(3))
    left.push([1])
    right.push([2])
    right.push([6])
    left.merge(empty)
    left.merge(right)
    empty.merge(left)
    for filter_ in (left, empty):
        assert filter_.count == 3
        close(filter_.mean, [3])
        close(filter_.variance(), [7])


def test_running_filter_live_mean():
    # Frozen mean 1; live mean moves to 2 once 3 has been pushed. std: |1| = 1 (one
    # state).
    for live_mean, expected in ((False, 2.0), (True, 1.0)):
        filter_ = ars.RunningFilter(1, live_mean=live_mean)
        filter_.push([1])
        close(filter_.normalize([3]), [3 / (1 + 1e-8)])  # mean 0 until the first refresh
        filter_.refresh()
        filter_.push([3])
        close(filter_.normalize([3]), [expected / (1 + 1e-8)])


def test_moments_es():
    moments = ars.MomentsES(2)
    close(moments.normalize([4, 4]), [4, 4])
    moments.add([[1, 5], [3, 5]])
    # Means 2, 5; population deviations 1, 0; the 0 is used as 1, without epsilon.
    close(moments.mean, [2, 5])
    close(moments.std, [1, 0])
    close(moments.normalize([5, 8]), [3, 3])
    moments.add([[5, 5]])
    # 1, 3, 5: mean 3, population variance 8/3.
    close(moments.normalize([4, 5]), [1 / SQRT(8 / 3), 0])


# --------------------------------------------------------------------- evolution


class ScriptedRng:
    """Stands in for the generator: `choice` gives back what it was told to."""

    def __init__(self, *draws):
        self.draws = list(draws)
        self.calls = []

    def choice(self, n, size, replace):
        self.calls.append((n, size, replace))
        return np.array(self.draws.pop(0))


def test_regularized_evolution_by_hand():
    fresh = iter("ABCDEFGH")
    rng = ScriptedRng([0, 1], [2, 0], [1, 2], [1, 0])
    search = evolution.RegularizedEvolution(
        3, 2, lambda _: next(fresh), lambda _, parent: parent + "'", rng
    )
    # Random until three have been fed back, however many are proposed.
    assert [search.propose() for _ in range(4)] == ["A", "B", "C", "D"]
    search.feedback("C", 1.0)
    search.feedback("A", 2.0)
    assert search.propose() == "E"
    search.feedback("D", 1.0)
    # Population C 1, A 2, D 1.
    assert search.propose() == "A'"  # C against A: A
    assert search.propose() == "D'"  # D against C: a tie, D was drawn first
    # The oldest leaves, although it is not the worst: A 2, D 1, A' 0; then D, A', D'.
    search.feedback("A'", 0.0)
    search.feedback("D'", 0.5)
    assert search.population == [("D", 1.0), ("A'", 0.0), ("D'", 0.5)]
    assert search.propose() == "D''"  # A' against D'
    assert search.propose() == "D'"  # A' against D
    assert rng.calls == [(3, 2, False)] * 4
    with pytest.raises(ValueError, match="NaN"):
        search.feedback("X", math.nan)


def test_uniform_mutate_choices_frequencies():
    # 5 categories: unchanged with probability 1/5, else one of 3 * 4 neighbours, each
    # with probability 1/3 * 1/5 = 1/15.
    rng = np.random.default_rng(1)
    counts = collections.Counter(
        evolution.uniform_mutate_choices(rng, (0, 2, 4), 5) for _ in range(15_000)
    )
    assert len(counts) == 13
    assert counts.pop((0, 2, 4)) == pytest.approx(3000, abs=250)  # 5 deviations
    for count in counts.values():
        assert count == pytest.approx(1000, abs=155)


def test_uniform_mutate_choices_with_a_size_for_each():
    rng = np.random.default_rng(2)
    seen = {evolution.uniform_mutate_choices(rng, (0, 0), (2, 3)) for _ in range(200)}
    assert seen == {(0, 0), (1, 0), (0, 1), (0, 2)}


def test_uniform_mutate_subset_frequencies():
    # k = 2 of n = 4. Whole list redrawn with probability 1/3, uniform over 6 sets;
    # otherwise one element is swapped, uniform over the 4 sets that share one element.
    #   same set    1/3 * 1/6             = 1/18
    #   one shared  2/3 * 1/4 + 1/3 * 1/6 = 4/18 each
    #   none shared 1/3 * 1/6             = 1/18
    rng = np.random.default_rng(3)
    counts = collections.Counter(
        tuple(sorted(evolution.uniform_mutate_subset(rng, (3, 1), 4))) for _ in range(18_000)
    )
    expected = {(1, 3): 1, (0, 2): 1, (0, 1): 4, (0, 3): 4, (1, 2): 4, (2, 3): 4}
    assert set(counts) == set(expected)
    for subset, weight in expected.items():
        assert counts[subset] == pytest.approx(1000 * weight, abs=290)


def test_uniform_mutate_subset_edge_cases():
    rng = np.random.default_rng(4)
    # k = 1 is a oneof: the old value comes back with probability 1/n.
    same = sum(evolution.uniform_mutate_subset(rng, (1,), 4) == (1,) for _ in range(4000))
    assert same == pytest.approx(1000, abs=140)
    # k = n: only the order can change.
    for _ in range(50):
        full = evolution.uniform_mutate_subset(rng, (2, 0, 1), 3)
        assert sorted(full) == [0, 1, 2]


def test_uniform_mutate_subset_and_choices_frequencies():
    # k = 3, m = 4: 8 nodes. A choice is touched with probability 4/8 and then changes
    # with probability 2/3, so some choice changes in 1/3 of the mutations. The subset is
    # touched in the other half, never both.
    rng = np.random.default_rng(5)
    subset, choices = (0, 1, 2), (0, 0, 0, 0)
    changed = 0
    for _ in range(3000):
        new_subset, new_choices = evolution.uniform_mutate_subset_and_choices(
            rng, subset, 30, choices, 3
        )
        assert new_subset == subset or new_choices == choices
        changed += new_choices != choices
    assert changed == pytest.approx(1000, abs=130)


def test_uniform_mutate_repeated_frequencies():
    # k = 2, n = 2, from (0, 0): all redrawn with probability 1/3. (1, 1) only that way:
    # 1/12. (0, 1): 1/12 + 1/3 * 1/2 = 3/12, the same for (1, 0); (0, 0) keeps 5/12.
    rng = np.random.default_rng(6)
    counts = collections.Counter(
        evolution.uniform_mutate_repeated(rng, (0, 0), 2) for _ in range(12_000)
    )
    expected = {(0, 0): 5000, (0, 1): 3000, (1, 0): 3000, (1, 1): 1000}
    for choices, number in expected.items():
        assert counts[choices] == pytest.approx(number, abs=270)


def _pyglove_mutations(pg, space, number):
    """Mutates one fixed DNA again and again; returns the DNA's numbers and the counts."""
    spec = pg.template(space).dna_spec()
    parent = pg.random_dna(spec, random.Random(0))
    mutator = pg.evolution.mutators.Uniform(seed=1)
    counts = collections.Counter(tuple(mutator.mutate(parent).to_numbers()) for _ in range(number))
    return tuple(parent.to_numbers()), counts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["choices", "subset", "subset_1", "mixed", "mixed_1", "repeated"])
def test_mutations_are_distributed_as_in_pyglove(name):
    pg = pytest.importorskip("pyglove")
    number = 1000

    def sublist(k):
        return pg.sublist_of(k, candidates=range(4), choices_sorted=False, choices_distinct=True)

    def ones():
        return {f"c{i}": pg.oneof(range(2)) for i in range(2)}

    def mixed(rng, parent, k):
        subset, choices = evolution.uniform_mutate_subset_and_choices(
            rng, parent[:k], 4, parent[k:], 2
        )
        return subset + choices

    cases = {
        "choices": (
            pg.Dict(**ones()),
            lambda rng, parent: evolution.uniform_mutate_choices(rng, parent, 2),
        ),
        "subset": (
            sublist(2),
            lambda rng, parent: evolution.uniform_mutate_subset(rng, parent, 4),
        ),
        "subset_1": (
            sublist(1),
            lambda rng, parent: evolution.uniform_mutate_subset(rng, parent, 4),
        ),
        "mixed": (
            pg.Dict(edges=sublist(2), **ones()),
            lambda rng, parent: mixed(rng, parent, 2),
        ),
        "mixed_1": (
            pg.Dict(edges=sublist(1), **ones()),
            lambda rng, parent: mixed(rng, parent, 1),
        ),
        "repeated": (
            pg.manyof(2, range(3), distinct=False),
            lambda rng, parent: evolution.uniform_mutate_repeated(rng, parent, 3),
        ),
    }
    space, mutate = cases[name]
    parent, theirs = _pyglove_mutations(pg, space, number)
    rng = np.random.default_rng(7)
    ours = collections.Counter(mutate(rng, parent) for _ in range(number))
    assert set(ours) == set(theirs)
    # Chi-square of the two samples: mean 1 and variance 2 for each free cell.
    cells = [(ours[child], theirs[child]) for child in theirs]
    statistic = sum((a - b) ** 2 / (a + b) for a, b in cells)
    freedom = len(cells) - 1
    assert statistic < freedom + 5 * SQRT(2 * freedom)


# ------------------------------------------------------------------------- nsga2


def test_nsga2_by_hand():
    # c (2, 2) beats d (2, 1) and e (1, 1); d beats e. a, b, c and f are better in one each.
    scores = [(0, 9), (9, 0), (2, 2), (2, 1), (1, 1), (4, 1)]
    assert nsga2.fast_non_dominated_sort(scores) == [[0, 1, 2, 5], [3], [4]]
    # c: (4 - 0) / 9 + (9 - 1) / 9; f: (9 - 2) / 9 + (2 - 0) / 9; the ends a and b first.
    distance = nsga2.crowding_distance_assignment([scores[i] for i in (0, 1, 2, 5)])
    close(distance, [np.inf, np.inf, 12 / 9, 1.0])
    assert nsga2.survivors(scores, 4) == [0, 1, 2, 5]
    assert nsga2.survivors(scores, 5) == [0, 1, 2, 5, 3]
    assert nsga2.survivors(scores, 3) == [0, 1, 2]
    # Equals dominate each other not; where a front spans nothing there is no room.
    assert nsga2.fast_non_dominated_sort([(1, 1)] * 4) == [[0, 1, 2, 3]]
    assert nsga2.crowding_distance_assignment([(1, 1)] * 4) == [np.inf, 0, 0, np.inf]


# ---------------------------------------------------------------------- policies


def test_aggregate_edges_order():
    assert policies.aggregate_edges([2, 2, 1]) == [
        (0, 2),
        (0, 3),
        (1, 2),
        (1, 3),
        (2, 4),
        (3, 4),
    ]
    assert policies.aggregate_edges([1, 2]) == [(0, 1), (0, 2)]


def test_residual_edges_are_those_of_a_dense_network_and_the_skips():
    # Nodes 0, 1 | 2 | 3.
    assert policies.residual_edges([2, 1, 1]) == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]


def test_structured_matrices_by_hand():
    # [[c, d], [b, c], [a, b]], then [[e], [f]] from last to first.
    numbers = ["a", "b", "c", "d", "f", "e"]
    expected = ["c", "d", "b", "c", "a", "b", "e", "f"]
    assert policies.toeplitz_weights(numbers, [3, 2, 1]) == expected
    # [[a, b], [c, a], [b, c]] is cut out of a circulant matrix of three, [[d, e, f]] of three too.
    expected = ["a", "b", "c", "a", "b", "c"]
    assert policies.circulant_weights(["a", "b", "c"], [3, 2]) == expected
    assert policies.circulant_weights(["d", "e", "f"], [1, 3]) == ["d", "e", "f"]


def test_an_operation_is_applied_to_sum_and_bias():
    # Node 1 is (2 * 3 + 1)^2 = 49, node 2 is 1 / (-0.5 * 3 + 0.5) = -1.
    matrix, biases = np.zeros((4, 4)), np.array([9.0, 1.0, 0.5, 9.0])
    matrix[0, 1], matrix[0, 2], matrix[1, 3], matrix[2, 3] = 2.0, -0.5, 0.01, 0.25
    action = policies.edge_policy_action(
        matrix,
        biases,
        [(0, 1), (0, 2), (1, 3), (2, 3)],
        [1, 2, 1],
        [3.0],
        linear_first_hidden=False,
        operations=["square", "reciprocal"],
    )
    close(action, [np.tanh(0.49 - 0.25)])
    assert policies.operation("reciprocal", 0.0) == 10.0
    assert [policies.operation("step", x) for x in (-0.1, 0.0, 0.1)] == [0.0, 1.0, 1.0]


def _small_network():
    weights = np.full((5, 5), 99.0)  # entries that no edge uses must not matter
    weights[0, 2], weights[0, 3], weights[1, 2], weights[1, 3] = 1, 2, 3, -1
    weights[2, 4], weights[3, 4] = 0.5, -0.5
    return weights, np.array([9, 9, 0.1, 0.2, 7]), [2, 2, 1], [0.5, -0.25]


def test_edge_policy_with_all_edges():
    weights, biases, sizes, observation = _small_network()
    edges = policies.aggregate_edges(sizes)
    # Node 2: 0.5 - 0.75 = -0.25. Node 3: 1 + 0.25 = 1.25, plus the bias 0.2.
    right = math.tanh(1.45)
    for order in (edges, edges[::-1], [(j, i) for i, j in edges]):
        action = policies.edge_policy_action(
            weights, biases, order, sizes, observation, linear_first_hidden=False
        )
        close(action, [math.tanh(0.5 * math.tanh(-0.15) - 0.5 * right)])
        # The slip: node 2 passes -0.25 on as it is.
        action = policies.edge_policy_action(
            weights, biases, order, sizes, observation, linear_first_hidden=True
        )
        close(action, [math.tanh(-0.125 - 0.5 * right)])


def test_edge_policy_with_few_edges():
    weights, biases, sizes, observation = _small_network()

    def act(edges, linear_first_hidden):
        return policies.edge_policy_action(
            weights,
            biases,
            edges,
            sizes,
            observation,
            linear_first_hidden=linear_first_hidden,
        )

    # Hidden units without inputs emit tanh(bias); the slip's unit emits 0.
    close(act([(2, 4)], False), [math.tanh(0.5 * math.tanh(0.1))])
    close(act([(2, 4)], True), [0.0])
    close(act([(3, 4)], True), [math.tanh(-0.5 * math.tanh(0.2))])
    # No edges: zero, the output bias is not used.
    close(act([], False), [0.0])
    # A skip edge from input to output.
    weights[1, 4] = 4
    close(act([(1, 4)], True), [math.tanh(-1.0)])


def test_edge_policy_without_hidden_layers():
    weights = np.array([[0, 2.0, 3.0], [0, 0, 0], [0, 0, 0]])
    for linear_first_hidden in (False, True):
        action = policies.edge_policy_action(
            weights,
            [5, 5, 5],
            [(0, 1), (0, 2)],
            [1, 2],
            [0.1],
            linear_first_hidden=linear_first_hidden,
        )
        close(action, [math.tanh(0.2), math.tanh(0.3)])


def test_partition_policy():
    # Colours -> weights 10, 0.5, -1: node 2 gets 0.5 * 0.5 + -1 * -0.25 = 0.5; node 3
    # gets -1 * 0.5 + 0.5 * -0.25 = -0.625, plus the bias 0.2; output weights 0.5, -1.
    shared = [10.0, 0.5, -1.0]
    colors = [1, 2, 2, 1, 1, 2]
    biases = [9, 9, 0.1, 0.2, 7]

    def act(linear_first_hidden):
        return policies.partition_policy_action(
            shared,
            biases,
            colors,
            [2, 2, 1],
            [0.5, -0.25],
            linear_first_hidden=linear_first_hidden,
        )

    right = math.tanh(-0.425)
    close(act(False), [math.tanh(0.5 * math.tanh(0.6) - right)])
    close(act(True), [math.tanh(0.25 - right)])
    with pytest.raises(ValueError, match="6 edges"):
        policies.partition_policy_action(
            shared, biases, [0], [2, 2, 1], [0, 0], linear_first_hidden=False
        )
