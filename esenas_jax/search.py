"""ES-ENAS: one population evaluation pays for both learners (arXiv 2101.07415).

    candidate(run_key, state, generation, i) -> Candidate
    evaluate(state, candidates)              -> Evaluation
    tell(run_key, state, generation, ids, genotypes, info, evaluations) -> (state, metrics)

    step(run_key, state) = tell(evaluate(candidate(0 .. N-1)))        run = scan of step

`step` makes a candidate when a lane needs it; what it returns equals that composition.

ES and ARS are this loop with the constant controller, random architecture search is it with the
random one. There is no other trainer.
"""

import enum
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from esenas_jax import _checks
from esenas_jax.controllers import Controller, Host, additive_expectation
from esenas_jax.objectives import Objective, shifted_return
from esenas_jax.policies import Policy
from esenas_jax.population import PAIR, Population
from esenas_jax.strategies import Strategy
from esenas_jax.strategies.shaping import spread
from esenas_jax.tasks.normalizer import Moments, Sums
from esenas_jax.tasks.task import Episodes, Lens, SingleShot, Task, normalizes
from esenas_jax.types import (
    Array,
    Candidate,
    Cost,
    Evaluation,
    Genotype,
    Key,
    Part,
    PyTree,
    Scores,
    Stream,
    stream,
)


class Starts(enum.Enum):
    """Which candidates see the same start (and the same examples, in a single-shot task)."""

    FIXED = "fixed"  # all candidates of all generations: the released deterministic start
    GENERATION = "generation"  # all candidates of a generation
    PAIR = "pair"  # the two halves of an antithetic pair
    CANDIDATE = "candidate"  # none


_START_NAMES = [start.value for start in Starts]


class Incumbent(NamedTuple):
    """The generation whose exact evaluations scored highest so far, as it stood."""

    score: Array  # float32 [], its mean exact fitness; -inf before the first
    params: Array  # [P]
    genotypes: Genotype  # [A], the controller's best
    valid: Array  # bool [A]
    moments: Moments


class Source(NamedTuple):
    """What of a state candidates are made from, and seen through."""

    strategy: PyTree
    controller: PyTree
    moments: Moments


class SearchState(NamedTuple):
    """Everything that the next generation needs. Its tree, shapes and dtypes never change."""

    generation: Array  # int32 []
    strategy: PyTree
    controller: PyTree
    objective: PyTree
    moments: Moments  # of observations
    incumbent: Incumbent
    discarded: Array  # int32 [], generations discarded in a row
    expectation: PyTree = ()  # of scores, by architecture; () without a baseline of that kind

    @property
    def source(self) -> Source:
        """What the next candidates are made from."""
        return Source(self.strategy, self.controller, self.moments)

    def rewound(self, lost: Array) -> "SearchState":
        """Return the state before the last `lost` generations, if all of them were discarded."""
        return self._replace(generation=self.generation - lost, discarded=self.discarded - lost)


class Metrics(NamedTuple):
    """What a person wants to know of a generation; scalars."""

    generation: Array
    exact_mean: Array  # mean return of the exact evaluations: the learning curve
    exact_std: Array
    exact_score: Array  # their mean score, by which answers are chosen
    fitness_mean: Array  # over all candidates that did not fail, as the learners see it
    fitness_max: Array
    fitness_min: Array
    return_without_bonus: Array  # mean over the exact evaluations
    episode_length: Array  # mean over the exact evaluations
    edges: Array  # of their architectures, as `Cost` counts them: means, these too
    multiplications: Array
    weights: Array
    biases: Array
    bits: Array
    entropy_bits: Array
    steps: Array  # int32, environment steps of this generation
    episodes: Array  # int32, of this generation
    failed: Array  # int32, candidates
    discarded: Array  # int32, generations discarded in a row, this one included
    strategy: dict[str, Array]
    controller: dict[str, Array]


