"""Correct? The library's contracts on the device, and its numbers beside the CPU's."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks.accelerator import generations
from benchmarks.accelerator.children import CORRECT
from benchmarks.accelerator.generations import KEY, Setting
from benchmarks.accelerator.rows import Figure, Found, Measurement, Named, Program, lacking
from benchmarks.accelerator.sizes import Sizes
from esenas_jax import Population, Search, controllers, es_enas, policies, strategies, tasks
from esenas_jax.runs import runs
from esenas_jax.types import Array, Evaluation, Key, PyTree

DIFFERENCE = "relative"  # the unit of `difference`
SAME = 1e-4  # a difference that rounding explains, after a few generations
DRAWS = 100_000


def measurements(sizes: Sizes) -> list[Measurement]:
    """Return what this stage measures, after what `children` does."""
    return [
        *(contract(name) for name in TOYS),
        failures(),
        seeds_at_once(),
        draws(),
        first_returns(),
        physics_steps(sizes),
    ]


def difference(ours: PyTree, theirs: PyTree) -> float:
    """Return the largest |x - y| / (1 + |y|) of two trees' numbers; 1 where integers differ.

    Two NaNs are equal, and so are equal infinities; otherwise either differs by infinity.
    """
    worst = 0.0
    leaves = (map(np.asarray, jax.tree.leaves(tree)) for tree in (ours, theirs))
    for x, y in zip(*leaves, strict=True):
        if not np.issubdtype(x.dtype, np.floating):
            worst = max(worst, float((x != y).any()))
            continue
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        with np.errstate(invalid="ignore"):
            gap = np.where(same, 0.0, np.abs(x - y) / (1.0 + np.abs(y)))
        worst = max(worst, float(np.nan_to_num(gap, nan=np.inf).max(initial=0.0)))
    return worst


def within(value: float, **details: Any) -> Figure:
    """Return the figure of a value that is known exactly."""
    return Figure(value, (value, value), details=details)


# --- contracts ------------------------------------------------------------------------------------

POPULATION = Population(lanes=5, refill_every=7, chunk=4)


def _pendulum_edges() -> Search:
    task = tasks.episodes(tasks.pendulum(), horizon=24, normalizer=tasks.es_normalizer())
    policy = policies.edge_pruned(task.obs_size, (4,), task.action_size, num_edges=5)
    controller = controllers.regularized_evolution(policy.space, 10)
    return _toy(policy, task, strategies.es(6, 3, 0.1, 0.05), controller)


def _regression_partition() -> Search:
    task = tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=64)
    policy = policies.partitioned(task.obs_size, (4,), task.action_size, num_partitions=3)
    controller = controllers.reinforce(policy.space, entropy_weight=0.1)
    return _toy(policy, task, strategies.ars(6, 3, 0.1, 0.05, num_elites=4), controller)


def _regression_flax() -> Search:
    task = tasks.polynomial_regression(jax.random.key(1), degree=2, batch_size=64)
    network = nn.Dense(task.action_size)
    policy = policies.from_flax(network, jnp.zeros(task.obs_size), num_edges=2)
    controller = controllers.regularized_evolution(policy.space, 10)
    return _toy(policy, task, strategies.es(6, 3, 0.1, 0.05), controller)


def _toy(policy: Any, task: Any, strategy: Any, controller: Any) -> Search:
    return es_enas(policy, task, strategy, controller, population=POPULATION)


TOYS: dict[str, Callable[[], Search]] = {
    "pendulum, edges, evolution": functools.cache(_pendulum_edges),
    "regression, partition, REINFORCE": functools.cache(_regression_partition),
    "regression, Flax, evolution": functools.cache(_regression_flax),
}


@functools.cache
def first_state(name: str) -> PyTree:
    """Return what a toy's `init` returns, as shapes."""
    return jax.eval_shape(TOYS[name]().init, KEY)


def toy_programs(name: str) -> list[Program]:
    """Return a toy's first state, and a generation of it."""

    def init() -> Any:
        return jax.jit(TOYS[name]().init).lower(KEY)

    def step() -> Any:
        return jax.jit(TOYS[name]().step).lower(KEY, first_state(name))

    return [Program(f"{name} init", init), Program(f"{name} step", step)]


