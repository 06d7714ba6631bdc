"""What is asked of a policy: a single-shot evaluation, or episodes in an environment."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from esenas_jax import _checks
from esenas_jax.tasks.environment import Environment, reset
from esenas_jax.tasks.normalizer import (
    Moments,
    Normalizer,
    Sums,
    identity_normalizer,
    init_moments,
    merge,
)
from esenas_jax.types import Array, Evaluation, Key, PyTree

Apply = Callable[[PyTree, Array], Array]  # network, observation [O] -> action [A]


class Lens(NamedTuple):
    """What a run's observations are seen through, frozen within a generation."""

    reference: Array  # float32 [O], what sums of observations are relative to
    mean: Array  # float32 [O], taken away before a policy sees them
    scale: Array  # float32 [O], multiplied with after that


class Exam(NamedTuple):
    """Examples that no candidate is scored on: each of them counts as an episode, and all do."""

    name: str
    size: int  # n, at least 2
    # network, apply -> Evaluation [n]; `statistics` has what is told of it, {name: float32 [n]}
    evaluate: Callable[[PyTree, Apply], Evaluation]


class SingleShot(NamedTuple):
    """A task whose score is one function call."""

    obs_size: int
    action_size: int
    # key, network, apply -> Evaluation of one candidate; equal keys mean the same examples
    evaluate: Callable[[Key, PyTree, Apply], Evaluation]
    # What chooses an answer, and what says how good it is: other examples than those of `evaluate`,
    # and than each other's. Without them `evaluate` does both, with keys that nothing else has.
    select: Exam | None = None
    report: Exam | None = None

    @property
    def episodes(self) -> int:
        """One call is one episode."""
        return 1

    @property
    def horizon(self) -> int:
        """It has no steps."""
        return 0

    def init(self, key: Key) -> Moments:
        """Return the moments of nothing: a single-shot task learns nothing over a run."""
        del key
        return init_moments(self.obs_size)

    def absorb(self, moments: Moments, statistics: PyTree) -> Moments:
        """Learn nothing."""
        del statistics
        return moments

    def lens(self, moments: Moments) -> Lens:
        """Return the lens that shows observations as they are."""
        return Lens(moments.mean, jnp.zeros_like(moments.mean), jnp.ones_like(moments.mean))


class Episodes(NamedTuple):
    """A task of episodes in an environment; `rollout` schedules them."""

    environment: Environment
    horizon: int  # environment steps after which an episode is cut
    action_repeat: int
    episodes: int  # R, a candidate's
    normalizer: Normalizer
    known: Moments | None = None  # of the observations seen before the run; None: there were none

    @property
    def obs_size(self) -> int:
        """Of the environment."""
        return self.environment.obs_size

    @property
    def action_size(self) -> int:
        """Of the environment."""
        return self.environment.action_size

    def init(self, key: Key) -> Moments:
        """Return the moments known, or those of nothing, to be summed from what a reset shows.

        Deviations are summed from the mean so far: at first from anything near the data, or
        float32 would lose the spread of an input that is far from 0.
        """
        moments = init_moments(self.obs_size)
        if not self.normalizer.enabled:
            return moments
        if self.known is not None:
            return Moments(*map(jnp.asarray, self.known))
        obs = reset(self.environment, key)[1]
        return moments._replace(mean=jnp.where(jnp.isfinite(obs), obs, 0.0))

    def knowing(self, moments: Moments) -> "Episodes":
        """Return the task whose normaliser starts from these moments.

        Weights that were trained by one run are worth little to another that sees other numbers.

        Args:
            moments: of a run on the same observations.

        Raises:
            ValueError: if they are of another size, or the task does not normalise observations.
        """
        if not self.normalizer.enabled:
            raise ValueError(
                "a task with moments must normalise observations, got normalizer none."
            )
        if moments.mean.shape != (self.obs_size,):
            raise ValueError(
                f"moments must be of {self.obs_size} observations, got {moments.mean.size}."
            )
        return self._replace(known=moments)

    def absorb(self, moments: Moments, statistics: PyTree) -> Moments:
        """Return the moments with what a generation saw merged in; () if that is nothing."""
        if not self.normalizer.enabled or not isinstance(statistics, Sums):
            return moments
        return merge(moments, statistics)

    def lens(self, moments: Moments) -> Lens:
        """Return what observations are seen through while the moments are these."""
        return Lens(moments.mean, *self.normalizer.affine(moments))


Task = SingleShot | Episodes


def normalizes(task: Task) -> bool:
    """Return whether a task normalizes observations, and so learns from all that are seen."""
    return isinstance(task, Episodes) and task.normalizer.enabled


def episodes(
    environment: Environment,
    *,
    horizon: int = 1000,
    action_repeat: int = 1,
    episodes: int = 1,
    normalizer: Normalizer | None = None,
) -> Episodes:
    """Return the task of maximising the return of an environment's episodes.

    Args:
        environment: where.
        horizon: environment steps after which an episode is cut, a multiple of `action_repeat`.
        action_repeat: environment steps an action is held for, at least 1.
        episodes: R, episodes a candidate; its scores are their means.
        normalizer: of observations, with what it learns over the run; none by default.

    Raises:
        TypeError, ValueError: if a number is outside its range.
    """
    horizon = _checks.integer("horizon", horizon, 1)
    action_repeat = _checks.integer("action_repeat", action_repeat, 1, horizon)
    if horizon % action_repeat:
        raise ValueError(
            f"horizon must be a multiple of action_repeat {action_repeat}, got {horizon}."
        )
    return Episodes(
        environment=environment,
        horizon=horizon,
        action_repeat=action_repeat,
        episodes=_checks.integer("episodes", episodes, 1),
        normalizer=normalizer or identity_normalizer(),
    )
