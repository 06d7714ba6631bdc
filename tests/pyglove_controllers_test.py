"""PyGlove's own algorithms, on the host: what they propose, hear, and draw when started again."""

import functools
import itertools
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pyglove as pg
import pytest
from tensorboardX.proto.event_pb2 import Event

from esenas_jax import Population, controllers, es_enas, policies, strategies, tasks
from esenas_jax.controllers.host import Asked
from esenas_jax.spaces import FloatRange, OneOf, Product, Repeat, SubsetOf
from esenas_jax.spaces.pyglove import from_dna, from_pyglove, to_dna, to_pyglove
from experiments import train
from experiments.build import ConfigError, plan, section
from experiments.command_line import RunError
from experiments.workdir import Workdir
from tests.controllers_test import sigmas
from tests.experiments_test import pendulum
from tests.support.shared_programs import shared_programs

SPACE = Product({"ops": Repeat(OneOf(4), 6), "edges": SubsetOf(5, 2)})
HIDDEN = {"ops": np.array([2, 0, 3, 1, 1, 2]), "edges": np.array([1, 4])}
N = 16  # 5 pairs and 6 exact candidates
KEY = jax.random.key(3)

ALGORITHMS = {
    "regularized_evolution": lambda: pg.evolution.regularized_evolution(
        population_size=N, tournament_size=4
    ),
    "hill_climb": lambda: pg.evolution.hill_climb(batch_size=N),
    "neat": lambda: pg.evolution.neat(population_size=N),
    "nsga2": lambda: pg.evolution.nsga2(population_size=N),
    "random": pg.geno.Random,
    "composed": lambda: pg.evolution.Evolution(
        pg.evolution.selectors.Top(4)
        >> pg.evolution.selectors.Random(1, seed=7)
        >> pg.evolution.mutators.Uniform(seed=8),
        population_init=(pg.geno.Random(), N),
        population_update=pg.evolution.selectors.Last(2 * N),
    ),
}
SLOW = pytest.mark.slow  # PyGlove takes 15 ms for a proposal


def every_algorithm(quick):
    """Rows of all algorithms; all but one are slow."""
    names = [quick, *(pytest.param(n, marks=SLOW) for n in ALGORITHMS if n != quick)]
    return pytest.mark.parametrize("name", names)


@pytest.fixture(scope="module", autouse=True)
def programs_are_shared():
    with shared_programs():
        yield


def planted(genotype) -> np.ndarray:
    """How much of a genotype, or of many, is as in the hidden one."""
    return sum((genotype[name] == HIDDEN[name]).sum(-1) for name in HIDDEN)


def make(algorithm, fails_below=0, **options):
    """A search whose scores are planted: its weights do not matter."""
    policy = policies.custom(
        1,
        1,
        SPACE,
        init=lambda key: jnp.zeros(1),
        bind=lambda params, genotype: planted(genotype).astype(jnp.float32),
        apply=lambda network, obs: network[None],
    )

    def evaluate(key, network, apply):
        score = apply(network, jnp.zeros(1))[0]
        return tasks.single_score(jnp.where(score < fails_below, jnp.nan, score))

    controller = controllers.pyglove(SPACE, algorithm, N)
    task = tasks.SingleShot(obs_size=1, action_size=1, evaluate=evaluate)
    return es_enas(policy, task, strategies.es(5, 6), controller, **options)


@functools.cache
def program(**options):
    """Init and step, compiled; they do not depend on the algorithm."""
    search = make(Recorder(), **options)
    return jax.jit(search.init), jax.jit(search.step)


def run(search, generations, key=KEY, host=None, state=None, **options):
    """The host, and the states after every generation; options are those of the search."""
    init, step = program(**options)
    host = host or search.host()
    states = [init(key) if state is None else state]
    for _ in range(generations):
        ready = states[-1]._replace(controller=host.exchange(states[-1].controller))
        states.append(step(key, ready)[0])
    assert step._cache_size() == 1  # what is handed in is of the types that are there
    return host, states


