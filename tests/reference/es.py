"""Slow float64 transcription of the evolution-strategy step of the released ES-ENAS.

Sources:
  google-research `es_optimization/algorithms.py`, class MCOptimizer (the update)
  and the function filter_top_directions (which directions count);
  google-research `es_enas/es_enas_learner_grpc.py` (the exact returns are averaged
  before the optimizer sees them).

Which option pins which quirk:
  normalize            value normalisation pools every perturbed value plus the exact
                       mean as ONE more entry, however many exact episodes there were;
                       population standard deviation (ddof 0), no epsilon: if all the
                       values are equal the result is NaN, as in the released code.
  estimator            "antithetic" averages value * perturbation over all 2 D half
                       directions; "forward_fd" averages (value - exact) * perturbation.
  num_top_directions   0 keeps all. "antithetic" counts pairs; "forward_fd" counts
                       single perturbations.
  ranking              "difference" (released): pairs sorted by |v+ - v-|. "max" is not
                       in MCOptimizer; it is ARS's and Iris's order, max(v+, v-).
                       "forward_fd" always sorts by v+ itself, whatever this says.
  double_when_fewer    the antithetic gradient is doubled when fewer than all pairs are
                       kept, and not when all are: there is a jump by a factor of two
                       between D - 1 and D kept pairs. Never applied to "forward_fd".

Ties in the ranking: the released code sorts unstably; here the lower index wins.

`centered_ranks` is not part of the released code. It is the usual fitness shaping of
OpenAI's evolution strategies, with ties averaged.
"""

import numpy as np


def es_update(
    theta,
    noise,
    fitness_plus,
    fitness_minus,
    exact,
    *,
    noise_std,
    step_size,
    estimator="antithetic",
    num_top_directions=0,
    ranking="difference",
    normalize=True,
    double_when_fewer=True,
):
    """One gradient-ascent step; returns the new parameters, theta is left alone.

    theta[P]; noise[D, P] standard normal draws (not yet multiplied by noise_std);
    fitness_plus[D], fitness_minus[D] returns at theta +- noise_std * noise (larger is
    better; fitness_minus is None for "forward_fd"); exact[E] returns at theta itself.

    An empty `exact` is an extension, allowed for "antithetic" only: nothing is then
    added to the values that are normalised. The released code divides by zero there.
    """
    theta = np.array(theta, dtype=np.float64)
    noise = np.array(noise, dtype=np.float64)
    exact = np.array([] if exact is None else exact, dtype=np.float64).reshape(-1)
    num_directions, num_parameters = noise.shape
    if theta.shape != (num_parameters,):
        raise ValueError(f"theta has shape {theta.shape}, noise {noise.shape}")
    if ranking not in ("difference", "max"):
        raise ValueError(f"unknown ranking {ranking!r}")

    plus = [float(value) for value in fitness_plus]
    if estimator == "antithetic":
        minus = [float(value) for value in fitness_minus]
    elif estimator == "forward_fd":
        if fitness_minus is not None:
            raise ValueError("forward_fd has no mirrored evaluations")
        if exact.size == 0:
            raise ValueError("forward_fd needs an exact evaluation")
        minus = []
    else:
        raise ValueError(f"unknown estimator {estimator!r}")
    if len(plus) != num_directions or (minus and len(minus) != num_directions):
        raise ValueError("one fitness value per direction is needed")

    current = sum(float(value) for value in exact) / exact.size if exact.size else None

    # 1. Normalise: (value - mean) / std over the pool of all values.
    if normalize:
        pool = plus + minus + ([] if current is None else [current])
        mean = sum(pool) / len(pool)
        variance = sum((value - mean) ** 2 for value in pool) / len(pool)
        std = np.sqrt(np.float64(variance))
        with np.errstate(divide="ignore", invalid="ignore"):
            plus = [np.float64(value - mean) / std for value in plus]
            minus = [np.float64(value - mean) / std for value in minus]
            if current is not None:
                current = np.float64(current - mean) / std

    # 2. Choose the directions.
    kept = list(range(num_directions))
    if num_top_directions > 0:
        if estimator == "forward_fd":
            score = plus
        elif ranking == "difference":
            score = [abs(plus[i] - minus[i]) for i in range(num_directions)]
        else:
            score = [max(plus[i], minus[i]) for i in range(num_directions)]
        kept.sort(key=lambda i: -score[i])  # Python's sort is stable
        kept = kept[:num_top_directions]

    # 3. Monte-Carlo gradient: the mean over evaluations of value * perturbation / var.
    gradient = np.zeros(num_parameters, dtype=np.float64)
    num_evaluations = 0
    for i in kept:
        perturbation = noise_std * noise[i]
        if estimator == "antithetic":
            gradient += plus[i] * perturbation / noise_std**2
            gradient += minus[i] * (-perturbation) / noise_std**2
            num_evaluations += 2
        else:
            gradient += (plus[i] - current) * perturbation / noise_std**2
            num_evaluations += 1
    gradient /= num_evaluations
    if estimator == "antithetic" and double_when_fewer and len(kept) < num_directions:
        gradient *= 2.0

    # 4. Plain gradient ascent: no momentum, no weight decay.
    return theta + step_size * gradient


def centered_ranks(values):
    """Maps values to [-0.5, 0.5] by rank: (rank - 1) / (n - 1) - 0.5.

    rank is 1 for the smallest value and n for the largest; equal values share the mean
    of the ranks that they occupy together, so a plateau maps to all zeros and the
    result always sums to zero. A single value maps to 0.
    """
    values = np.array(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError("centered_ranks takes one vector")
    n = len(values)
    ranks = np.zeros(n, dtype=np.float64)
    for i in range(n):
        smaller = sum(1 for other in values if other < values[i])
        equal = sum(1 for other in values if other == values[i])  # itself included
        ranks[i] = smaller + (equal + 1) / 2.0
    if n == 1:
        return np.zeros(1, dtype=np.float64)
    return (ranks - 1.0) / (n - 1.0) - 0.5