class Search(NamedTuple):
    """A search: the pieces it is made of, and its functions, all pure and made for jit."""

    policy: Policy
    task: Task
    strategy: Strategy
    controller: Controller
    objective: Objective
    population: Population
    propose_every: int  # generations that candidates keep their architectures for
    init: Callable[[Key], SearchState]
    candidate: Callable[[Key, SearchState, Array, Array], Candidate]
    evaluate: Callable[[SearchState, Candidate], Evaluation]
    tell: Callable[..., tuple[SearchState, Metrics]]
    step: Callable[[Key, SearchState], tuple[SearchState, Metrics]]
    # The step with candidates made from an earlier state's source: what a slow worker brings.
    step_from: Callable[[Key, Source, SearchState], tuple[SearchState, Metrics]]
    run: Callable[[Key, SearchState, int], tuple[SearchState, Metrics]]
    host: Callable[[], Host] | None  # of a run, where the controller has a half on the host

    @property
    def num_candidates(self) -> int:
        """N."""
        return self.strategy.num_candidates

    @property
    def shards(self) -> int:
        """S, the pieces that devices, real or virtual, share a generation out in."""
        return self.population.shards

    def deployed(self, state: SearchState) -> SearchState:
        """Return the state that `choose_answer` takes: of a search alone, all of it."""
        return state