def contract(name: str) -> Measurement:
    """Return the measurement of two promises of a toy: by its parts, and in pieces."""

    def by_parts(search: Search, key: Key, state: PyTree) -> PyTree:
        ids = jnp.arange(search.num_candidates)
        asked = jax.vmap(lambda i: search.candidate(key, state, state.generation, i))(ids)
        seen = search.evaluate(state, asked)
        return search.tell(key, state, state.generation, ids, asked.genotype, asked.info, seen)[0]

    def run(search: Search, key: Key, state: PyTree, generations: Array) -> PyTree:
        return runs(search, capacity=4).advance(key, state, generations)[0]

    def programs(found: Found) -> list[Program]:
        def trace(function: Callable[..., Any], *more: Any) -> Any:
            one = functools.partial(function, TOYS[name]())
            return jax.jit(one).lower(KEY, first_state(name), *more)

        return [
            *toy_programs(name),
            Program(f"{name} parts", lambda: trace(by_parts)),
            Program(f"{name} run", lambda: trace(run, jnp.int32(0))),
        ]

    def measure(found: Found, init: Any, step: Any, parts: Any, advance: Any) -> list[Figure]:
        states = [init(KEY)]
        for _ in range(4):
            states.append(step(KEY, states[-1])[0])
        apart = difference(parts(KEY, states[2]), states[3])
        whole = advance(KEY, states[0], jnp.int32(4))
        pieces = advance(KEY, advance(KEY, states[0], jnp.int32(1)), jnp.int32(3))
        return [within(apart), within(max(difference(whole, states[4]), difference(pieces, whole)))]

    rows = (
        Named(f"{name}: a generation, and tell of evaluate", DIFFERENCE, SAME, "at_most"),
        Named(f"{name}: a run, and its pieces", DIFFERENCE, SAME, "at_most"),
    )
    return Measurement(CORRECT, rows, measure, programs, kind="toy", timed=False)


def failures() -> Measurement:
    """Return the measurement of what failed candidates do: they are counted, and never win."""

    def search(share: Array | float) -> Search:
        def evaluate(key: Key, network: PyTree, apply: Any) -> Evaluation:
            score = -jnp.sum((apply(network, jnp.ones(2)) - 0.3) ** 2)
            return tasks.single_score(jnp.where(jax.random.uniform(key) < share, jnp.nan, score))

        policy = policies.edge_pruned(2, (4,), 1, num_edges=5)
        controller = controllers.regularized_evolution(policy.space, 50)
        task = tasks.SingleShot(2, 1, evaluate)
        return es_enas(policy, task, strategies.es(20, 10, 0.1, 0.05), controller, max_failed=0.4)

    def step_of(share: Array, state: PyTree) -> PyTree:
        return search(share).step(KEY, state)

    def programs(found: Found) -> list[Program]:
        def init() -> Any:
            return jax.jit(search(0.0).init).lower(KEY)

        def step() -> Any:
            share = jax.ShapeDtypeStruct((), jnp.float32)
            return jax.jit(step_of).lower(share, jax.eval_shape(search(0.0).init, KEY))

        return [Program("failures init", init), Program("failures step", step)]

    def measure(found: Found, init: Any, step: Any) -> list[Figure]:
        start = init(KEY)
        some, few = step(jnp.float32(0.2), start)
        same, many = step(jnp.float32(0.7), start)
        kept = same._replace(generation=start.generation, discarded=start.discarded)
        broken = [
            not 0 < int(few.failed) < 20,
            int(few.discarded) != 0,
            not all(np.isfinite(x).all() for x in jax.tree.leaves(some.strategy)),
            not np.isfinite(np.asarray(few.exact_mean)),
            int(many.discarded) != 1,
            difference(kept, start) > 0,
        ]
        return [within(float(sum(broken)), broken=[k for k, b in enumerate(broken) if b])]

    rows = (Named("failed candidates: broken promises of six", "", 0, "at_most"),)
    return Measurement(CORRECT, rows, measure, programs, kind="toy", timed=False)


def seeds_at_once() -> Measurement:
    """Return the measurement of two seeds in one program, beside one of them alone."""
    name = next(iter(TOYS))

    def two() -> Key:
        return jnp.stack([KEY, jax.random.key(8)])

    def programs(found: Found) -> list[Program]:
        def init() -> Any:
            return jax.jit(jax.vmap(TOYS[name]().init)).lower(two())

        def step() -> Any:
            search = TOYS[name]()
            states = jax.eval_shape(jax.vmap(search.init), two())
            return jax.jit(jax.vmap(search.step)).lower(two(), states)

        return [
            *toy_programs(name),
            Program(f"{name} init of two", init),
            Program(f"{name} step of two", step),
        ]

    def measure(found: Found, init: Any, step: Any, inits: Any, steps: Any) -> list[Figure]:
        alone, both = init(KEY), inits(two())
        for _ in range(2):
            alone, both = step(KEY, alone)[0], steps(two(), both)[0]
        return [within(difference(jax.tree.map(lambda x: x[0], both), alone))]

    row = Named(f"{name}: two seeds in one program, and one alone", DIFFERENCE, SAME, "at_most")
    return Measurement(CORRECT, (row,), measure, programs, kind="toy", timed=False)


# --- beside the CPU -------------------------------------------------------------------------------