def proposed(states):
    """The architectures that the generations evaluated, by generation and candidate."""
    return jax.tree.map(
        lambda *x: np.stack(x), *(state.controller.round.genotypes for state in states[1:])
    )


def equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


# ------------------------------------------------------------------- what it proposes and hears


@every_algorithm("regularized_evolution")
def test_an_algorithm_hears_the_scores_of_what_it_proposed_and_learns(name):
    generations = 7
    host, states = run(make(ALGORITHMS[name]()), generations)
    assert host.proposals == generations * N
    assert host.seconds > 0.0
    history = host.history()
    past = {
        "ops": history["genotypes.ops"],
        "edges": history["genotypes.edges"],
    }
    assert past["ops"].shape == (generations - 1, N, 6)
    for t, i in np.ndindex(generations - 1, N):
        SPACE.validate({name: x[t, i] for name, x in past.items()})
    np.testing.assert_array_equal(history["scores"], planted(past))
    assert history["valid"].all()
    assert equal(past, jax.tree.map(lambda x: x[:-1], proposed(states)))
    # Uniform proposals agree with the hidden one in 6/4 ops and a little of the edges.
    first, last = (planted(jax.tree.map(lambda x, t=t: x[t], proposed(states))) for t in (0, -1))
    assert first.mean() < 3.0
    assert (last.mean() > 4.0) == (name != "random")


notes = []


class Recorder(pg.DNAGenerator):
    """Counts in base 4, and writes down what it hears."""

    def _setup(self):
        self._number = 0
        notes.clear()

    def _propose(self):
        self._number += 1
        return recorded(self._number - 1)

    def _feedback(self, dna, reward):
        notes.append((dna, reward))


class Several(Recorder):
    """The same, for several objectives."""

    @property
    def multi_objective(self):
        return True


