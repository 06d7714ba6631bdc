"""Episodes in lanes: a fixed number run at a time; a lane whose episode ended takes the next."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from esenas_jax.tasks.environment import reset, step
from esenas_jax.tasks.normalizer import Sums, zero_sums
from esenas_jax.tasks.task import Apply, Episodes, Lens
from esenas_jax.types import Array, Key, Part, PyTree

# episode id -> the network that acts in it, and its key. A function, never a block of weights: a
# lane makes what it needs when it starts, and drops it when it ends.
Start = Callable[[Array], tuple[PyTree, Key]]
Lenses = Callable[[Array], Lens]  # episode id -> what its observations are seen through


class Totals(NamedTuple):
    """Sums over the live steps of one episode."""

    reward: Array  # float32 []
    bonus: Array  # float32 []
    steps: Array  # int32 [], environment steps


class Lane(NamedTuple):
    """One running episode."""

    episode: Array  # int32 [], its id; an id past the last marks an idle lane
    network: PyTree
    world: PyTree  # the environment's state
    obs: Array  # float32 [O]
    alive: Array  # bool []
    totals: Totals
    sums: Sums | tuple[()]  # of observations, if they are counted


Results = tuple[Totals, Sums | tuple[()]]


def rollout(
    task: Episodes,
    start: Start,
    lens: Lenses,
    apply: Apply,
    *,
    num_episodes: int,
    lanes: int,
    refill_every: int,
    to_run: Array | int | None = None,
) -> tuple[Totals, Sums | tuple[()]]:
    """Run episodes 0 .. to_run - 1 and return what each of them summed up to.

    Every `refill_every` actions the lanes whose episode ended write down its totals and start the
    next one. The loop ends with the last episode, so an episode costs the steps it lives, not the
    horizon. An episode's scores do not depend on its lane or on when it ran.

    An episode fails at the first observation, action or reward that is not finite: it ends there,
    and its return is NaN. What a world does after the end of its episode does not matter.

    Args:
        task: the environment, horizon, action repeat, and what of observations is counted.
        start: episode id -> (network, key).
        lens: episode id -> what its observations are seen through.
        apply: network, observation [O] as seen through the lens -> action [A].
        num_episodes: how many there is room for, at least 1.
        lanes: L, episodes simulated at a time.
        refill_every: actions between two looks at which lanes have ended.
        to_run: how many there are, int32 [] in [0, num_episodes], all by default; the others are
            not run, and sum up to nothing.

    Returns:
        Totals with a leading axis of num_episodes, and observation sums with that axis too: 0 for
        an episode whose return or sums are not finite; () if nothing is counted.
    """
    environment, normalizer = task.environment, task.normalizer
    lanes = min(lanes, num_episodes)
    to_run = num_episodes if to_run is None else to_run
    batch = -(-lanes // 8)

    def begin(episode: Array) -> Lane:
        network, key = start(jnp.minimum(episode, num_episodes - 1))
        with jax.named_scope(Part.PHYSICS):
            world, obs = reset(environment, key)
        sound = jnp.isfinite(obs).all()
        zero = jnp.zeros((), jnp.float32)
        return Lane(
            episode=episode,
            network=network,
            world=world,
            obs=obs,
            alive=(episode < to_run) & sound,
            totals=Totals(jnp.where(sound, zero, jnp.nan), zero, jnp.int32(0)),
            sums=zero_sums(environment.obs_size) if normalizer.enabled else (),
        )

    def act(lane: Lane) -> Lane:
        """Choose one action and hold it for `action_repeat` environment steps."""
        through = lens(jnp.minimum(lane.episode, num_episodes - 1))
        sums, seen = lane.sums, lane.obs
        if normalizer.enabled:
            seen = (seen - through.mean) * through.scale
            if normalizer.counts_reset:
                sums = _count(sums, lane.obs - through.reference, lane.alive)
        action = apply(lane.network, seen)
        if jnp.shape(action) != (environment.action_size,):
            raise ValueError(
                f"the policy must return an action of shape ({environment.action_size},), got "
                f"{jnp.shape(action)}."
            )
        chosen = jnp.isfinite(action).all()

        def hold(_: Array, carry: tuple[PyTree, Array, Array, Totals]) -> tuple:
            world, obs, alive, totals = carry
            with jax.named_scope(Part.PHYSICS):
                world, seen = step(environment, world, action)
            # A world that blew up may pay for ever.
            sound = chosen & jnp.isfinite(seen.obs).all()
            reward = jnp.where(sound, seen.reward, jnp.nan)
            totals = Totals(
                reward=totals.reward + jnp.where(alive, reward, 0.0),
                bonus=totals.bonus + jnp.where(alive, seen.bonus, 0.0),
                steps=totals.steps + alive.astype(jnp.int32),
            )
            # What a world shows after its episode has ended is not seen by anyone.
            obs = jnp.where(alive, seen.obs, obs)
            # Nothing is gained by simulating a failed episode further.
            alive = alive & ~seen.done & jnp.isfinite(reward)
            return world, obs, alive, totals

        held = (lane.world, lane.obs, lane.alive, lane.totals)
        world, obs, alive, totals = jax.lax.fori_loop(0, task.action_repeat, hold, held)
        if normalizer.enabled and not normalizer.counts_reset:
            sums = _count(sums, obs - through.reference, lane.alive)
        alive = alive & (totals.steps < task.horizon)
        return Lane(lane.episode, lane.network, world, obs, alive, totals, sums)

    def run_on(lane: Lane) -> Lane:
        return jax.lax.fori_loop(0, refill_every, lambda _, x: jax.vmap(act)(x), lane)

    def collect(lane: Lane, done: Array, results: Results) -> Results:
        # An id past the end is dropped by the scatter: that is where lanes still at work write.
        slot = jnp.where(done, lane.episode, num_episodes)
        sums = lane.sums
        if isinstance(sums, Sums):
            sound = jnp.isfinite(sums.second).all(axis=1) & jnp.isfinite(lane.totals.reward)
            sums = jax.tree.map(lambda mine: jnp.where(_like(sound, mine), mine, 0.0), sums)
        return jax.tree.map(
            lambda all_, mine: all_.at[slot].set(mine, mode="drop"), results, (lane.totals, sums)
        )

    def refill(carry: tuple[Lane, Array]) -> tuple[Lane, Array]:
        # A few lanes at a time: binding and resetting all of them to refill one or two would cost
        # as much as several steps.
        lane, waiting = carry
        wanted, which = jax.lax.top_k(waiting.astype(jnp.int32), batch)
        fresh = jax.vmap(begin)(lane.episode[which])
        slot = jnp.where(wanted > 0, which, lanes)
        lane = jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), lane, fresh)
        return lane, waiting.at[slot].set(False, mode="drop")

    def body(carry: tuple[Lane, Array, Results]) -> tuple[Lane, Array, Results]:
        lane, following, results = carry
        lane = run_on(lane)
        done = ~lane.alive & (lane.episode < to_run)
        results = collect(lane, done, results)
        ids = jnp.where(done, following + jnp.cumsum(done, dtype=jnp.int32) - 1, lane.episode)
        lane = lane._replace(episode=jnp.minimum(ids, to_run))

        waiting = done & (lane.episode < to_run)
        lane, _ = jax.lax.while_loop(lambda x: jnp.any(x[1]), refill, (lane, waiting))
        return lane, following + jnp.sum(done, dtype=jnp.int32), results

    def unfinished(carry: tuple[Lane, Array, Results]) -> Array:
        # Not whether one is alive: all may have failed at their first observation.
        return jnp.any(carry[0].episode < to_run)

    first = jax.vmap(begin)(jnp.arange(lanes, dtype=jnp.int32))
    results: Results = jax.tree.map(
        lambda x: jnp.zeros((num_episodes, *x.shape[1:]), x.dtype), (first.totals, first.sums)
    )
    return jax.lax.while_loop(unfinished, body, (first, jnp.int32(lanes), results))[2]


def _count(sums: Sums | tuple[()], delta: Array, alive: Array) -> Sums:
    """Add one observation [O], as its difference from the reference."""
    assert isinstance(sums, Sums)
    delta = jnp.where(alive, delta, 0.0)
    return Sums(sums.count + alive.astype(jnp.float32), sums.first + delta, sums.second + delta**2)


def _like(flag: Array, x: Array) -> Array:
    """Give a flag per lane [L] the rank of an array [L, ...]."""
    return flag.reshape(flag.shape + (1,) * (x.ndim - 1))
