"""How fast? Environment steps a second of whole generations, beside bare physics and peers."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import overhead
from benchmarks.accelerator import generations
from benchmarks.accelerator.generations import KEY, Setting
from benchmarks.accelerator.rows import Figure, Found, Measurement, Named, Program, lacking
from benchmarks.accelerator.sizes import Sizes
from benchmarks.measure import bootstrap, paired_ratio
from benchmarks.peers import brax
from esenas_jax import policies
from esenas_jax.types import Array, PyTree

STAGE = "How fast?"
OTHERS = ("hopper", "halfcheetah", "humanoid")
NOISE, STEP = 0.1, 0.01  # of evosax's search


def measurements(sizes: Sizes) -> list[Measurement]:
    """Return what this stage measures, in order of value."""
    tried = [setting(sizes, lanes) for lanes in sizes.lanes]
    title = tried[0].title
    needs = rows_that_decide(sizes)
    return [
        *(generation(one, sizes, with_lanes(one)) for one in tried),
        against_bare_physics(sizes, title, needs),
        against_brax(sizes, title, needs),
        against_evosax(sizes, title, needs),
        *(other(world, "spring", sizes.candidates, sizes) for world in OTHERS),
    ]


def mjx(sizes: Sizes) -> Measurement:
    """Return the measurement of Ant on MJX, which takes minutes to compile."""
    return other("ant", "mjx", sizes.candidates_mjx, sizes)


def other(world: str, backend: str, candidates: int, sizes: Sizes) -> Measurement:
    """Return the measurement of a generation of another environment, all candidates at once."""
    return generation(
        Setting(world, backend, candidates, candidates, sizes.horizon),
        sizes,
        f"{world} {backend}, ES-ENAS, {candidates:,} candidates at once",
        "" if sizes.others else "left out by --quick",
    )


def setting(sizes: Sizes, lanes: int) -> Setting:
    """Return the generation of the first environment on so many lanes: each is refilled once."""
    return Setting(sizes.world, "spring", 2 * lanes, lanes, sizes.horizon)


def with_lanes(one: Setting) -> str:
    """Return the title of a generation that is tried with several numbers of lanes."""
    return f"{one.title}, ES-ENAS, {one.lanes:,} lanes"


def rows_that_decide(sizes: Sizes) -> tuple[str, ...]:
    """Return the names of the rows by which the best number of lanes is chosen."""
    tried = (setting(sizes, lanes) for lanes in sizes.lanes)
    return tuple(generations.rows_of(with_lanes(one))[0].name for one in tried)


def best(sizes: Sizes, found: Found) -> Setting:
    """Return the generation with the most live steps a second of those that were measured."""
    rates = [found.get(name, {}).get("value") or 0.0 for name in rows_that_decide(sizes)]
    return setting(sizes, sizes.lanes[int(np.argmax(rates))])


def generation(one: Setting, sizes: Sizes, title: str, absent: str = "") -> Measurement:
    """Return the measurement of a generation alone."""
    return Measurement(
        STAGE,
        generations.rows_of(title),
        lambda found, init, step: generations.figures(one, sizes.repeats, init, step),
        lambda found: generations.programs(one),
        kind=one.kind,
        work=lambda found: (2.0 + sizes.repeats) * one.steps,
        absent=absent or ("" if one.world == "pendulum" else lacking("brax")),
    )


# --- two sides in turn ----------------------------------------------------------------------------


def paired(
    one: Setting, pairs: int, other: Any, ours: Any, live: int, our_live: int
) -> tuple[Figure, Figure]:
    """Time another side and a generation of ours in turn.

    Returns:
        The live steps a second of the other side; and ours over theirs.
    """
    _, _, times = paired_ratio(other, ours, pairs)
    rates = np.array([live, our_live]) / times
    ratios = rates[:, 1] / rates[:, 0]
    details = generations.described(one, live) | {
        "our_live_steps": our_live,
        "seconds": times.tolist(),
        "unit_seconds": float(np.median(times.mean(axis=1))) / one.steps,
    }
    return (
        Figure(float(np.median(rates[:, 0])), bootstrap(rates[:, 0]), details=details),
        Figure(float(np.median(ratios)), bootstrap(ratios), details=details),
    )


def rows_of_pair(title: str, other: str, target: float) -> tuple[Named, Named]:
    """Return the rows of `paired`."""
    return (
        Named(f"{title}, {other}: live environment steps", "steps/s"),
        Named(f"{title}: live steps a second, ES-ENAS / {other}", "x", target, "at_least"),
    )


def pair_work(sizes: Sizes, found: Found) -> float:
    """Return the environment steps of both sides, if no episode ends early."""
    return (3.0 + 2 * (sizes.repeats + 1)) * best(sizes, found).steps


def against_bare_physics(sizes: Sizes, title: str, needs: tuple[str, ...]) -> Measurement:
    """Return the measurement of the same lanes, refills and lengths, actions looked up.

    The actions are drawn beforehand: on the spring backend a step costs the same whatever happens
    in it.
    """

    def actions(one: Setting) -> tuple[int, int, int]:
        made = generations.search(one)
        return one.candidates, one.horizon + made.population.refill_used, made.task.action_size

    def bare(found: Found) -> Program:
        one = best(sizes, found)

        def trace() -> Any:
            made = generations.search(one)
            moments = jax.eval_shape(made.init, KEY).moments
            return jax.jit(functools.partial(overhead.physics, made)).lower(
                jax.eval_shape(made.task.lens, moments),
                jax.ShapeDtypeStruct((one.candidates,), jnp.int32),
                jax.ShapeDtypeStruct(actions(one), jnp.float32),
                jax.eval_shape(lambda: jax.random.split(KEY, one.candidates)),
            )

        return Program(f"bare physics {tuple(one)}", trace)

    def measure(found: Found, init: Any, step: Any, physics: Any) -> Sequence[Figure]:
        one = best(sizes, found)
        run, made = generations.running(one, init, step), generations.search(one)
        given = (
            made.task.lens(run.state.moments),
            jnp.asarray(run.lengths, jnp.int32),
            jax.random.uniform(KEY, actions(one), minval=-1.0),
            jax.random.split(KEY, one.candidates),
        )
        live = int(np.asarray(physics(*given)[0].steps, np.int64).sum())
        return paired(
            one,
            sizes.repeats,
            lambda: physics(*given),
            lambda: step(KEY, run.state),
            live,
            run.live,
        )

    return Measurement(
        STAGE,
        rows_of_pair(title, "bare physics", 0.9),
        measure,
        lambda found: [*generations.programs(best(sizes, found)), bare(found)],
        kind="spring",
        work=functools.partial(pair_work, sizes),
        needs=needs,
        absent=lacking("brax"),
    )


@functools.cache
def brax_side(world: str, candidates: int, horizon: int) -> brax.Peer:
    """Return Brax's ARS: a linear policy of zeros and noise on it, every world to the horizon."""
    with generations.quietly():
        return brax.theirs(brax.ars(), world, candidates, horizon)