def recorded(number):
    """The DNA of a number."""
    digits = [number // 4**k % 4 for k in range(6)]
    return to_dna(SPACE, {"ops": np.array(digits, np.int32), "edges": np.array([0, 1], np.int32)})


def heard(first, scores):
    """What the algorithm should have heard of its proposals from `first` on."""
    return [(recorded(first + k), score) for k, score in enumerate(scores) if score is not None]


def rewards(numbers):
    return [
        float(planted(from_dna(SPACE, recorded(number)))) if number is not None else None
        for number in numbers
    ]


def test_it_hears_of_every_candidate_once_in_their_order():
    host, states = run(make(Recorder()), 2)
    assert notes == heard(0, rewards(range(N)))
    assert all(type(reward) is float for _, reward in notes)
    host.exchange(states[-1].controller)
    assert notes == heard(0, rewards(range(2 * N)))


@functools.cache
def on_the_device(several):
    """A controller's half on the device, compiled; it does not depend on the algorithm."""
    algorithm = Several() if several > 1 else Recorder()
    made = controllers.pyglove(SPACE, algorithm, N, num_objectives=several)
    return jax.jit(made.init), jax.jit(made.update), jax.jit(made.best)


def told(scores, valid, proposer=None):
    """What an algorithm hears of its first proposals, from a controller alone."""
    several = scores.shape[1] if scores.ndim > 1 else 1
    algorithm = Several() if several > 1 else Recorder()
    init, update, best = on_the_device(several)
    controller = controllers.pyglove(SPACE, algorithm, N, num_objectives=several)
    host = controller.host(range(N))
    proposer = jnp.arange(N) if proposer is None else jnp.asarray(proposer)
    state = host.exchange(init(KEY))
    genotypes = jax.tree.map(lambda x: np.asarray(x)[proposer], state.round.genotypes)
    asked = Asked(proposer, jnp.zeros(N, jnp.int32))
    results = (genotypes, asked, jnp.asarray(scores), jnp.asarray(valid))
    after, _ = update(KEY, state, *results)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    host.exchange(after)
    top, is_one = best(after)
    order = np.argsort(-np.where(valid, scores.reshape(N, -1)[:, 0], -np.inf))[:8]
    assert is_one.tolist() == valid[order].tolist()
    for k in np.flatnonzero(is_one):
        assert top["ops"][k].tolist() == genotypes["ops"][order[k]].tolist()
    return notes


def test_of_failed_candidates_it_hears_nothing():
    scores = np.where(np.arange(N) % 3 == 0, np.nan, np.arange(N)).astype(np.float32)
    expected = [float(k) if k % 3 else None for k in range(N)]
    assert told(scores, np.arange(N) % 3 != 0) == heard(0, expected)


def test_several_objectives_are_heard_as_a_tuple():
    scores = np.stack([np.arange(N), -2.0 * np.arange(N)], axis=1).astype(np.float32)
    expected = [(float(k), -2.0 * k) for k in range(N)]
    assert told(scores, np.ones(N, bool)) == heard(0, expected)


@functools.cache
def by_hand():
    """A search that bears failures: it, and its init, ask and tell, compiled."""
    search = make(Recorder(), max_failed=0.9)

    def ask(state):
        return jax.vmap(lambda i: search.candidate(KEY, state, state.generation, i))(jnp.arange(N))

    def tell(state, generation, ids, asked):
        mine = jax.tree.map(lambda x: x[ids], asked)
        seen = search.evaluate(state, mine)
        return search.tell(KEY, state, generation, ids, mine.genotype, mine.info, seen)[0]

    return search, jax.jit(search.init), jax.jit(ask), jax.jit(tell)


def test_results_that_never_came_are_failures_and_others_keep_their_proposals():
    search, init, ask, tell = by_hand()
    host, state = search.host(), init(KEY)
    state = state._replace(controller=host.exchange(state.controller))
    ids = jnp.array([9, 2, 0, 15, 3, 4, 5, 6, 7, 8])  # in no order
    state = tell(state, 0, ids, ask(state))
    host.exchange(state.controller)
    came = sorted(ids.tolist())
    assert notes == heard(0, rewards(k if k in came else None for k in range(N)))


def test_results_that_come_after_the_next_exchange_are_not_heard():
    search, init, ask, tell = by_hand()
    host, state = search.host(), init(KEY)
    state = state._replace(controller=host.exchange(state.controller))
    first, rest = jnp.arange(10), jnp.arange(10, 12)
    asked = ask(state)
    state = tell(state, 0, first, asked)
    state = state._replace(controller=host.exchange(state.controller))
    heard_of = list(notes)
    late = tell(state, 0, rest, asked)
    # Nor do they stand in the way of those of the round that runs now.
    state = tell(late, 1, jnp.arange(N), ask(state))
    host.exchange(state.controller)
    assert notes == heard_of + heard(N, rewards(range(N, 2 * N)))


@every_algorithm("neat")
def test_an_algorithm_that_hears_nothing_for_a_while_goes_on(name):
    """All of a generation fail, and half of another: of the first, and later on."""
    search = make(ALGORITHMS[name]())
    host, state = search.host(), program()[0](KEY).controller
    *_, update, _ = on_the_device(1)
    for t in range(7):
        state = host.exchange(state)
        genotypes = jax.device_get(state.round.genotypes)
        valid = np.ones(N, bool) if t % 3 == 2 else np.arange(N) % 2 < t % 3
        scores = np.where(valid, planted(genotypes), np.nan).astype(np.float32)
        state, _ = update(
            KEY,
            state,
            genotypes,
            Asked(jnp.arange(N), jnp.full(N, t, jnp.int32)),
            jnp.asarray(scores),
            jnp.asarray(valid),
        )
    assert host.proposals == 7 * N
    ours = host.history()
    assert np.isfinite(ours["scores"][ours["valid"]]).all()


def test_a_pair_shares_one_proposal_which_hears_the_mean_of_both():
    search = make(Recorder(), shared_architecture=True)
    host, states = run(search, 2, shared_architecture=True)
    assert host.proposals == 2 * (5 + 6)
    assert notes == heard(0, rewards(range(11)))
    # Candidates 2k and 2k + 1 are a pair, those from 10 on are alone.
    asked = jax.jit(jax.vmap(lambda i: search.candidate(KEY, states[1], 0, i).genotype))(
        jnp.arange(N)
    )
    whose = [k // 2 for k in range(10)] + list(range(5, 11))
    expected = [from_dna(SPACE, recorded(k))["ops"] for k in whose]
    np.testing.assert_array_equal(asked["ops"], expected)
    # Wherever those that propose stand, they find theirs.
    init, *_ = on_the_device(1)
    state = search.controller.host([1, 4]).exchange(init(KEY))
    ops = state.round.genotypes["ops"]
    assert ops.shape == (N, 6)
    np.testing.assert_array_equal(ops[jnp.array([1, 4])], expected[:3:2])
    # The halves score differently, and one of them fails.
    proposer = np.array([0, 0, 1, 1, 2, 2] + [15] * 10, np.int32)
    scores = np.array([1, 4, np.nan, 3, np.nan, np.nan] + [7] * 10, np.float32)
    got = told(scores, np.isfinite(scores), proposer)
    assert [reward for _, reward in got] == [2.5, 3.0, 7.0]
    assert [dna for dna, _ in got] == [recorded(0), recorded(1), recorded(15)]


def test_architectures_rest_between_proposals_and_the_last_scores_are_heard():
    host, states = run(make(Recorder(), propose_every=3), 8, propose_every=3)
    assert host.proposals == 3 * N
    ops = proposed(states)["ops"]
    for first in (0, 3, 6):
        assert (ops[first : first + 3] == ops[first]).all()
    assert notes == heard(0, rewards(range(2 * N)))
    assert [int(state.controller.told) for state in states] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_discarded_generation_is_not_heard_of_and_its_architectures_run_again():
    options = {"fails_below": 2, "max_failed": 0.0}
    host, states = run(make(Recorder(), **options), 3, **options)
    assert int(states[-1].discarded) == 3
    assert host.proposals == N
    assert notes == []
    assert equal(proposed(states)["ops"][0], proposed(states)["ops"][2])


def test_on_two_devices_the_same_is_proposed_and_heard():
    _, alone = run(make(Recorder()), 2)
    heard_alone = list(notes)
    options = {"population": Population(devices=2)}
    _, shared = run(make(Recorder(), **options), 2, **options)
    assert equal(proposed(alone), proposed(shared))
    assert notes == heard_alone
    assert len(notes) == N


def test_the_best_are_those_of_the_latest_generation():
    _, states = run(make(Recorder()), 2)
    top, valid = make(Recorder()).controller.best(states[-1].controller)
    expected = sorted(rewards(range(N, 2 * N)), reverse=True)[:8]
    assert planted(jax.tree.map(np.asarray, top)).tolist() == expected
    assert valid.all()


# ------------------------------------------------------------------------------- the same again


@every_algorithm("regularized_evolution")
def test_what_is_drawn_depends_on_the_run_key_alone(name):
    algorithm = ALGORITHMS[name]()
    search = make(algorithm)
    random.seed(5)
    before = random.getstate()
    _, first = run(search, 2)  # drawn at random, and bred
    assert random.getstate() == before  # nobody else's draws are moved
    random.seed(6)
    algorithm.setup(to_pyglove(SPACE))  # nor does it matter what else the user does with it
    algorithm.propose()
    _, again = run(search, 2)
    assert equal(proposed(first), proposed(again))
    _, other = run(search, 1, jax.random.key(4))
    assert not np.array_equal(proposed(first)["ops"][0], proposed(other)["ops"][0])


def test_a_seed_of_the_algorithms_own_is_kept():
    search = make(pg.geno.Random(seed=1))
    _, first = run(search, 1)
    _, other = run(search, 1, jax.random.key(4))
    assert equal(proposed(first), proposed(other))
    expected = pg.geno.Random(seed=1)
    expected.setup(to_pyglove(SPACE))
    ops = [from_dna(SPACE, expected.propose())["ops"] for _ in range(N)]
    np.testing.assert_array_equal(proposed(first)["ops"][0], ops)


@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("regularized_evolution", 3),
        *(
            pytest.param(name, every, marks=SLOW)
            for name, every in itertools.product(ALGORITHMS, (1, 3))
            if (name, every) != ("regularized_evolution", 3)
        ),
    ],
)
def test_a_replayed_history_goes_on_as_if_it_had_never_stopped(name, every):
    search = make(ALGORITHMS[name](), propose_every=every)
    host, states = run(search, 4, propose_every=every)
    saved, history = states[-1], host.history()
    _, unbroken = run(search, 3, host=host, state=saved, propose_every=every)
    again = search.host()
    again.replay(jax.device_get(saved.controller), history)
    assert again.proposals == 0
    resumed = jax.tree.map(jnp.asarray, jax.device_get(saved))
    again, resumed = run(search, 3, host=again, state=resumed, propose_every=every)
    assert equal(proposed(unbroken), proposed(resumed))
    assert equal(again.history(), host.history())


