"""What ES costs on top of the physics, and ES-ENAS on top of ES.

    python -m benchmarks.overhead [--quick] [--json=PATH]

Three programs on Hopper: bare physics, ES (a dense policy), and ES-ENAS (64 edges of as many).
Bare physics is the same lanes, the same refills and episodes of the same starts and lengths, under
the actions of the search, looked up: no policy, noise, normaliser, update or controller. All steps
counted are live.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.figures import intervals
from benchmarks.measure import (
    PAIRS,
    Row,
    bootstrap,
    command_line,
    machine,
    paired_ratio,
    report,
    seconds,
)
from esenas_jax import Search, SearchState, controllers, es_enas, policies
from esenas_jax.rollout import rollout
from esenas_jax.tasks.environment import Environment, Transition
from esenas_jax.tasks.task import Episodes, Lens
from esenas_jax.types import Array, Candidate, Cost, Evaluation, Key, PyTree, Scores
from experiments.build import build
from experiments.command_line import configure_jax
from experiments.configs import quickstart, quickstart_dense

KEY = jax.random.key(0)


def actions_taken(search: Search, state: SearchState, asked: Candidate, steps: int) -> Array:
    """Return the actions [N, steps, A] of all candidates of a generation."""
    task = search.task
    assert isinstance(task, Episodes)
    assert (task.episodes, task.action_repeat) == (1, 1)
    lens = task.lens(state.moments)

    def one(candidate: Candidate) -> Array:
        network = search.policy.bind(candidate.params, candidate.genotype)

        # As in a lane: what a world shows after its episode has ended is not seen.
        def act(carry: tuple[PyTree, Array, Array], _: None) -> tuple[tuple, Array]:
            world, obs, alive = carry
            action = search.policy.apply(network, (obs - lens.mean) * lens.scale)
            world, seen = task.environment.step(world, action)
            obs = jnp.where(alive, seen.obs, obs)
            return (world, obs, alive & ~seen.done & jnp.isfinite(seen.reward)), action

        first = task.environment.reset(jax.random.fold_in(candidate.key, 0))
        return jax.lax.scan(act, (*first, jnp.bool_(True)), None, length=steps)[1]

    return jax.vmap(one)(asked)


def bare_physics(search: Search, lengths: Array, actions: Array) -> Episodes:
    """Return the task whose episode i lasts `lengths[i]` steps, under actions given beforehand.

    They are the search's own: what a step costs depends on where the bodies are, by up to half.
    The policy's action is the episode's number; what the world does is looked up.

    Args:
        search: whose task it is.
        lengths: int32 [N].
        actions: float32 [N, T, A], at least as many as the longest episode has steps.
    """
    task = search.task
    assert isinstance(task, Episodes)
    world = task.environment

    def reset(key: Key) -> tuple[PyTree, Array]:
        state, obs = world.reset(key)
        return (state, jnp.int32(0)), obs

    def step(state: PyTree, episode: Array) -> tuple[PyTree, Transition]:
        inner, t = state
        inner, seen = world.step(inner, actions[episode[0], t])
        done = t + 1 >= lengths[episode[0]]
        # A step that blew up would end the episode before its time.
        reward = jnp.where(jnp.isfinite(seen.reward), seen.reward, 0.0)
        return (inner, t + 1), seen._replace(reward=reward, done=done)

    return task._replace(environment=Environment(world.obs_size, 1, reset, step))


def physics(search: Search, lens: Lens, lengths: Array, actions: Array, keys: Key) -> PyTree:
    """Return what `rollout` makes of bare physics in the lanes of a search.

    Args:
        search: whose task, lanes and refills they are.
        lens: of the task; observations are not used.
        lengths: int32 [N], see `bare_physics`.
        actions: float32 [N, T, A], likewise.
        keys: [N], of the candidates' episodes.
    """
    bare = bare_physics(search, lengths, actions)
    return rollout(
        bare._replace(normalizer=bare.normalizer._replace(enabled=False)),
        lambda episode: (episode[None], jax.random.fold_in(keys[episode], 0)),
        lambda episode: lens,
        lambda episode, obs: episode,
        num_episodes=search.num_candidates,
        lanes=search.population.lanes_for(search.task, search.num_candidates),
        refill_every=search.population.refill_used,
    )


def episode_lengths(search: Search, options: Mapping[str, Any], state: SearchState) -> Array:
    """Return how long the episodes of the search's own generation are, int32 [N].

    Not those of `search.evaluate`, for the same candidates: another program rounds in another way,
    and in chaotic physics it soon plays other episodes.

    Args:
        search: what is measured.
        options: further arguments that `es_enas` made it with.
        state: before the generation.

    Raises:
        RuntimeError: if the generation that tells its lengths is not the one that is measured.
    """

    def apply(objective: PyTree, evaluation: Evaluation, cost: Cost) -> Scores:
        scores = search.objective.apply(objective, evaluation, cost)
        return scores._replace(controller=evaluation.steps.astype(jnp.float32))

    def update(key: Key, state: PyTree, *told: Any) -> tuple[PyTree, dict[str, Array]]:
        _, _, steps, _ = told
        return state, {"steps": steps}

    telling = es_enas(
        search.policy,
        search.task,
        search.strategy,
        search.controller._replace(update=update),
        objective=search.objective._replace(apply=apply),
        population=search.population,
        **options,
    )
    measured, told = (jax.jit(s.step)(KEY, state)[1] for s in (search, telling))
    if measured.exact_mean != told.exact_mean or measured.steps != told.steps:
        raise RuntimeError(f"{told.steps} steps are not the {measured.steps} that are measured.")
    return told.controller["steps"].astype(jnp.int32)


def generation_against_physics(
    search: Search,
    options: Mapping[str, Any],
    state: SearchState,
    name: str,
    pairs: int,
    target: float | None,
) -> Row:
    """Time a generation of a search against the physics in it."""
    ids = jnp.arange(search.num_candidates)
    asked = jax.jit(lambda s: jax.vmap(lambda i: search.candidate(KEY, s, s.generation, i))(ids))(
        state
    )
    lengths = episode_lengths(search, options, state)

    steps = int(lengths.max()) + search.population.refill_used
    actions = jax.jit(actions_taken, static_argnums=(0, 3))(search, state, asked, steps)

    bare = jax.jit(physics, static_argnums=0)
    step = jax.jit(search.step)
    given = (search, search.task.lens(state.moments), lengths, actions, asked.key)
    live = int(bare(*given)[0].steps.sum())
    assert live == int(lengths.sum())
    ratio, interval, times = paired_ratio(lambda: step(KEY, state), lambda: bare(*given), pairs)
    whole, bare_time = sorted(times[:, 0])[pairs // 2], sorted(times[:, 1])[pairs // 2]
    print(f"{name}: {live} live steps, {whole:.3f} s / {bare_time:.3f} s.")
    return Row(name, ratio, interval, "x", target, "at_most" if target else None)


def search_against_constant(search: Search, pairs: int) -> Row:
    """Time edge search against one fixed architecture, on episodes that never end early."""
    task = search.task
    assert isinstance(task, Episodes)
    world = task.environment

    def step(state: PyTree, action: Array) -> tuple[PyTree, Transition]:
        state, seen = world.step(state, action)
        return state, seen._replace(done=jnp.zeros((), bool))

    endless = task._replace(environment=world._replace(step=step), horizon=192)

    def one(controller: controllers.Controller) -> tuple[Search, SearchState]:
        made = es_enas(
            search.policy,
            endless,
            search.strategy,
            controller,
            objective=search.objective,
            population=search.population,
        )
        # One generation on, so that evolution has a population to evolve.
        return made, jax.jit(made.step)(KEY, jax.jit(made.init)(KEY))[0]

    space = search.policy.space
    evolved, evolved_state = one(search.controller)
    fixed, fixed_state = one(controllers.constant(space))
    evolved_step, fixed_step = jax.jit(evolved.step), jax.jit(fixed.step)
    ratio, interval, _ = paired_ratio(
        lambda: evolved_step(KEY, evolved_state), lambda: fixed_step(KEY, fixed_state), pairs
    )
    return Row("edge search / constant controller", ratio, interval, "x", 1.03, "at_most")


def proposals(pairs: int) -> Row:
    """Count the proposals of regularized evolution: 450 at a time, 64 of 736 edges."""
    policy = policies.edge_pruned(17, (32,), 6, num_edges=64)
    controller = controllers.regularized_evolution(policy.space, 450)
    ids = jnp.arange(450)
    genotypes = policy.space.sample(KEY, (450,))
    state, _ = controller.update(
        KEY,
        controller.init(KEY),
        genotypes,
        jnp.full(450, -1),
        jax.random.normal(KEY, (450,)),
        jnp.ones(450, bool),
    )

    @jax.jit
    def propose(key: Key) -> PyTree:
        plan = controller.prepare(key, state)
        return jax.vmap(lambda i: controller.propose(jax.random.fold_in(key, i), plan, i))(ids)

    seconds(lambda: propose(KEY))
    keys = jax.random.split(KEY, 10 * pairs)
    rates = [450 / seconds(lambda key=key: propose(key)) for key in keys]
    value = float(sorted(rates)[len(rates) // 2])
    return Row(
        "evolution, 64 of 736 edges, 450 candidates",
        value,
        bootstrap(rates),
        "proposals/s",
        50_000,
        "at_least",
    )


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    pairs = 5 if arguments.quick else PAIRS
    rows = [proposals(pairs)]
    configs = {
        "ES": (quickstart_dense.get_config(), 1.05),
        "ES-ENAS": (quickstart.get_config(), None),
    }
    for name, (config, target) in configs.items():
        config.virtual_shards = None  # one device, as the bare physics
        search = build(config)
        options = {key: value for key, value in config.search.items() if key != "name"}
        step = jax.jit(search.step)
        state = jax.jit(search.init)(KEY)
        for generation in (1, 21, 101) if arguments.quick else (1, 101):
            title = f"{name}, generation {generation} / bare physics"
            if arguments.quick and generation == 101:
                rows.append(Row(title, None, None, "x", target, "at_most" if target else None))
                continue
            while int(state.generation) < generation - 1:
                state, _ = step(KEY, state)
            rows.append(generation_against_physics(search, options, state, title, pairs, target))
    rows.append(search_against_constant(build(configs["ES-ENAS"][0]), pairs))
    if arguments.quick:
        # Five pairs decide nothing: the figures are shown, the targets are not judged.
        for row in rows:
            row.interval = None
    report(
        "overhead",
        rows,
        arguments.json,
        lambda path: intervals(rows, path, "What a generation costs beyond its physics", machine()),
    )


if __name__ == "__main__":
    main()