def against_brax(sizes: Sizes, title: str, needs: tuple[str, ...]) -> Measurement:
    """Return the measurement of Brax's ARS with as many candidates and the same horizon."""
    key = jax.random.PRNGKey(0)

    def side(one: Setting) -> brax.Peer:
        return brax_side(one.world, one.candidates, one.horizon)

    def program(found: Found) -> Program:
        one = best(sizes, found)

        def trace() -> Any:
            jitted: Any = side(one).step
            return jitted.lower(side(one).state, key)

        return Program(f"brax ARS {tuple(one)}", trace)

    def measure(found: Found, init: Any, step: Any, theirs: Any) -> Sequence[Figure]:
        one = best(sizes, found)
        run, state = generations.running(one, init, step), side(one).state
        live = int(theirs(state, key)[0].num_env_steps)
        return paired(
            one, sizes.repeats, lambda: theirs(state, key), lambda: step(KEY, run.state), live,
            run.live,
        )  # fmt: skip

    return Measurement(
        STAGE,
        rows_of_pair(title, "brax ARS", 2.0),
        measure,
        lambda found: [*generations.programs(best(sizes, found)), program(found)],
        kind="spring",
        work=functools.partial(pair_work, sizes),
        needs=needs,
        absent=lacking("brax"),
    )