def test_a_history_of_another_algorithm_is_refused():
    host, states = run(make(ALGORITHMS["regularized_evolution"]()), 2)
    other = make(ALGORITHMS["hill_climb"]()).host()  # its first 16 are as random
    with pytest.raises(ValueError, match="in round 1 of its replay the algorithm does not propose"):
        other.replay(states[-1].controller, host.history())
    unsteady = Unsteady.host()
    state = unsteady.exchange(program()[0](KEY).controller)
    with pytest.raises(ValueError, match=r"in round 0 of its replay .* or a seed of its own"):
        Unsteady.host().replay(state, {})


class Draws(pg.DNAGenerator):
    """Draws from a generator that nobody can bring back."""

    def _propose(self):
        return recorded(random.SystemRandom().randrange(4**6))


Unsteady = make(Draws())


def test_a_state_that_is_not_the_last_exchanges_is_refused():
    search = make(Recorder())
    init, step = program()
    state = init(KEY)
    for _ in range(2):
        state, _ = step(KEY, state)  # and no exchange between
    with pytest.raises(ValueError, match=r"handed in 0 rounds of .* has results of 2: exchange"):
        search.host().exchange(state.controller)


# ----------------------------------------------------------------- fidelity, to PyGlove itself

SIZE, TOURNAMENT, BATCH = 12, 4, 4


