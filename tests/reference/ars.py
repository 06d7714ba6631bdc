"""Slow float64 transcription of the ARS step and of two observation normalisers.

Sources:
  arXiv 1803.07055, Algorithms 1 and 2; modestyachts/ARS `code/ars.py` (selection, scale
  and step), `code/filter.py` (RunningFilter);
  google-research `es_optimization/algorithms.py` and `blackbox_functions.py`
  (MomentsES).

Quirks pinned:
  ars_update     a direction is kept when max(r+, r-) reaches the 100 (1 - b / N)
                 percentile, so ties at the border keep more than b; the sum is divided
                 by the count really kept; the standard deviation (ddof 0) is over the
                 kept rewards only and has no epsilon (equal rewards give NaN). The noise
                 scale does not enter the step.
  RunningFilter  ddof-1 variance; after a single state the "variance" is that state
                 squared; a standard deviation below 1e-7 becomes infinite, so that the
                 component is turned into 0; 1e-8 is added to the divisor.
    live_mean    False: mean and deviation both stay as they were at the last refresh,
                 as the paper describes. True: what ARS's workers really do.
                 There the mean in use is the very array that is accumulated in place, so
                 from the first refresh on it follows every state pushed, the state being
                 filtered included; the deviation stays frozen.
  MomentsES      population mean and deviation of all states since the start, from sums
                 and sums of squares; negative variances cut to 0; a deviation of exactly
                 0 becomes 1; no epsilon, so rounding in the sums may leave a tiny but
                 non-zero divisor.

Which states are counted is the caller's business: ARS pushes each state that is fed to
the policy (the reset state yes, the terminal one no); ES-ENAS counts each state that
step() returns (the reset state no, the terminal one yes).
"""

import numpy as np


def ars_update(theta, noise, reward_plus, reward_minus, *, num_elites, step_size):
    """One ARS step; returns the new parameters, theta is left alone.

    theta[P]; noise[D, P] standard normal draws; reward_plus[D], reward_minus[D] training
    returns (any per-step shift already taken off). num_elites above D means D.
    """
    theta = np.array(theta, dtype=np.float64)
    noise = np.array(noise, dtype=np.float64)
    reward_plus = np.array(reward_plus, dtype=np.float64)
    reward_minus = np.array(reward_minus, dtype=np.float64)
    num_directions, num_parameters = noise.shape
    num_elites = min(num_elites, num_directions)

    best = np.array([max(reward_plus[i], reward_minus[i]) for i in range(num_directions)])
    border = np.percentile(best, 100.0 * (1.0 - num_elites / num_directions))
    kept = [i for i in range(num_directions) if best[i] >= border]

    rewards = [reward_plus[i] for i in kept] + [reward_minus[i] for i in kept]
    mean = sum(rewards) / len(rewards)
    std = np.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))

    step = np.zeros(num_parameters, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in kept:
            step += (reward_plus[i] - reward_minus[i]) / std * noise[i]
    step /= len(kept)
    return theta + step_size * step


class RunningFilter:
    """Mean/deviation filter of ARS V2: push states, refresh once per iteration."""

    def __init__(self, size, *, live_mean=False):
        self.count = 0
        self.mean = np.zeros(size, dtype=np.float64)
        self.squares = np.zeros(size, dtype=np.float64)  # sum of (x - mean)^2
        self.mean_in_use = np.zeros(size, dtype=np.float64)
        self.std_in_use = np.ones(size, dtype=np.float64)
        self.live_mean = live_mean

    def push(self, state):
        """Welford's update with one state."""
        state = np.array(state, dtype=np.float64)
        if state.shape != self.mean.shape:
            raise ValueError(f"state has shape {state.shape}, filter {self.mean.shape}")
        before = self.count
        self.count += 1
        delta = state - self.mean
        self.mean += delta / self.count  # in place: see live_mean
        self.squares += delta * delta * before / self.count

    def merge(self, other):
        """Adds the states that another filter has seen since it was made.

        Two empty filters merge to an empty one (the source divides 0 by 0 there).
        """
        total = self.count + other.count
        if total == 0:
            return
        delta = self.mean - other.mean
        mean = (self.count * self.mean + other.count * other.mean) / total
        shift = delta * delta * self.count * other.count / total
        self.squares = self.squares + other.squares + shift
        self.mean = mean
        self.count = total

    def variance(self):
        if self.count > 1:
            return self.squares / (self.count - 1)
        return self.mean**2

    def refresh(self):
        """Puts the accumulated statistics in use."""
        self.mean_in_use = self.mean if self.live_mean else self.mean.copy()
        std = np.sqrt(self.variance())
        for i in range(len(std)):
            if std[i] < 1e-7:
                std[i] = np.inf
        self.std_in_use = std

    def normalize(self, state):
        """Filters one state. Does not push it."""
        state = np.array(state, dtype=np.float64)
        return (state - self.mean_in_use) / (self.std_in_use + 1e-8)


class MomentsES:
    """State normalisation of the released ES-ENAS: call `add` once per iteration."""

    def __init__(self, size):
        self.count = 0
        self.sums = np.zeros(size, dtype=np.float64)
        self.squares = np.zeros(size, dtype=np.float64)
        self.mean = np.zeros(size, dtype=np.float64)
        self.std = np.ones(size, dtype=np.float64)

    def add(self, states):
        """Adds states[T, S] and recomputes mean and deviation at once."""
        states = np.array(states, dtype=np.float64)
        for state in states:
            self.count += 1
            self.sums = self.sums + state
            self.squares = self.squares + state * state
        self.mean = self.sums / self.count
        self.std = np.sqrt(np.maximum(self.squares / self.count - self.mean**2, 0.0))

    def normalize(self, state):
        state = np.array(state, dtype=np.float64)
        divisor = np.array([1.0 if std == 0.0 else std for std in self.std])
        return (state - self.mean) / divisor