class EvosaxSide:
    """evosax's Open_ES over the same network without search: the weights of one are a vector.

    The episodes are those of its Brax problem, each to the horizon and what follows an end not
    counted, but for what that keeps of every step: all states, which would not fit.
    """

    def __init__(self, one: Setting) -> None:
        from evosax.algorithms import Open_ES

        self.one = one
        self.world = generations.environment(one.world, one.backend)
        sizes = self.world.obs_size, self.world.action_size
        self.policy = policies.dense(sizes[0], (32,), sizes[1])
        self.algorithm: Any = Open_ES(
            one.candidates,
            jnp.zeros(self.policy.num_params),
            optimizer=optax.adam(STEP),
            std_schedule=optax.constant_schedule(NOISE),
        )
        self.params = self.algorithm.default_params

    def init(self, key: Array) -> PyTree:
        """Return the first state."""
        return self.algorithm.init(key, self.policy.init(key), self.params)

    def step(self, key: Array, state: PyTree) -> tuple[PyTree, Array]:
        """Return the next state, and the live steps of each candidate."""
        k_ask, k_tell, k_episodes = jax.random.split(key, 3)
        population, state = self.algorithm.ask(k_ask, state, self.params)
        keys = jax.random.split(k_episodes, self.one.candidates)
        returns, steps = jax.vmap(self.episode)(population, keys)
        return self.algorithm.tell(k_tell, population, -returns, state, self.params)[0], steps

    def episode(self, weights: Array, key: Array) -> tuple[Array, Array]:
        """Return the return of an episode, and its length."""
        network = self.policy.bind(weights, ())

        def act(carry: tuple, _: None) -> tuple[tuple, None]:
            state, obs, alive, total, steps = carry
            state, seen = self.world.step(state, self.policy.apply(network, obs))
            total = total + jnp.where(alive, seen.reward, 0.0)
            steps = steps + alive.astype(jnp.int32)
            return (state, seen.obs, alive & ~seen.done, total, steps), None

        first = (*self.world.reset(key), jnp.bool_(True), jnp.float32(0), jnp.int32(0))
        last, _ = jax.lax.scan(act, first, None, length=self.one.horizon)
        return last[3], last[4]


evosax_side = functools.cache(EvosaxSide)


def against_evosax(sizes: Sizes, title: str, needs: tuple[str, ...]) -> Measurement:
    """Return the measurement of evosax's Open_ES with as many candidates and the same horizon."""

    def programs(found: Found) -> list[Program]:
        one = best(sizes, found)

        def trace() -> Any:
            side = evosax_side(one)
            return jax.jit(side.step).lower(KEY, jax.eval_shape(jax.jit(side.init), KEY))

        return [*generations.programs(one), Program(f"evosax {tuple(one)}", trace)]

    def measure(found: Found, init: Any, step: Any, theirs: Any) -> Sequence[Figure]:
        one = best(sizes, found)
        run, state = generations.running(one, init, step), jax.jit(evosax_side(one).init)(KEY)
        live = int(np.asarray(theirs(KEY, state)[1], np.int64).sum())
        return paired(
            one, sizes.repeats, lambda: theirs(KEY, state), lambda: step(KEY, run.state), live,
            run.live,
        )  # fmt: skip

    return Measurement(
        STAGE,
        rows_of_pair(title, "evosax Open_ES", 1.5),
        measure,
        programs,
        kind="spring",
        work=functools.partial(pair_work, sizes),
        needs=needs,
        absent=lacking("brax", "evosax"),
    )