@functools.cache
def in_step():
    """PyGlove's regularized evolution for 50 generations, and ours, fed the same results.

    What they propose is PyGlove's. One score in six is a failure; there are ties.
    """
    controller = controllers.regularized_evolution(SPACE, SIZE, TOURNAMENT)
    update = jax.jit(controller.update)
    theirs = pg.evolution.regularized_evolution(
        pg.evolution.mutators.Uniform(seed=2), SIZE, TOURNAMENT, seed=1
    )
    theirs.setup(to_pyglove(SPACE))
    state, luck = jax.jit(controller.init)(KEY), np.random.default_rng(0)
    rows, population = [], []
    for _ in range(50):
        parents = [genotype for genotype, _ in population]
        dnas = [theirs.propose() for _ in range(BATCH)]
        children = [from_dna(SPACE, dna) for dna in dnas]
        valid = luck.random(BATCH) > 1 / 6
        scores = np.array([planted(child) for child in children], np.float32)
        for k in np.flatnonzero(valid):
            theirs.feedback(dnas[k], float(scores[k]))
        genotypes = jax.tree.map(lambda *x: np.stack(x), *children)
        before = state
        state, _ = update(
            KEY,
            state,
            genotypes,
            jnp.zeros(BATCH, jnp.int32),
            jnp.where(valid, scores, jnp.nan),
            valid,
        )
        population = [(from_dna(SPACE, d), d.metadata["reward"]) for d in theirs.population]
        rows.append((before, parents, children, state, population))
    return controller, theirs, rows