def es_enas(
    policy: Policy,
    task: Task,
    strategy: Strategy,
    controller: Controller,
    *,
    objective: Objective | None = None,
    population: Population | None = None,
    starts: Starts = Starts.CANDIDATE,
    shared_architecture: bool = False,
    propose_every: int = 1,
    baseline_rate: float | None = None,
    max_failed: float = 0.4,
) -> Search:
    """Return the search for the architecture and weights that maximise a task's score.

    Args:
        policy: the network, of the task's observation and action sizes.
        task: the world.
        strategy: the continuous half.
        controller: the combinatorial half, over the policy's space.
        objective: from evaluations to scores; the return by default.
        population: how a generation is carried out.
        starts: which candidates see the same start.
        shared_architecture: both halves of an antithetic pair run one architecture; the released
            code draws one for each.
        propose_every: k, candidate i keeps its architecture for k generations, and the controller
            hears of the last of them; released 1. Iris has 50, and hears of the first.
        baseline_rate: in (0, 1], from the score of every candidate the strategy takes away what was
            to be expected of its architecture (`controllers.additive_expectation`, which learns at
            this rate); None, as released, takes nothing. The controller's scores are left alone.
        max_failed: share of failed candidates in [0, 1] above which a generation is discarded:
            the counter advances and nothing else changes. Released 0.4. A generation whose update
            is not finite is discarded too.

    Returns:
        The functions of the search.

    Raises:
        TypeError, ValueError: if an argument is of another kind (two of them are swapped, say),
            layer sizes do not fit the task, the controller does not maximise what the objective
            gives, or a number is outside its range.

    Example:
        >>> import jax
        >>> from esenas_jax import controllers, policies, strategies, tasks
        >>> task = tasks.polynomial_regression(jax.random.key(1))
        >>> policy = policies.edge_pruned(5, (), 1, num_edges=5, output_activation=lambda x: x)
        >>> search = es_enas(policy, task, strategies.ars(8, 1), controllers.random(policy.space))
        >>> state, metrics = search.run(jax.random.key(0), search.init(jax.random.key(0)), 3)
        >>> metrics.exact_mean.shape
        (3,)
    """
    objective = shifted_return() if objective is None else objective
    population = Population() if population is None else population
    _checks.kind("policy", policy, Policy)
    _checks.kind("task", task, SingleShot, Episodes)
    _checks.kind("strategy", strategy, Strategy)
    _checks.kind("controller", controller, Controller)
    _checks.kind("objective", objective, Objective)
    _checks.kind("population", population, Population)
    _checks.sizes(policy, task)
    starts = Starts(_checks.known("starts", getattr(starts, "value", starts), _START_NAMES))
    if controller.space != policy.space:
        raise ValueError(
            f"the controller's space must be the policy's, {policy.space}, got {controller.space}."
        )
    if controller.num_objectives != objective.num_objectives:
        raise ValueError(
            f"the controller must maximise as many numbers as the objective gives it, "
            f"{objective.num_objectives}, got one that maximises {controller.num_objectives}."
        )
    pairs = strategy.num_directions + strategy.num_exact
    architectures = pairs if shared_architecture else strategy.num_candidates
    if controller.num_incumbents >= architectures:
        raise ValueError(
            f"num_incumbents must be fewer than the {architectures} architectures of a generation, "
            f"got {controller.num_incumbents}: none would be new."
        )
    if shared_architecture and controller.num_incumbents > strategy.num_directions:
        raise ValueError(
            f"num_incumbents must be at most the {strategy.num_directions} pairs where the halves "
            f"of each share an architecture, got {controller.num_incumbents}."
        )
    steps = strategy.num_candidates * task.episodes * task.horizon
    if steps >= 2**31:
        raise ValueError(
            f"a generation must have fewer than 2^31 environment steps, got {steps}: "
            f"{strategy.num_candidates} candidates of {task.episodes} episodes of {task.horizon}."
        )
    if population.shards > strategy.num_candidates:
        raise ValueError(
            f"a generation of {strategy.num_candidates} candidates can be cut into at most as many "
            f"shards (devices, or virtual shards), got {population.shards}."
        )
    # A strategy that these parameters are too many for says so now.
    jax.eval_shape(strategy.init, jax.ShapeDtypeStruct((policy.num_params,), jnp.float32))
    propose_every = _checks.integer("propose_every", propose_every, 1)
    max_failed = _checks.real("max_failed", max_failed, 0.0, 1.0)
    expectation = (
        None if baseline_rate is None else additive_expectation(policy.space, baseline_rate)
    )
    num_candidates = strategy.num_candidates
    tolerated = math.floor(max_failed * num_candidates + 1e-9)
    all_ids = jnp.arange(num_candidates, dtype=jnp.int32)
    bind = jax.named_scope(Part.POLICY)(policy.bind)
    apply = jax.named_scope(Part.POLICY)(policy.apply)

    def init(run_key: Key) -> SearchState:
        k_params, k_controller = jax.random.split(stream(run_key, 0, Stream.INIT))
        strategy_state = strategy.init(policy.init(k_params))
        controller_state = controller.init(k_controller)
        moments = task.init(stream(run_key, 0, Stream.START))
        genotypes, valid = controller.best(controller_state)
        return SearchState(
            generation=jnp.int32(0),
            strategy=strategy_state,
            controller=controller_state,
            objective=objective.init(),
            moments=moments,
            incumbent=Incumbent(
                score=jnp.full((), -jnp.inf, jnp.float32),
                params=strategy_state.params,
                genotypes=genotypes,
                valid=valid & False,
                moments=moments,
            ),
            discarded=jnp.int32(0),
            expectation=() if expectation is None else expectation.init(),
        )

    # --- candidates -------------------------------------------------------------------------------

    @jax.named_scope(Part.PROPOSING)
    def prepare(run_key: Key, state: SearchState | Source, generation: Array) -> PyTree:
        key = stream(run_key, _proposal_generation(generation), Stream.PLAN)
        return controller.prepare(key, state.controller)

    @jax.named_scope(Part.PROPOSING)
    def propose(run_key: Key, plan: PyTree, generation: Array, i: Array) -> tuple[Genotype, PyTree]:
        if shared_architecture:
            i = strategy.pair(i)
        key = stream(run_key, _proposal_generation(generation), Stream.ARCHITECTURE)
        return controller.propose(jax.random.fold_in(key, i), plan, i)

    def _proposal_generation(generation: Array) -> Array:
        # Within a block the controller's state rests, so the same key makes the same again.
        return generation - generation % propose_every

    @jax.named_scope(Part.PERTURBING)
    def perturb(run_key: Key, state: SearchState | Source, generation: Array, i: Array) -> Array:
        return strategy.candidate(stream(run_key, generation, Stream.NOISE), state.strategy, i)

    def with_noise(run_key: Key, source: Source, generation: Array) -> Source:
        # An episode costs far more than its noise. A shard would keep noise of directions that
        # other shards evaluate.
        if not isinstance(task, SingleShot) or population.shards > 1:
            return source
        with jax.named_scope(Part.PERTURBING):
            key = stream(run_key, generation, Stream.NOISE)
            prepared = strategy.prepare(key, source.strategy, population.noise_bytes_used)
        return source._replace(strategy=prepared)

    def episode_key(run_key: Key, generation: Array, i: Array) -> Key:
        if starts is Starts.FIXED:
            return stream(run_key, 0, Stream.START)
        key = stream(run_key, generation, Stream.EPISODE)
        if starts is Starts.GENERATION:
            return key
        return jax.random.fold_in(key, strategy.pair(i) if starts is Starts.PAIR else i)

    def candidate(run_key: Key, state: SearchState, generation: Array, i: Array) -> Candidate:
        """Return candidate i [] of a generation; vmap over i for several."""
        genotype, info = propose(run_key, prepare(run_key, state, generation), generation, i)
        return Candidate(
            params=perturb(run_key, state, generation, i),
            genotype=genotype,
            info=info,
            key=episode_key(run_key, generation, i),
        )

    # --- evaluation -------------------------------------------------------------------------------

    def evaluate(state: SearchState, candidates: Candidate) -> Evaluation:
        """Evaluate candidates of one generation that exist, with a leading [N] on every leaf.

        A single-shot task shows all of them the first one's examples where `starts` says that they
        see the same.
        """
        shared = starts in (Starts.FIXED, Starts.GENERATION)

        def bound(given: tuple[Candidate, Lens], i: Array) -> tuple[PyTree, Any]:
            mine = jax.tree.map(lambda x: x[i], given[0])
            if i.ndim == 0:
                return bind(mine.params, mine.genotype), mine.key
            # As `step` has them: what is shared is not mapped, and gives the same bits.
            key = given[0].key
            networks = jax.vmap(bind)(mine.params, mine.genotype)
            return networks, lambda i: key[0] if shared else key[i]

        given = (candidates, task.lens(state.moments))
        ids = jnp.arange(candidates.params.shape[0], dtype=jnp.int32)
        return population.evaluate(task, given, bound, _seen_through, apply, ids)

    # --- learning ---------------------------------------------------------------------------------

    def tell(
        run_key: Key,
        state: SearchState,
        generation: Array,
        ids: Array,
        genotypes: Genotype,
        info: PyTree,
        evaluations: Evaluation,
    ) -> tuple[SearchState, Metrics]:
        """Learn from evaluations of candidates `ids` of a generation.

        Candidates that are not among `ids` count as failed: a lost worker is a failed candidate.
        Under jit, a generation with repeated ids is discarded, because ids cannot be checked
        before the program runs.

        Args:
            run_key: the key that the candidates were made with.
            state: as it is now; it may have moved on since the candidates were made.
            generation: of the candidates, int32 [].
            ids: int32 [n], distinct, each in [0, N).
            genotypes: [n], as proposed.
            info: [n], as proposed.
            evaluations: [n], `statistics` summed over them.

        Raises:
            TypeError, ValueError: if ids are not distinct or not those of candidates, or a task
                that normalizes observations gets no statistics of them.
        """
        # Late evaluations are of parameters that are gone.
        timely = generation == state.generation
        times = jnp.zeros(num_candidates, jnp.int32).at[ids].add(1, mode="drop")
        distinct = jnp.all(times <= 1) & jnp.all((ids >= 0) & (ids < num_candidates))
        source = with_noise(run_key, state.source, generation)  # as `step`: the same bits
        return learn(
            run_key, source, timely, distinct, state, generation, ids, genotypes, info,
            evaluations,
        )  # fmt: skip

    def learn(
        run_key: Key,
        source: Source,
        timely: Array | bool,
        distinct: Array | bool,
        state: SearchState,
        generation: Array,
        ids: Array,
        genotypes: Genotype,
        info: PyTree,
        evaluations: Evaluation,
    ) -> tuple[SearchState, Metrics]:
        """Learn from evaluations.

        Unless `timely`, `source` is not what the candidates were made from. Unless `distinct`, some
        ids are there twice, or are those of no candidate.
        """
        # `step` makes all of these itself, and `tell` does not: XLA would fuse how they came about
        # with what is made of them, and a sum would be rounded in another order.
        genotypes, info, evaluations = jax.lax.optimization_barrier((genotypes, info, evaluations))
        costs = jax.vmap(policy.cost)(genotypes)
        scores: Scores = jax.vmap(objective.apply, (None, 0, 0))(
            state.objective, evaluations._replace(statistics=()), costs
        )
        finite = jax.tree.map(jax.vmap(lambda x: jnp.isfinite(x).all()), scores)
        valid = finite.strategy & finite.controller & ~evaluations.failed
        if isinstance(task, Episodes):  # which a host may have carried out
            valid &= jnp.isfinite(evaluations.return_without_bonus)
        surprise, expected = scores.strategy, state.expectation
        if expectation is not None:
            # Equal scores move nothing, whatever was expected of them.
            told = spread(scores.strategy, valid) > 0
            surprise = surprise - jnp.where(told, expectation.foretell(expected, genotypes), 0.0)
            expected = expectation.update(expected, genotypes, scores.strategy, valid)
        fitness = jnp.zeros(num_candidates, jnp.float32).at[ids].set(surprise)
        arrived = jnp.zeros(num_candidates, bool).at[ids].set(valid)
        place = (
            jnp.zeros(num_candidates, jnp.int32).at[ids].set(jnp.arange(ids.size, dtype=jnp.int32))
        )

        with jax.named_scope(Part.UPDATE):
            strategy_state, strategy_metrics = strategy.update(
                stream(run_key, generation, Stream.NOISE),
                state.strategy,
                fitness,
                arrived,
                population.total(strategy.num_directions),
                lambda i: policy.used(jax.tree.map(lambda x: x[place[i]], genotypes)),
                source.strategy,
            )
        with jax.named_scope(Part.CONTROLLER):
            controller_state, controller_metrics = controller.update(
                stream(run_key, generation, Stream.CONTROLLER),
                state.controller,
                genotypes,
                info,
                scores.controller,
                valid,
            )
        if propose_every > 1:
            # At the end of a block, so that all of it runs what the controller proposed.
            hears = (generation + 1) % propose_every == 0
            controller_state = _where(hears, controller_state, state.controller)
        moments = task.absorb(state.moments, evaluations.statistics)

        # The learning curve; of all candidates if there are no exact ones.
        exact = valid & ((ids >= strategy.num_perturbed) | (strategy.num_exact == 0))
        # As answers are chosen: where the controller alone sees a cost, it counts.
        several = controller.num_objectives > 1
        exact_score = _mean(scores.strategy if several else scores.controller, exact)
        genotypes_now, valid_now = controller.best(controller_state)
        incumbent = _where(
            jnp.isfinite(exact_score) & (exact_score > state.incumbent.score) & timely,
            Incumbent(
                exact_score, source.strategy.params, genotypes_now, valid_now, source.moments
            ),
            state.incumbent,
        )

        failed = num_candidates - jnp.sum(arrived, dtype=jnp.int32)
        # An update that overflowed would never be undone, in what an optimiser keeps neither.
        before, after = (jax.tree.leaves(x) for x in (state.strategy, strategy_state))
        moved = [new for old, new in zip(before, after, strict=True) if new is not old]
        learnt_numbers = (moved, moments, expected)
        sound = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(learnt_numbers)]).all()
        discard = (failed > tolerated) | ~(sound & distinct)
        learnt = state._replace(
            strategy=strategy_state,
            controller=controller_state,
            moments=moments,
            incumbent=incumbent,
            expectation=expected,
        )
        new_state = _where(discard, state, learnt)._replace(
            generation=state.generation + 1,
            discarded=jnp.where(discard, state.discarded + 1, 0),
        )
        return new_state, Metrics(
            generation=generation,
            exact_score=exact_score,
            **_averages(scores, evaluations, costs, valid, exact),
            steps=jnp.sum(evaluations.steps, dtype=jnp.int32),
            episodes=jnp.int32(ids.size * task.episodes),
            failed=failed,
            discarded=new_state.discarded,
            strategy=strategy_metrics,
            controller=controller_metrics,
        )

    def step(run_key: Key, state: SearchState) -> tuple[SearchState, Metrics]:
        """Carry out one generation."""
        return step_from(run_key, state.source, state)

    def step_from(run_key: Key, source: Source, state: SearchState) -> tuple[SearchState, Metrics]:
        """Carry out one generation whose candidates are made from an earlier state's source."""
        generation = state.generation
        plan = prepare(run_key, source, generation)
        source = with_noise(run_key, source, generation)

        # Everyone makes all architectures: a few integers each, and the controller wants them back.
        genotypes, info = jax.vmap(lambda i: propose(run_key, plan, generation, i))(all_ids)

        given = (run_key, source, generation, genotypes, task.lens(source.moments))
        evaluations = population.evaluate(task, given, bound, _seen_through, apply, all_ids)
        return learn(
            run_key, source, True, True, state, generation, all_ids, genotypes, info, evaluations
        )

    def bound(given: tuple[Key, Source, Array, Genotype, Lens], i: Array) -> tuple[PyTree, Any]:
        run_key, source, generation, genotypes, _ = given
        mine = jax.tree.map(lambda x: x[i], genotypes)
        key = functools.partial(episode_key, run_key, generation)
        if i.ndim == 0:
            return bind(perturb(run_key, source, generation, i), mine), key(i)
        with jax.named_scope(Part.PERTURBING):
            noise_key = stream(run_key, generation, Stream.NOISE)
            # The population keeps the halves of a pair together.
            places = i if i.size % PAIR else i.reshape(-1, PAIR)
            params = strategy.candidates(noise_key, source.strategy, places)
            params = params.reshape(i.size, -1)
        return jax.vmap(bind)(params, mine), key

    def run(run_key: Key, state: SearchState, generations: int) -> tuple[SearchState, Metrics]:
        """Carry out several generations; metrics get a leading axis of that length."""
        generations = _checks.integer("generations", generations, 0)
        return jax.lax.scan(lambda s, _: spread_step(run_key, s), state, length=generations)

    spread_step, spread_tell = population.spread(step), population.spread(tell)

    @functools.wraps(tell)
    def checked_tell(
        run_key: Key,
        state: SearchState,
        generation: Array,
        ids: Array,
        genotypes: Genotype,
        info: PyTree,
        evaluations: Evaluation,
    ) -> tuple[SearchState, Metrics]:
        ids = jnp.asarray(ids)
        _check_ids(ids, num_candidates)
        if not isinstance(evaluations.statistics, Sums) and normalizes(task):
            raise ValueError(
                "evaluations must have the statistics of the observations seen (a Sums), which the "
                f"task's normalizer learns from, got {evaluations.statistics!r:.40}."
            )
        return spread_tell(run_key, state, generation, ids, genotypes, info, evaluations)

    def host() -> Host:
        proposers = np.unique(strategy.pair(all_ids) if shared_architecture else all_ids)
        return controller.host(proposers.tolist())  # pyright: ignore[reportOptionalCall]

    return Search(
        policy=policy,
        task=task,
        strategy=strategy,
        controller=controller,
        objective=objective,
        population=population,
        propose_every=propose_every,
        init=population.spread(init),
        candidate=candidate,
        evaluate=population.spread(evaluate),
        tell=checked_tell,
        step=spread_step,
        step_from=population.spread(step_from),
        run=run,
        host=host if controller.host else None,
    )


