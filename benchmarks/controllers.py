"""How fast controllers propose architectures and learn from them, beside PyGlove's own.

    python -m benchmarks.controllers [--quick] [--json=PATH]

Generations of 450 candidates of a 17-32-6 network, the released number, in two spaces: 64 of its
736 edges, and 17 colours of them. PyGlove proposes four at a time, nine times, in the same process.
A policy gradient's generation is timed whole, proposals and the update by their scores; the
autoregressive kind's in two parts. PPO takes 4 epochs of minibatches of 64.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyglove as pg

from benchmarks.figures import intervals
from benchmarks.measure import PAIRS, Row, bootstrap, command_line, machine, report, seconds
from esenas_jax import controllers, policies
from esenas_jax.controllers import Controller
from esenas_jax.policies import Policy
from esenas_jax.spaces import Repeat
from esenas_jax.spaces.pyglove import to_pyglove
from experiments.command_line import configure_jax

KEY = jax.random.key(0)
CANDIDATES = 450
SIZES = (17, (32,), 6)
SPACES: dict[str, Callable[[], Policy]] = {
    "64 of 736 edges": lambda: policies.edge_pruned(*SIZES, num_edges=64),
    "17 colours of 736 edges": lambda: policies.partitioned(*SIZES, num_partitions=17),
}
RANDOM, EVOLUTION, TIMES_PYGLOVE = 30_000, 100_000, 1000  # targets, proposals a second
FACTORISED, AUTOREGRESSIVE = 20, 1000  # targets, milliseconds
SMALL, ROUNDS = 4, 9  # of PyGlove's proposals: one of 17 colours takes it a second


def trained(controller: Controller) -> tuple[Any, Callable, Callable]:
    """Return a state with a full population, `propose(state)` and `learn(state, proposals)`."""
    ids = jnp.arange(CANDIDATES, dtype=jnp.int32)
    scores = jax.random.normal(jax.random.key(1), (CANDIDATES,))

    @jax.jit
    def propose(state: Any) -> Any:
        plan = controller.prepare(KEY, state)
        keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(ids)
        return jax.vmap(controller.propose, (0, None, 0))(keys, plan, ids)

    @jax.jit
    def learn(state: Any, proposals: Any) -> Any:
        valid = jnp.ones(CANDIDATES, bool)
        genotypes, info = proposals
        return controller.update(KEY, state, genotypes, info, scores, valid)[0]

    state = jax.jit(controller.init)(KEY)
    return learn(state, propose(state)), propose, learn


def timed(call: Callable[[], Any], repeats: int) -> np.ndarray:
    """Return the seconds of every repeat, compiled before."""
    seconds(call)
    return np.array([seconds(call) for _ in range(repeats)])


def rate(
    name: str, controller: Controller, target: float | None, repeats: int
) -> tuple[Row, float]:
    """Count proposals a second."""
    state, propose, _ = trained(controller)
    each = CANDIDATES / timed(lambda: propose(state), repeats)
    row = Row(name, float(np.median(each)), bootstrap(each), "proposals/s")
    if target is not None:
        row.target, row.direction = target, "at_least"
    return row, float(np.median(each))


def generation(
    name: str, controller: Controller, target: float | None, repeats: int, part: str
) -> Row:
    """Time a generation, or a part of it: "proposes and learns", "proposes" or "learns"."""
    state, propose, learn = trained(controller)
    proposals = propose(state)
    calls: dict[str, Callable[[], Any]] = {
        "proposes and learns": lambda: learn(state, propose(state)),
        "proposes": lambda: propose(state),
        "learns": lambda: learn(state, proposals),
    }
    each = 1000 * timed(calls[part], repeats)
    row = Row(f"{name}: {part}", float(np.median(each)), bootstrap(each), "ms a generation")
    if target is not None:
        row.target, row.direction = target, "at_most"
    return row


def pyglove_rates(policy: Policy) -> dict[str, np.ndarray]:
    """Return PyGlove's proposals a second, random and evolved, in each of `ROUNDS`."""
    spec = to_pyglove(policy.space)
    evolution = pg.evolution.regularized_evolution(
        population_size=SMALL, tournament_size=max(2, math.isqrt(SMALL))
    )
    evolution.setup(spec)
    rng = np.random.default_rng(0)
    for _ in range(SMALL):  # the random phase
        evolution.feedback(evolution.propose(), float(rng.normal()))
    calls = {"random": lambda: pg.random_dna(spec), "evolution": evolution.propose}
    found: dict[str, list[float]] = {kind: [] for kind in calls}
    for _ in range(ROUNDS):
        for kind, call in calls.items():
            started = time.perf_counter()
            for _ in range(SMALL):
                call()
            found[kind].append(SMALL / (time.perf_counter() - started))
    return {kind: np.array(each) for kind, each in found.items()}


def measured(quick: bool) -> list[Row]:
    """Measure everything of every space."""
    repeats, rows = 5 if quick else PAIRS, []
    for called, make in SPACES.items():
        policy = make()
        nodes = [n_out for n_in, n_out in policy.shapes for _ in range(n_in)]
        # A set is decided item by item.
        groups = nodes if isinstance(policy.space, Repeat) else None
        lstm = controllers.autoregressive(groups=groups)
        ours = {
            "random": (controllers.random(policy.space), RANDOM),
            "evolution": (controllers.regularized_evolution(policy.space, CANDIDATES), EVOLUTION),
            "hill climbing": (controllers.hill_climbing(policy.space), None),
            "cross-entropy": (controllers.cross_entropy(policy.space), None),
            "factorised policy gradient": (controllers.reinforce(policy.space), None),
        }
        rates = {}
        for kind, (controller, target) in ours.items():
            row, rates[kind] = rate(f"{called}, {kind}", controller, target, repeats)
            rows.append(row)
        theirs = {} if quick else pyglove_rates(policy)
        for kind in ("random", "evolution"):
            row = Row(f"{called}, {kind}: ours / PyGlove", None, None, "x proposals/s")
            row.target, row.direction = TIMES_PYGLOVE, "at_least"
            if theirs:
                times = rates[kind] / theirs[kind]
                row.value, row.interval = float(np.median(times)), bootstrap(times)
            rows.append(row)
        for name, controller, target, part in (
            ("REINFORCE", controllers.reinforce(policy.space), FACTORISED, "proposes and learns"),
            ("PPO", controllers.ppo(policy.space), FACTORISED, "proposes and learns"),
            (
                "autoregressive REINFORCE",
                controllers.reinforce(policy.space, lstm),
                AUTOREGRESSIVE,
                "proposes",
            ),
            ("autoregressive REINFORCE", controllers.reinforce(policy.space, lstm), None, "learns"),
            ("autoregressive PPO", controllers.ppo(policy.space, lstm), None, "learns"),
        ):
            few = min(repeats, 5) if "autoregressive" in name else repeats
            rows.append(generation(f"{called}, {name}", controller, target, few, part))
    return rows


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    rows = measured(arguments.quick)
    if arguments.quick:
        # Five repeats decide nothing: the figures are shown, the targets are not judged.
        for row in rows:
            row.interval = None
    report(
        "controllers",
        rows,
        arguments.json,
        lambda path: intervals(
            rows, path, f"Controllers, {CANDIDATES} candidates of 17-32-6", machine()
        ),
    )


if __name__ == "__main__":
    main()