def test_the_population_has_pygloves_members_and_ages_for_fifty_generations():
    *_, rows = in_step()
    for *_, state, population in rows:
        members = len(population)
        assert int(state.members) == members <= SIZE
        first = SIZE - members  # oldest first, in both
        assert state.scores[first:].tolist() == [reward for _, reward in population]
        ours = jax.tree.map(lambda x, first=first: np.asarray(x)[first:], state.genotypes)
        assert equal(ours, jax.tree.map(lambda *x: np.stack(x), *(g for g, _ in population)))
    assert members == SIZE


def is_one_mutation(parent, child):
    """One op is redrawn, or the edges are: one of them, or all."""
    ops = (parent["ops"] != child["ops"]).sum()
    return ops == 0 or (ops == 1 and np.array_equal(parent["edges"], child["edges"]))


def test_children_descend_from_the_population_of_the_moment_in_both():
    controller, _, rows = in_step()

    @jax.jit
    def children_of(state):
        plan = controller.prepare(KEY, state)
        keys = jax.random.split(KEY, BATCH)
        genotypes, ranks = jax.vmap(controller.propose, (0, None, 0))(keys, plan, jnp.arange(BATCH))
        return genotypes, ranks, jax.tree.map(lambda x: x[ranks], plan.genotypes)

    bred = 0
    for before, parents, children, *_ in rows:
        genotypes, ranks, fathers = jax.device_get(children_of(before))
        fresh = int(before.members) < SIZE
        assert ((ranks < 0) == fresh).all()
        if fresh:
            continue
        for k, child in enumerate(children):
            assert any(is_one_mutation(parent, child) for parent in parents)
            mine, father = (
                jax.tree.map(lambda x, k=k: x[k], tree) for tree in (genotypes, fathers)
            )
            assert is_one_mutation(father, mine)
            assert any(equal(father, parent) for parent in parents)
            bred += 1
    assert bred > 180
    # What is asserted is rare: a uniform draw descends from nobody.
    fates = jax.device_get(jax.jit(SPACE.sample, static_argnums=1)(KEY, (100,)))
    strangers = [jax.tree.map(lambda x, k=k: x[k], fates) for k in range(100)]
    related = [any(is_one_mutation(p, s) for p in rows[-1][1]) for s in strangers]
    assert np.mean(related) < 0.3


def test_parents_are_chosen_as_often_as_in_pyglove():
    controller, theirs, rows = in_step()
    draws = 8_000
    select = theirs.reproduction.ops[0]  # what comes before the mutation
    picked = [select(theirs.population)[0].metadata["reward"] for _ in range(draws)]

    @jax.jit
    def ranks_of(state):
        def one(key):
            plan = controller.prepare(key, state)
            return controller.propose(jax.random.fold_in(key, 1), plan, jnp.int32(0))[1]

        return jax.vmap(one)(jax.random.split(KEY, draws))

    # Members of equal scores count as one.
    scores = np.sort([dna.metadata["reward"] for dna in theirs.population])[::-1]
    ours = scores[np.asarray(ranks_of(rows[-1][3]))]
    values = np.unique(scores)
    assert len(values) >= 3
    a, b = ([(x == value).sum() for value in values] for x in (ours, np.array(picked)))
    mean, deviation = np.add(a, b) / 2, np.subtract(a, b) / math.sqrt(2)
    assert sigmas(mean + deviation, mean / mean.sum()) < 5


# ------------------------------------------------------------------------------------ the runner


