"""What a policy's network costs beside the dense one, and whether a gathered form would pay.

    python -m benchmarks.policies [--quick] [--json=PATH]

1,024 candidates of a 17-32-6 network, each with its own architecture and weights. Networks are
bound once an episode and applied once a step; the two are timed apart, each against the dense
policy's. A call applies every network 64 times, each time to what its last actions make of its
observation, as lanes do.

The gathered form has no matrices: it looks up the source of every edge that is there, multiplies,
and sums by target; of a colouring it looks up every edge's weight at every step. It is timed
against the bound matrices over sizes and densities. Below 1 it would pay.

Last, what it takes to compile PyGlove's 64 of 736 into a space, against PyGlove's own time for the
specification alone, which is a minute.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyglove as pg

from benchmarks.figures import intervals
from benchmarks.measure import PAIRS, Row, command_line, machine, paired_ratio, report
from esenas_jax import policies
from esenas_jax.policies import Policy
from esenas_jax.policies.feedforward import layers
from esenas_jax.spaces.pyglove import from_pyglove
from esenas_jax.types import Array, Genotype, PyTree
from experiments.command_line import configure_jax

Bind = Callable[[Array, Genotype], PyTree]
Apply = Callable[[PyTree, Array], Array]

KEY = jax.random.key(0)
CANDIDATES = 1024
STEPS = 64  # applications a call
SIZES = (17, (32,), 6)
EDGES, OPS, SPEC = 1.2, 6.0, 1.2  # targets
SPECS = 5  # pairs, of two minutes each

# Each policy, and how many times as long as the dense one it may take to apply.
POLICIES: dict[str, tuple[Callable[..., Policy], float | None]] = {
    "aggregate, 64 edges": (partial(policies.edge_pruned, num_edges=64), EDGES),
    "independent, 48 and 16 edges": (
        partial(policies.independent_edges, num_edges=(48, 16)),
        EDGES,
    ),
    "residual, 64 edges": (partial(policies.residual_edges, num_edges=64), EDGES),
    "boolean mask": (policies.boolean_mask, EDGES),
    "partition, 17 colours": (partial(policies.partitioned, num_partitions=17), EDGES),
    "op-edge, 64 edges": (partial(policies.op_edges, num_edges=64), OPS),
    "random mask, 64 edges": (partial(policies.random_mask, num_edges=64), None),
    "Toeplitz": (policies.toeplitz, None),
    "circulant": (policies.circulant, None),
}
# Layers, and the share of edges that is kept.
GATHERED = [
    (sizes, density)
    for sizes in (SIZES, (17, (256,), 6), (64, (256, 256), 16))
    for density in (0.01, 0.1, 0.5)
]
COLOURS = [SIZES, (17, (256,), 6)]


def population(policy: Policy, candidates: int) -> tuple[Array, Genotype]:
    """Return parameters and architectures, each candidate its own."""
    k_params, k_genotype = jax.random.split(KEY)
    params = jax.vmap(policy.init)(jax.random.split(k_params, candidates))
    return params, policy.space.sample(k_genotype, (candidates,))


def stepping(apply: Apply, obs_size: int, candidates: int) -> Callable[[PyTree], Array]:
    """Return what applies networks [candidates] to observations that follow from their actions."""
    first = jax.random.normal(KEY, (candidates, obs_size))

    def step(carry: tuple[PyTree, Array], _: None) -> tuple[tuple[PyTree, Array], None]:
        networks, obs = carry
        actions = jax.vmap(apply)(networks, obs)
        # What a world does to its observation: it moves all of it, and depends on the action.
        return (networks, 0.9 * obs + 0.1 * jnp.mean(actions, axis=1, keepdims=True)), None

    @jax.jit
    def run(networks: PyTree) -> Array:
        return jax.lax.scan(step, (networks, first), None, length=STEPS)[0][1]

    return run


def against_dense(name: str, policy: Policy, target: float | None, pairs: int) -> list[Row]:
    """Time a policy's networks, and binding them, against the dense policy's."""
    calls = []
    for one in (policy, policies.dense(*SIZES)):
        given, bind = population(one, CANDIDATES), jax.jit(jax.vmap(one.bind))
        run, networks = stepping(one.apply, one.obs_size, CANDIDATES), bind(*given)
        calls.append(
            (
                lambda run=run, networks=networks: run(networks),
                lambda bind=bind, given=given: bind(*given),
            )
        )
    (apply, bind), (dense_apply, dense_bind) = calls
    ratio, interval, _ = paired_ratio(apply, dense_apply, pairs)
    direction = "at_most" if target else None
    rows = [Row(f"{name}: apply / dense", ratio, interval, "x", target, direction)]
    ratio, interval, _ = paired_ratio(bind, dense_bind, pairs)
    return [*rows, Row(f"{name}: bind / dense", ratio, interval, "x bound")]


# --- the gathered forms ---------------------------------------------------------------------------


def gathered_edges(policy: Policy) -> tuple[Bind, Apply]:
    """Return bind and apply of `independent_edges` as lists of edges, one a layer.

    A number of edges for each layer is the best case: anywhere in the network, a layer's list would
    have to be as long as all of them.
    """
    shapes = policy.shapes
    starts = np.cumsum([0, *(n_in * n_out for n_in, n_out in shapes)]).tolist()

    def bind(params: Array, genotype: Genotype) -> list[tuple[Array, Array, Array]]:
        return [
            (params[start + edges], edges // n_out, edges % n_out)
            for start, edges, (_, n_out) in zip(starts, genotype, shapes, strict=False)
        ]

    def apply(network: list[tuple[Array, Array, Array]], obs: Array) -> Array:
        x = obs
        for (weights, source, target), (_, n_out) in zip(network, shapes, strict=True):
            x = jnp.tanh(jax.ops.segment_sum(weights * x[source], target, num_segments=n_out))
        return x

    return bind, apply


def looked_up_colours(policy: Policy) -> tuple[Bind, Apply]:
    """Return bind and apply of weight sharing that looks its weights up at every step."""

    def bind(params: Array, genotype: Array) -> tuple[Array, Array]:
        return params, genotype

    def apply(network: tuple[Array, Array], obs: Array) -> Array:
        return policy.apply(policy.bind(*network), obs)

    return bind, apply


def against_bound(name: str, policy: Policy, gathered: tuple[Bind, Apply], pairs: int) -> Row:
    """Time a gathered form against the bound matrices, which must say the same."""
    bind, apply = gathered
    # As many weights as 1,024 candidates of the smallest network have.
    candidates = min(CANDIDATES, max(32, CANDIDATES * 736 // policy.max_edges))
    given = population(policy, candidates)
    bound = jax.jit(jax.vmap(policy.bind))(*given)
    listed = jax.jit(jax.vmap(bind))(*given)
    # Once: where actions come back as observations, rounding can grow without limit.
    obs = jax.random.normal(KEY, (candidates, policy.obs_size))
    np.testing.assert_allclose(
        jax.vmap(policy.apply)(bound, obs), jax.vmap(apply)(listed, obs), rtol=1e-4, atol=1e-5
    )
    ours = stepping(policy.apply, policy.obs_size, candidates)
    theirs = stepping(apply, policy.obs_size, candidates)
    ratio, interval, _ = paired_ratio(lambda: theirs(listed), lambda: ours(bound), pairs)
    return Row(name, ratio, interval, "x gathered / bound")


def compiling(pairs: int) -> Row:
    """Time `from_pyglove` of 64 of 736 against PyGlove's time for the specification."""
    name = "from_pyglove of 64 of 736 / PyGlove's own specification"
    target: dict[str, Any] = {"target": SPEC, "direction": "at_most"}
    if not pairs:
        return Row(name, None, None, "x", **target)
    chosen = pg.sublist_of(64, range(736), choices_distinct=True, choices_sorted=True)
    ratio, interval, _ = paired_ratio(
        lambda: from_pyglove(chosen), lambda: pg.dna_spec(chosen), pairs
    )
    return Row(name, ratio, interval, "x", **target)