def on_both(
    name: str, make: Callable[[], Callable[[Array], PyTree]]
) -> Callable[[Found], list[Program]]:
    """Return the programs of a function of a seed, int32 []: on the device, and on the CPU.

    Where the device is a CPU, the second is the same once more.

    Args:
        name: of the programs.
        make: makes the function, before it is traced: what is made while one program is traced
            must not be kept for another.
    """

    def trace(platform: str | None) -> Any:
        device = jax.devices(platform)[0]
        with jax.default_device(device):
            return jax.jit(make()).lower(_seed(device))

    return lambda found: [
        Program(f"{name} on the device", lambda: trace(None)),
        Program(f"{name} on the CPU", lambda: trace("cpu")),
    ]


def _seed(device: Any) -> Array:
    return jax.device_put(np.int32(0), device)


def both(ours: Any, theirs: Any) -> tuple[PyTree, PyTree]:
    """Return what the programs of `on_both` return, as NumPy arrays."""
    returned = [
        run(_seed(jax.devices(platform)[0])) for run, platform in ((ours, None), (theirs, "cpu"))
    ]
    return tuple(jax.tree.map(np.asarray, returned))  # pyright: ignore[reportReturnType]


def draws() -> Measurement:
    """Return the measurement of random numbers and architectures beside the CPU's."""

    def draw(seed: Array) -> dict[str, PyTree]:
        key = jax.random.key(seed)
        edges = policies.edge_pruned(11, (32,), 3, num_edges=64).space
        partition = policies.partitioned(11, (32,), 3, num_partitions=8).space
        return {
            "genotypes": [space.sample(key, (256,)) for space in (edges, partition)],
            "random bits": jax.random.bits(key, (DRAWS,)),
            "uniforms": jax.random.uniform(key, (DRAWS,)),
            "normals": jax.random.normal(key, (DRAWS,)),
        }

    exact = ("genotypes", "random bits", "uniforms")

    def measure(found: Found, device: Any, cpu: Any) -> list[Figure]:
        ours, theirs = both(device, cpu)
        differ = [
            sum(
                int((x != y).sum())
                for x, y in zip(jax.tree.leaves(ours[n]), jax.tree.leaves(theirs[n]), strict=True)
            )
            for n in exact
        ]
        gap = float(np.abs(ours["normals"] - theirs["normals"]).max())
        return [*(within(float(count)) for count in differ), within(gap, draws=DRAWS)]

    rows = (
        *(Named(f"{name} that differ from the CPU's", "", 0, "at_most") for name in exact),
        Named("normals: the largest difference from the CPU's", "", 1e-6, "at_most"),
    )
    return Measurement(
        CORRECT, rows, measure, on_both("draws", lambda: draw), kind="toy", timed=False
    )


def first_returns() -> Measurement:
    """Return the measurement of the returns of a first generation of Pendulum."""

    def make() -> Callable[[Array], Array]:
        search = generations.search(Setting("pendulum", "", 64, 32, 128))

        def returns(seed: Array) -> Array:
            key = jax.random.key(seed)
            state = search.init(key)
            asked: PyTree = jax.vmap(lambda i: search.candidate(key, state, state.generation, i))(
                jnp.arange(search.num_candidates)
            )
            return search.evaluate(state, asked).episode_return

        return returns

    def measure(found: Found, device: Any, cpu: Any) -> list[Figure]:
        return [within(difference(*both(device, cpu)))]

    row = Named("pendulum: 64 first returns, and the CPU's", DIFFERENCE)
    return Measurement(CORRECT, (row,), measure, on_both("returns", make), kind="toy", timed=False)


def physics_steps(sizes: Sizes) -> Measurement:
    """Return the measurement of what ten steps of Brax's physics show, beside the CPU's."""
    world, number = sizes.compared

    def make() -> Callable[[Array], Array]:
        environment = generations.environment(world, "spring")

        def step(states: PyTree, actions: Array) -> tuple[PyTree, Array]:
            states, seen = jax.vmap(environment.step)(states, actions)
            return states, seen.obs

        def observed(seed: Array) -> Array:
            k_reset, k_actions = jax.random.split(jax.random.key(seed))
            states = jax.vmap(environment.reset)(jax.random.split(k_reset, number))[0]
            shape = (10, number, environment.action_size)
            return jax.lax.scan(step, states, jax.random.uniform(k_actions, shape, minval=-1.0))[1]

        return observed

    def measure(found: Found, device: Any, cpu: Any) -> Sequence[Figure]:
        ours, theirs = both(device, cpu)
        return [within(difference(ours[:1], theirs[:1])), within(difference(ours, theirs))]

    rows = (
        Named(f"{world} spring: observations after one step, and the CPU's", DIFFERENCE),
        Named(f"{world} spring: observations of ten steps, and the CPU's", DIFFERENCE),
    )
    programs = on_both("physics", make)
    return Measurement(
        CORRECT, rows, measure, programs, kind="spring", absent=lacking("brax"), timed=False,
        work=lambda found: 20.0 * number,
    )  # fmt: skip