def small(tmp_path, algorithm="regularized_evolution", **changes):
    config = pendulum(generations=4, answer_episodes=4, checkpoint_every=1)
    config.task = section("task", "regression", batch_size=8)  # compiles faster than episodes do
    config.policy = section("policy", "edge_pruned", hidden=(3,), num_edges=6)
    config.controller = section("controller", "pyglove", algorithm=algorithm)
    config.update(changes)
    return config, Workdir(tmp_path / "run")


@SLOW
def test_a_run_tells_the_proposals_a_second_that_it_gets(tmp_path, capsys):
    config, workdir = small(tmp_path)
    found = train.train(config, workdir)
    rate = workdir.read("provenance.json")["proposals_per_second"]
    assert rate > 1.0
    line = f"{rate:,.3g} architectures a second, on the host"
    assert line in train.summary(found, workdir)
    # As many proposals in every generation: their rate is the harmonic mean of the generations'.
    each = np.array(rates(workdir.path))
    assert each.size == 4
    assert each.size / np.sum(1 / each) == pytest.approx(rate, rel=1e-3)
    # A run that goes on shows those of before.
    before = rates(workdir.path)
    (workdir.path / "result.json").unlink()
    (workdir.path / "checkpoints" / "4").rename(tmp_path / "4")
    train.train(config, workdir)
    assert rates(workdir.path)[:3] == before[:3]
    assert "Going on from the checkpoint of generation 3." in capsys.readouterr().out


def rates(folder):
    """The proposals a second by generation, as TensorBoard has them."""
    out = []
    for file in folder.glob("events.out.tfevents.*"):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            values = Event.FromString(data[12 : 12 + length]).summary.value
            out += [v.simple_value for v in values if v.tag == "controller_proposals_per_second"]
            data = data[16 + length :]
    return out


@SLOW
def test_several_devices_evaluate_what_one_host_proposes(tmp_path):
    config, workdir = small(tmp_path, devices=2, generations=3)
    found = train.train(config, workdir)
    assert found["generations"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 2}, r"one run at a time: seeds must be 1 and sweep empty, got 2 runs\.$"),
        (
            {"sweep": {"strategy": {"noise_std": [0.1, 0.2]}}},
            r"seeds must be 1 and sweep empty, got 2 runs\.$",
        ),
        (
            {"controller": {"algorithm": "ppo"}},
            r"algorithm must be one of hill_climb, neat, nsga2, random, regularized_evolution, got",
        ),
        (
            {"controller": {"algorithm": "neat", "tournament_size": 3}},
            r"tournament_size is of regularized_evolution, and must be None for neat, got 3\.$",
        ),
        (
            {"controller": {"tournament_size": 12}},
            r"controller: tournament_size must be in \[2, 11\], got 12\.$",
        ),
        (
            {"controller": {"algorithm": "neat", "population_size": 8}},
            r"population_size of neat must be the 11 candidates of a generation, got 8: it breeds",
        ),
        ({"controller": {"population_size": 0}}, r"population_size must be at least 2, got 0\.$"),
        (
            {"policy": section("policy", "dense", hidden=(4,))},
            r"the space must have several architectures, got .*: controllers\.constant proposes",
        ),
    ],
)
def test_a_config_that_the_host_cannot_serve_is_refused(changes, message, tmp_path):
    config, _ = small(tmp_path)
    config.policy = changes.pop("policy", config.policy)
    config.update(changes)
    with pytest.raises(ConfigError, match=message):
        plan(config)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    config, _ = small(tmp_path, devices=jax.device_count())
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"host needs a run of one process, got 2\.$"):
        train._plan(config)


@pg.geno.dna_generator
def eleven(spec):
    for _ in range(11):
        yield pg.random_dna(spec)


