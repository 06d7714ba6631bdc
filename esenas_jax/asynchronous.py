"""Asynchronous updates of one shared model, simulated on the device: what staleness does.

Workers take turns. Each evaluates the candidates of a state that the others have moved on from, and
its update is added to the state as it is now. Nothing is left to chance: which state a worker saw
is given, so a run has the same bits every time.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from esenas_jax import _checks
from esenas_jax.rules.rule import each
from esenas_jax.search import Metrics, Search, SearchState, Source
from esenas_jax.types import Array, Key


class AsynchronousState(NamedTuple):
    """Everything that the next update needs. Its tree, shapes and dtypes never change."""

    now: SearchState
    past: Source  # [S + 1], the last states: that before update u in place u mod (S + 1)
    updates: Array  # int32 [], u: generations less those that were discarded

    @property
    def generation(self) -> Array:
        """Generations so far, int32 []."""
        return self.now.generation

    @property
    def discarded(self) -> Array:
        """Generations discarded in a row, int32 []."""
        return self.now.discarded

    def rewound(self, lost: Array) -> "AsynchronousState":
        """Return the state before the last `lost` generations, if all of them were discarded."""
        return self._replace(now=self.now.rewound(lost))


class Asynchronous(NamedTuple):
    """A search whose updates come late: its functions, pure and made for jit."""

    search: Search
    lags: tuple[int, ...]  # of the workers
    init: Callable[[Key], AsynchronousState]
    step: Callable[[Key, AsynchronousState], tuple[AsynchronousState, Metrics]]
    run: Callable[[Key, AsynchronousState, int], tuple[AsynchronousState, Metrics]]

    @property
    def shards(self) -> int:
        """The pieces that devices share a generation out in."""
        return self.search.shards

    def deployed(self, state: AsynchronousState) -> SearchState:
        """Return the state that `choose_answer` takes."""
        return state.now


def asynchronous(search: Search, lags: Sequence[int]) -> Asynchronous:
    """Return the search with W workers that take turns.

    Update u is worker u mod W's: its candidates, all N of them, are made from the state that was
    there lags[u mod W] updates ago, of the first state until there were as many. What it learns
    moves the state as it is now; a worker whose generation is discarded tries again. With one
    worker without a lag this is the search itself.

    Args:
        search: what the workers share.
        lags: of each worker, in updates, at least 0. The largest is the staleness S, and S + 1
            states are kept.

    Raises:
        TypeError, ValueError: if there is no worker, a lag is negative, the controller is on the
            host, or architectures are kept for several generations.

    Example:
        >>> import jax
        >>> from esenas_jax import controllers, es_enas, policies, strategies, tasks
        >>> task = tasks.polynomial_regression(jax.random.key(1), batch_size=64)
        >>> policy = policies.dense(5, (), 1, output_activation=lambda x: x)
        >>> search = es_enas(
        ...     policy, task, strategies.ars(4, 1), controllers.constant(policy.space)
        ... )
        >>> late = asynchronous(search, lags=(4, 4))
        >>> key = jax.random.key(0)
        >>> state, metrics = jax.jit(late.run, static_argnums=2)(key, late.init(key), 10)
        >>> int(state.generation)
        10
    """
    lags = tuple(_checks.integer("lags", lag, 0) for lag in lags)
    if not lags:
        raise ValueError("lags must be of at least one worker, got none.")
    if search.host:
        raise ValueError(
            "a search with late updates must have a controller on the device, got one on the host."
        )
    if search.propose_every > 1 and max(lags):
        raise ValueError(
            f"a search with late updates must propose every generation, got propose_every "
            f"{search.propose_every}."
        )
    kept = max(lags) + 1
    by_worker = np.array(lags, np.int32)

    def init(run_key: Key) -> AsynchronousState:
        now = search.init(run_key)
        past = each(lambda x: jnp.broadcast_to(x[None], (kept, *x.shape)), now.source)
        return AsynchronousState(now, past, jnp.int32(0))

    def step(run_key: Key, state: AsynchronousState) -> tuple[AsynchronousState, Metrics]:
        u = state.updates
        past = each(lambda all_, x: all_.at[u % kept].set(x), state.past, state.now.source)
        lag = jnp.minimum(jnp.asarray(by_worker)[u % len(lags)], u)
        seen = each(lambda x: x[(u - lag) % kept], past)
        now, metrics = search.step_from(run_key, seen, state.now)
        learnt = (now.discarded == 0).astype(jnp.int32)
        return AsynchronousState(now, past, u + learnt), metrics

    def run(
        run_key: Key, state: AsynchronousState, updates: int
    ) -> tuple[AsynchronousState, Metrics]:
        """Carry out several updates; metrics get a leading axis of that length."""
        updates = _checks.integer("updates", updates, 0)
        return jax.lax.scan(lambda s, _: step(run_key, s), state, length=updates)

    return Asynchronous(search, lags, init, step, run)
