"""What a run is for: one architecture and its weights, and what they are worth.

The set of episodes that selects cannot estimate, so there are two: one chooses, another reports.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from esenas_jax import _checks, pareto
from esenas_jax.policies import Policy
from esenas_jax.search import Search, SearchState
from esenas_jax.tasks.normalizer import Moments
from esenas_jax.tasks.task import Episodes, Exam, Lens, SingleShot, Task
from esenas_jax.types import Array, Cost, Evaluation, Genotype, Key, PyTree, Stream, stream


class Contender(NamedTuple):
    """What can act: weights, an architecture, and the moments that normalise what it sees."""

    params: Array  # [P]
    genotype: Genotype
    moments: Moments


class Answer(NamedTuple):
    """The contender to deploy."""

    chosen: Contender
    cost: Cost  # of its architecture
    choice: Array  # int32 [], its place among the contenders
    # float32 [], its mean score among them, as the controller sees it; -inf if any failed
    score: Array
    # Of a task with exams both are of those: [A, n] and [n].
    selection: Evaluation  # [A, R], all contenders on the same starts
    report: Evaluation  # [A * R], the chosen one on starts that selected nothing


class Front(NamedTuple):
    """The architectures among which a controller of several objectives does not choose."""

    contenders: Contender  # [A], the cheapest first
    valid: Array  # bool [A], whether there is one; those that are none come last
    cost: Cost  # [A]
    # [A, R], all on the same starts, which selected nothing; of a task with exams [A, n]
    evaluations: Evaluation
    dominated: Array  # bool [A], whether another one turned out better, see `pareto_front`


def contenders(search: Search, state: SearchState) -> tuple[Contender, Array]:
    """Return the most promising contenders [A], and whether each may be chosen, bool [A].

    The controller's best architectures under the final weights, and those of the incumbent: the
    generation whose exact evaluations were the best of the run, as it stood.
    """
    genotypes, valid = search.controller.best(state.controller)
    incumbent = state.incumbent
    both = jax.tree.map(
        lambda *xs: jnp.concatenate(xs),
        _with_weights(state.strategy.params, genotypes, state.moments),
        _with_weights(incumbent.params, incumbent.genotypes, incumbent.moments),
    )
    eligible = jnp.concatenate([valid, incumbent.valid])
    # Before anything was evaluated one architecture is as good as any other.
    return both, eligible | ~jnp.any(eligible)


def reevaluate(search: Search, key: Key, contenders: Contender, starts: Array) -> Evaluation:
    """Evaluate contenders, every episode by itself; unperturbed, and learning nothing.

    Args:
        search: gives task and policy.
        key: of the starts.
        contenders: [A].
        starts: int32 [A, R], which start each episode has: equal numbers, equal starts.

    Returns:
        Evaluations [A, R].
    """
    task = search.task
    single = task._replace(episodes=1) if isinstance(task, Episodes) else task
    per_contender = starts.shape[1]

    def bound(given: tuple, e: Array) -> tuple[PyTree, Any]:
        key, contenders, starts, _ = given

        def network(e: Array) -> PyTree:
            mine = jax.tree.map(lambda x: x[e // per_contender], contenders)
            return search.policy.bind(mine.params, mine.genotype)

        def start(e: Array) -> Key:
            return jax.random.fold_in(key, starts.ravel()[e])

        # Several at a time, as single-shot tasks ask for them, or one.
        return (jax.vmap(network)(e), start) if e.ndim else (network(e), start(e))

    def lens(given: tuple, e: Array) -> Lens:
        # Contenders come from different generations: each sees with its own moments.
        return jax.tree.map(lambda x: x[e // per_contender], given[-1])

    def evaluate(key: Key, contenders: Contender, starts: Array) -> Evaluation:
        given = (key, contenders, starts, jax.vmap(task.lens)(contenders.moments))
        ids = jnp.arange(starts.size, dtype=jnp.int32)
        seen = search.population.evaluate(single, given, bound, lens, search.policy.apply, ids)
        return jax.tree.map(lambda x: x.reshape(starts.shape), seen._replace(statistics=()))

    return search.population.spread(evaluate)(key, contenders, starts)


def examine(search: Search, exam: Exam, contenders: Contender) -> Evaluation:
    """Let contenders [A] sit an exam; unperturbed, and learning nothing.

    Returns:
        Evaluations [A, n], with what the exam tells of each example in `statistics`.
    """

    def one(contender: Contender) -> Evaluation:
        network = search.policy.bind(contender.params, contender.genotype)
        return exam.evaluate(network, search.policy.apply)

    # One after the other: they are few, and an exam is long.
    return search.population.spread(lambda field: jax.lax.map(one, field))(contenders)


def act(search: Search, contender: Contender, obs: ArrayLike) -> Array:
    """Return the action [A] of a contender for an observation [O], as the environment gives it.

    Observations [B, O] give actions [B, A].

    Raises:
        ValueError: if the observation has another shape.
    """
    lens = search.task.lens(contender.moments)
    network = search.policy.bind(contender.params, contender.genotype)
    return actor(search.policy, network, lens.mean, lens.scale)(obs)


def actor(
    policy: Policy, network: PyTree, mean: Array, scale: Array
) -> Callable[[ArrayLike], Array]:
    """Return the function from an observation [O] to an action [A], and from [B, O] to [B, A].

    Args:
        policy: whose network acts.
        network: what the policy's `bind` returned.
        mean: float32 [O], taken away from an observation.
        scale: float32 [O], multiplied with after that.
    """

    def one(obs: Array) -> Array:
        return policy.apply(network, (obs - mean) * scale)

    def acts(obs: ArrayLike) -> Array:
        shape = jnp.shape(obs)
        if len(shape) not in (1, 2) or shape[-1] != policy.obs_size:
            size = policy.obs_size
            raise ValueError(
                f"an observation must be of shape ({size},) or (B, {size}), got {shape}."
            )
        seen = jnp.asarray(obs, jnp.float32)
        return one(seen) if seen.ndim == 1 else jax.vmap(one)(seen)

    return acts


def choose_answer(search: Search, run_key: Key, state: SearchState, episodes: int = 256) -> Answer:
    """Choose what to deploy, and estimate what it is worth.

    The contenders are compared on the same fresh starts; the one with the highest mean score, as
    the controller sees it (of several objectives the first), is then evaluated again on a third
    set of starts. A task with exams has one in the place of each of these sets.

    Args:
        search: that was run.
        run_key: of the run.
        state: at its end, or at any time.
        episodes: of each of the two stages in all, at least 2; each contender's share of the first
            is rounded up. An exam has as many as it has examples.

    Returns:
        The answer. One program serves both stages: it is compiled once.
    """
    episodes = _checks.integer("episodes", episodes, 2)
    selects, reports = exams(search.task)
    run = jax.jit(partial(reevaluate, search))
    field, eligible, select_key, report_key = jax.jit(partial(_compared, search))(run_key, state)
    count = eligible.size
    distinct = np.arange(count * -(-episodes // count), dtype=np.int32).reshape(count, -1)

    if selects is None:
        selection = run(select_key, field, np.broadcast_to(distinct[0], distinct.shape))
    else:
        selection = jax.jit(partial(examine, search, selects))(field)
    best = jax.jit(partial(_best, search))(state, field, eligible, selection)

    if reports is None:
        report = run(report_key, jax.jit(partial(_copies, count))(best["chosen"]), distinct)
    else:
        alone = jax.jit(partial(_copies, 1))(best["chosen"])
        report = jax.jit(partial(examine, search, reports))(alone)
    report = jax.jit(partial(jax.tree.map, jnp.ravel))(report)
    return Answer(**best, selection=selection, report=report)


def pareto_front(search: Search, run_key: Key, state: SearchState, episodes: int = 64) -> Front:
    """Measure the front of a controller of several objectives.

    The controller's best architectures, all under the final weights, are evaluated on the same
    fresh starts. Scores at proposal time were of other weights, perturbed, and the luckiest of
    many; these have selected nothing. One that is dominated by the mean scores of another is
    marked, and kept: which side of the border it is on is known no better than its mean.

    Args:
        search: that was run.
        run_key: of the run.
        state: at its end, or at any time.
        episodes: R, of each architecture, at least 2; of an exam as many as it has examples.
    """
    episodes = _checks.integer("episodes", episodes, 2)
    field, valid, key = jax.jit(partial(_candidates_of_front, search))(run_key, state)
    reports = exams(search.task)[1]
    if reports is None:
        starts = np.broadcast_to(np.arange(episodes, dtype=np.int32), (valid.size, episodes))
        seen = jax.jit(partial(reevaluate, search))(key, field, starts)
    else:
        seen = jax.jit(partial(examine, search, reports))(field)
    return jax.jit(partial(_front, search))(state, field, valid, seen)


def exams(task: Task) -> tuple[Exam | None, Exam | None]:
    """Return what chooses an answer, and what says how good it is, where a task has exams."""
    return (task.select, task.report) if isinstance(task, SingleShot) else (None, None)


def _compared(
    search: Search, run_key: Key, state: SearchState
) -> tuple[Contender, Array, Key, Key]:
    """Return the contenders, which may be chosen, and the keys that select and report."""
    select, report = (
        stream(run_key, state.generation, purpose) for purpose in (Stream.SELECT, Stream.REPORT)
    )
    return *contenders(search, state), select, report


def _best(
    search: Search, state: SearchState, field: Contender, eligible: Array, seen: Evaluation
) -> dict[str, Any]:
    """Return the first fields of the answer, given the evaluations [A, R] of the contenders."""
    costs = jax.vmap(search.policy.cost)(field.genotype)
    fitness = _scores(search, state, seen, costs)[..., 0].mean(axis=1)
    fitness = jnp.where(jnp.isfinite(fitness), fitness, -jnp.inf)  # a mean can overflow
    # Among contenders that may be chosen, even if all of their episodes failed.
    best = jnp.lexsort((fitness, eligible))[-1].astype(jnp.int32)
    chosen, cost, score = jax.tree.map(lambda x: x[best], (field, costs, fitness))
    return {"chosen": chosen, "cost": cost, "choice": best, "score": score}


def _copies(count: int, one: PyTree) -> PyTree:
    """Return arrays `count` times, [count, ...]."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), one)