def test_an_algorithm_that_breaks_stops_the_run_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(pg.evolution, "neat", lambda population_size: eleven())
    config, workdir = small(tmp_path, "neat")
    with pytest.raises(RunError) as raised:
        train.train(config, workdir)
    assert str(raised.value) == (
        "the controller on the host, before generation 1, failed with ValueError: the algorithm "
        f"has no proposals left after 11 (see {workdir.path / 'traceback.txt'})."
    )
    assert (workdir.path / "checkpoints" / "1").is_dir()


# ------------------------------------------------------------------------------------- bad input


class Nothing(pg.DNAGenerator):
    """Proposes what is none."""

    def _propose(self):
        return None


class Another(pg.DNAGenerator):
    """Proposes from another space."""

    def _propose(self):
        return pg.DNA([1, 2])


@pg.geno.dna_generator
def three(spec):
    for _ in range(3):
        yield recorded(0)


def test_a_space_of_the_users_own_template_keeps_its_names():
    translation = from_pyglove(pg.Dict(width=pg.oneof([8, 16, 32]), rate=pg.floatv(0.0, 1.0)))
    seen = []

    @pg.geno.dna_generator
    def by_name(spec):
        seen.append([str(element.location) for element in spec.elements])
        while True:
            yield pg.DNA([1, 0.25])

    controller = controllers.pyglove(translation.space, by_name(), 2, spec=translation.spec)
    state = controller.host([0, 1]).exchange(controller.init(KEY))
    assert seen == [["width", "rate"]]
    assert translation.materialize(
        jax.tree.map(lambda x: np.asarray(x[1]), state.round.genotypes)
    ) == pg.Dict(width=16, rate=0.25)


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (
            lambda: controllers.pyglove(SPACE, 3, N),
            TypeError,
            r"^algorithm must be a pg\.DNAGenerator, got 3\.$",
        ),
        (
            lambda: controllers.pyglove(SPACE, pg.geno.Random, N),
            TypeError,
            r"^algorithm must be a pg\.DNAGenerator, got <class ",
        ),
        (
            lambda: controllers.pyglove(SubsetOf(3, 3), pg.geno.Random(), N),
            ValueError,
            r"^the space must have several architectures, got 3 of 3: controllers\.constant",
        ),
        (
            lambda: controllers.pyglove(SPACE, pg.geno.Random(), 0),
            ValueError,
            r"^num_candidates must be at least 1, got 0\.$",
        ),
        (
            lambda: controllers.pyglove(SPACE, pg.evolution.neat(), N, num_objectives=2),
            ValueError,
            r"^num_objectives must be 1 of an algorithm that hears of one, got 2\.$",
        ),
        (
            lambda: controllers.pyglove(SPACE, pg.geno.Random(), N, num_best=0),
            ValueError,
            r"^num_best must be at least 1, got 0\.$",
        ),
        (
            lambda: controllers.pyglove(Foreign(), pg.geno.Random(), N).host(range(N)),
            TypeError,
            r"^PyGlove has no form of <.*Foreign",
        ),
        (
            lambda: run(make(Nothing()), 1),
            TypeError,
            r"^the algorithm must propose a pg\.DNA, got None\.$",
        ),
        (
            lambda: run(make(Another()), 1),
            ValueError,
            r"^the algorithm proposed what is none of the space: the DNA of this space must have 7",
        ),
        (
            lambda: run(make(three()), 1),
            ValueError,
            r"^the algorithm has no proposals left after 3\.$",
        ),
        (
            lambda: step_of(controllers.pyglove(SPACE, pg.geno.Random(), N - 1)),
            ValueError,
            r"^num_candidates must be that of the search, 16, got 15\.",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(attempt, error, message):
    with pytest.raises(error, match=message):
        attempt()


def step_of(controller):
    search = make(Recorder())
    search = es_enas(search.policy, search.task, search.strategy, controller)
    jax.eval_shape(search.step, KEY, jax.eval_shape(search.init, KEY))


class Foreign:
    """A space that PyGlove knows nothing of."""

    log_cardinality = FloatRange(0.0, 1.0).log_cardinality