def described(sizes: tuple[int, tuple[int, ...], int]) -> str:
    """Return sizes as one says them, 17-32-6."""
    return "-".join(map(str, (sizes[0], *sizes[1], sizes[2])))


def main() -> None:
    """Measure, print, write."""
    arguments = command_line(__doc__)
    configure_jax()
    pairs = 5 if arguments.quick else PAIRS
    rows: list[Row] = []
    for name, (make, target) in POLICIES.items():
        rows += against_dense(name, make(*SIZES), target, pairs)
    for sizes, density in GATHERED:
        shape = layers(*sizes)
        name = f"{described(sizes)}, {density:.0%} of {shape.num_edges:,} edges"
        if arguments.quick and sizes != SIZES:
            rows.append(Row(name, None, None, "x gathered / bound"))
            continue
        kept = [max(1, round(density * n_in * n_out)) for n_in, n_out in shape.shapes]
        no_biases = partial(policies.independent_edges, bias_init=policies.zeros)
        policy = no_biases(*sizes, num_edges=kept)
        rows.append(against_bound(name, policy, gathered_edges(policy), pairs))
    for sizes in COLOURS:
        policy = policies.partitioned(*sizes, num_partitions=17)
        name = f"{described(sizes)}, 17 colours of {policy.max_edges:,} edges"
        if arguments.quick and sizes != SIZES:
            rows.append(Row(name, None, None, "x gathered / bound"))
            continue
        rows.append(against_bound(name, policy, looked_up_colours(policy), pairs))
    rows.append(compiling(0 if arguments.quick else SPECS))
    if arguments.quick:
        # Five pairs decide nothing: the figures are shown, the targets are not judged.
        for row in rows:
            row.interval = None
    report(
        "policies",
        rows,
        arguments.json,
        lambda path: intervals(
            rows, path, f"Policies of {described(SIZES)}, {CANDIDATES:,} candidates", machine()
        ),
    )


if __name__ == "__main__":
    main()
