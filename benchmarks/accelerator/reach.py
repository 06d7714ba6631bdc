"""How far? Many weights, a million candidates, many seeds, all of the memory, several devices."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import generations
from benchmarks.accelerator.generations import KEY, Setting
from benchmarks.accelerator.rows import Figure, Found, Measurement, Named, Program, lacking
from benchmarks.accelerator.schedule import first_line
from benchmarks.accelerator.sizes import Sizes
from benchmarks.measure import bootstrap, paired_ratio, seconds
from benchmarks.peers import evosax
from esenas_jax import Population, strategies
from esenas_jax.strategies import Noise
from esenas_jax.types import Array

STAGE = "How far?"
BANDWIDTH = "memory bandwidth of a copy"
COPIES = 20
NOISES: dict[str, Callable[[], Noise]] = {
    "table": strategies.shared_table,
    "Gaussians": strategies.gaussian,
    "signs": strategies.rademacher,
}


def measurements(sizes: Sizes, devices: int) -> list[Measurement]:
    """Return what this stage measures, in order of value."""
    return [
        bandwidth(sizes),
        *(sphere(sizes, noise, n) for n in sizes.sphere for noise in NOISES),
        many_candidates(sizes),
        *(seeds_in_one_program(sizes, seeds) for seeds in sizes.seeds),
        largest_population(sizes),
        *(several_devices(sizes, number, devices) for number in sizes.devices),
    ]


# --- many weights ---------------------------------------------------------------------------------


def bandwidth(sizes: Sizes) -> Measurement:
    """Return the measurement of the bytes a second that adding 1 to an array reads and writes.

    Several additions are sent one after the other: the host takes longer to send one than the
    device to carry it out.
    """

    def trace() -> Any:
        return jax.jit(lambda x: x + 1.0).lower(jax.ShapeDtypeStruct((sizes.copied,), jnp.float32))

    def measure(found: Found, add: Any) -> list[Figure]:
        def copies() -> Array:
            x = zeros
            for _ in range(COPIES):
                x = add(x)
            return x

        zeros = jnp.zeros(sizes.copied, jnp.float32)
        jax.block_until_ready(copies())
        times = np.array([seconds(copies) for _ in range(sizes.repeats)])
        moved = 8e-9 * sizes.copied * COPIES
        return [generations.rate(moved, times, {"numbers": sizes.copied, "copies": COPIES})]

    row = Named(BANDWIDTH, "GB/s")
    return Measurement(STAGE, (row,), measure, lambda found: [Program("copy", trace)], kind="copy")


def sphere(sizes: Sizes, noise: str, candidates: int) -> Measurement:
    """Return the measurement of generations on a sphere, alone and beside evosax's Open_ES.

    What perturbed weights would take as one float32 block, written and read, over the time of a
    generation, is a bandwidth, too. A program that writes and reads such a block is slower than
    memory is; noise that is made where it is used may be faster.
    """
    missing = lacking("evosax")

    @functools.cache
    def sides() -> list[evosax.Side]:
        strategy = evosax.es(NOISES[noise](), candidates)
        ours = evosax.ours(strategy, Population())
        return [ours] if missing else [ours, evosax.theirs("Open_ES", candidates)]

    def programs(found: Found) -> list[Program]:
        def trace(place: int) -> Any:
            side = sides()[place]
            state, run = jax.eval_shape(side.init, KEY), side.run
            return run.lower(KEY, state)  # pyright: ignore[reportFunctionMemberAccess]

        names = [f"sphere {noise} {candidates}", f"sphere evosax {candidates}"]
        return [
            Program(name, functools.partial(trace, place))
            for place, name in enumerate(names[: 1 if missing else 2])
        ]

    def measure(found: Found, *compiled: Any) -> list[Figure]:
        made = [side._replace(run=run) for side, run in zip(sides(), compiled, strict=True)]
        ours, theirs = evosax.calls(made[0]), evosax.calls(made[-1])
        try:
            times, beside = in_turn(ours, None if missing else theirs, sizes.repeats)
        except jax.errors.JaxRuntimeError as error:  # their block of weights does not fit, say
            times, beside = in_turn(ours, None, sizes.repeats)
            beside = Figure(None, note=first_line(error))
        if missing:
            beside = Figure(None, note=missing)
        each = 1e3 * times / evosax.A_CALL
        slower = max(map(np.median, (times, beside.details.get("evosax_seconds", times))))
        details = {
            "unit_seconds": float(slower) / (evosax.A_CALL * candidates * evosax.WEIGHTS),
            "candidates": candidates,
            "weights": evosax.WEIGHTS,
            "dtype": "float32",
            "seconds": times.tolist(),
            "generations_a_call": evosax.A_CALL,
        }
        rate = 8e-9 * candidates * evosax.WEIGHTS / (1e-3 * float(np.median(each)))
        copied = found.get(BANDWIDTH, {}).get("value")
        return [
            Figure(float(np.median(each)), bootstrap(each), details=details),
            beside,
            Figure(rate / copied, details={"GB/s": rate})
            if copied
            else Figure(None, note="the copy was not measured"),
        ]

    title = f"sphere, {evosax.WEIGHTS:,} weights, {candidates:,} candidates, {noise}"
    target = {"table": 12.0, "Gaussians": 1.4}.get(noise) if candidates == 1024 else None
    rows = (
        Named(f"{title}: a generation", "ms"),
        Named(
            f"{title}: time, evosax Open_ES / ours",
            "x",
            target,
            "at_least" if target else None,
        ),
        Named(f"{title}: a block of weights, written and read, over a copy", "x"),
    )
    work = 2.0 * (sizes.repeats + 1) * evosax.A_CALL * candidates * evosax.WEIGHTS
    return Measurement(
        STAGE, rows, measure, programs, kind="sphere", work=lambda found: work, needs=(BANDWIDTH,)
    )


def in_turn(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None, repeats: int
) -> tuple[np.ndarray, Figure]:
    """Return the seconds of our calls, and how many times longer the other side takes, if any."""
    if theirs is None:
        return np.array([seconds(ours) for _ in range(repeats + 1)])[1:], Figure(None)
    ratio, interval, both = paired_ratio(theirs, ours, repeats)
    details = {"evosax_seconds": both[:, 0].tolist()}
    return both[:, 1], Figure(ratio, interval, details=details)


# --- many candidates, many seeds ------------------------------------------------------------------


def generation(
    one: Setting, sizes: Sizes, rows: tuple[Named, ...], measure: Callable[..., Sequence[Figure]]
) -> Measurement:
    """Return the measurement of a generation, which has the rows that are named."""
    return Measurement(
        STAGE,
        rows,
        measure,
        lambda found: generations.programs(one),
        kind=one.kind,
        work=lambda found: (2.0 + sizes.repeats) * one.steps,
        absent="" if one.world == "pendulum" else lacking("brax"),
    )


def many_candidates(sizes: Sizes) -> Measurement:
    """Return the measurement of Pendulum with a million candidates."""
    candidates, lanes = sizes.pendulum
    one = Setting("pendulum", "", candidates, lanes, sizes.horizon)
    title = f"pendulum, ES-ENAS, {candidates:,} candidates, {lanes:,} lanes"

    def measure(found: Found, init: Any, step: Any) -> list[Figure]:
        return generations.figures(one, sizes.repeats, init, step)[:2]

    return generation(one, sizes, generations.rows_of(title)[:2], measure)


def seeds_in_one_program(sizes: Sizes, seeds: int) -> Measurement:
    """Return the measurement of independent runs that share a program, and its lanes."""

    def setting(seeds: int) -> Setting:
        backend = "" if sizes.seeds_world == "pendulum" else "spring"
        each = sizes.seeds_candidates
        return Setting(sizes.seeds_world, backend, each, each * seeds, sizes.horizon, seeds)

    def titled(seeds: int) -> str:
        one = setting(seeds)
        run = "1 seed" if seeds == 1 else f"{seeds} seeds in one program"
        return f"{one.title}, ES-ENAS, {one.candidates:,} candidates, {run}"

    one, alone = setting(seeds), generations.rows_of(titled(1))[0].name

    def measure(found: Found, init: Any, step: Any) -> list[Figure]:
        live, simulated, _ = generations.figures(one, sizes.repeats, init, step)
        if seeds == 1:
            return [live, simulated]
        known = found[alone]["details"].get("seconds")
        if not known:
            return [live, simulated, Figure(None, note="one seed was not measured")]
        ratio = float(np.median(live.details["seconds"]) / np.median(known))
        return [live, simulated, Figure(ratio)]

    rows = generations.rows_of(titled(seeds))[:2]
    if seeds > 1:
        most, direction = (3.0, "at_most") if seeds == 100 else (None, None)
        rows += (
            Named(f"{titled(seeds)}: time of a generation, over one seed's", "x", most, direction),
        )
    made = generation(one, sizes, rows, measure)
    return made if seeds == 1 else made._replace(needs=(alone,))


# --- all of the memory ----------------------------------------------------------------------------


def largest_population(sizes: Sizes) -> Measurement:
    """Return the measurement of how many candidates can be simulated at once, 16 steps each."""
    tried = [Setting(sizes.world, "spring", n, n, 16) for n in sizes.largest]
    absent = lacking("brax") if sizes.others else "left out by --quick"
    numbers = ", ".join(f"{n:,}" for n in sizes.largest)

    def measure(found: Found, *compiled: Any) -> list[Figure]:
        most, why, details = None, "", {}
        for one, init, step in zip(tried, compiled[::2], compiled[1::2], strict=True):
            try:
                jax.block_until_ready(step(KEY, init(KEY)))
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                why = f"{one.candidates:,} do not fit"
                break
            most, details = one.candidates, {"program_bytes": bytes_of(step)}
        return [Figure(most, note=why, details=details)]

    row = Named(f"{tried[0].title}: most candidates at once, of {numbers}", "candidates")
    return Measurement(
        STAGE,
        (row,),
        measure,
        lambda found: [program for one in tried for program in generations.programs(one)],
        kind="spring",
        work=lambda found: float(sum(one.steps for one in tried)),
        absent=absent,
    )


def bytes_of(compiled: Any) -> int | None:
    """Return the memory that an executable asks for while it runs, where XLA says it."""
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)


# --- several devices ------------------------------------------------------------------------------


def several_devices(sizes: Sizes, number: int, present: int) -> Measurement:
    """Return the measurement of a generation that devices share: weak scaling, and strong.

    Where arrays lie decides what is compiled, so these programs are compiled when they are run.
    """
    world, each = sizes.seeds_world, sizes.devices_candidates
    backend = "" if world == "pendulum" else "spring"
    weak = Setting(world, backend, each * number, each, sizes.horizon, devices=number)
    strong = Setting(world, backend, each, each // number, sizes.horizon, devices=number)

    def timed(one: Setting) -> Figure:
        search = generations.search(one)
        init, step = jax.jit(search.init), jax.jit(search.step)
        run = generations.running(one, init, step)
        times = np.array([seconds(lambda: step(KEY, run.state)) for _ in range(sizes.repeats)])
        details = generations.described(one, run.live) | {"seconds": times.tolist()}
        return generations.rate(run.live, times, details)

    def measure(found: Found) -> list[Figure]:
        return [timed(weak), timed(strong)]

    on = "1 device" if number == 1 else f"{number} devices"
    rows = tuple(
        Named(f"{weak.title}, ES-ENAS, {name} on {on}: live environment steps", "steps/s")
        for name in (f"{each:,} candidates a device", f"{each:,} candidates in all")
    )
    absent = "" if world == "pendulum" else lacking("brax")
    if present == 1:
        absent = "only one device is present"
    elif number > present:
        absent = f"{present} devices are present"
    return Measurement(STAGE, rows, measure, kind="devices", work=lambda found: 2.0, absent=absent)