def _candidates_of_front(
    search: Search, run_key: Key, state: SearchState
) -> tuple[Contender, Array, Key]:
    """Return contenders [A], the cheapest first, which of them are valid, and the starts' key."""
    genotypes, valid = search.controller.best(state.controller)
    amount = getattr(jax.vmap(search.policy.cost)(genotypes), search.objective.cost)
    order = jnp.lexsort((amount, ~valid))
    genotypes, valid = jax.tree.map(lambda x: x[order], (genotypes, valid))
    field = _with_weights(state.strategy.params, genotypes, state.moments)
    return field, valid, stream(run_key, state.generation, Stream.FRONT)


def _front(
    search: Search, state: SearchState, field: Contender, valid: Array, seen: Evaluation
) -> Front:
    costs = jax.vmap(search.policy.cost)(field.genotype)
    scores = _scores(search, state, seen, costs).mean(axis=1)
    sound = valid & jnp.isfinite(scores).all(axis=1)
    return Front(
        contenders=field,
        valid=valid,
        cost=costs,
        evaluations=seen,
        dominated=pareto.ranks(scores, sound, 1) > 0,
    )


def _with_weights(params: Array, genotypes: Genotype, moments: Moments) -> Contender:
    """Return contenders [A] of the same weights, given genotypes [A]."""
    count = jax.tree.leaves(genotypes)[0].shape[0]
    params, moments = _copies(count, (params, moments))
    return Contender(params, genotypes, moments)


def _scores(search: Search, state: SearchState, seen: Evaluation, costs: Cost) -> Array:
    """Return what the controller sees of evaluations [A, R], float32 [A, R, M]; -inf if failed."""
    score = jax.vmap(jax.vmap(search.objective.apply, (None, 0, None)), (None, 0, 0))
    scores = score(state.objective, seen, costs)
    each = scores.controller.reshape(*seen.failed.shape, -1)
    sound = jnp.isfinite(scores.strategy) & ~seen.failed
    return jnp.where(sound[..., None] & jnp.isfinite(each), each, -jnp.inf)