def _seen_through(given: tuple[Any, ...], i: Array) -> Lens:
    del i  # the same for all candidates of a generation
    return given[-1]


def _averages(
    scores: Scores, evaluations: Evaluation, costs: Cost, valid: Array, exact: Array
) -> dict[str, Array]:
    return {
        "exact_mean": _mean(evaluations.episode_return, exact),
        "exact_std": _std(evaluations.episode_return, exact),
        "fitness_mean": _mean(scores.strategy, valid),
        "fitness_max": jnp.max(jnp.where(valid, scores.strategy, -jnp.inf)),
        "fitness_min": jnp.min(jnp.where(valid, scores.strategy, jnp.inf)),
        "return_without_bonus": _mean(evaluations.return_without_bonus, exact),
        "episode_length": _mean(evaluations.episode_length, exact),
        **{name: _mean(getattr(costs, name).astype(jnp.float32), exact) for name in Cost._fields},
    }


def _check_ids(ids: Array, num_candidates: int) -> None:
    """Raise unless ids are integers [n], and distinct ones of candidates where they are known."""
    if jnp.ndim(ids) != 1 or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"ids must be integers [n], got {ids.dtype} of shape {jnp.shape(ids)}.")
    if isinstance(ids, Tracer):
        return
    values, times = np.unique(np.asarray(ids), return_counts=True)
    if values.size and not 0 <= values[0] <= values[-1] < num_candidates:
        wrong = values[0] if values[0] < 0 else values[-1]
        raise ValueError(f"ids must be in [0, {num_candidates - 1}], got {wrong}.")
    if (times > 1).any():
        raise ValueError(f"ids must be distinct, got {values[times > 1][0]} twice.")


def _where(flag: Array, new: PyTree, old: PyTree) -> PyTree:
    # What did not change is not chosen: a table of noise would be copied every generation.
    return jax.tree.map(lambda x, y: y if x is y else jnp.where(flag, x, y), new, old)


def _mean(values: Array, valid: Array) -> Array:
    count = jnp.sum(valid, dtype=jnp.float32)
    return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.where(count > 0, count, jnp.nan)


def _std(values: Array, valid: Array) -> Array:
    return jnp.sqrt(_mean((values - _mean(values, valid)) ** 2, valid))
