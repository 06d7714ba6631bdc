"""The types that the pieces exchange, and the legend of their shapes.

Shape legend, used in every docstring of the package:

    N  candidates of a generation        P  continuous parameters (weights and biases)
    D  perturbation directions           E  edges of the dense network
    X  exact (unperturbed) candidates    K  edges kept, or colours of a partition
    L  lanes that simulate episodes      O  observation size
    R  episodes of one candidate         A  action size (in tasks), architectures (in answers)

Functions are written for one candidate and mapped by `population`; a leading N in a docstring says
that a function sees the whole generation. Arrays are float32 and int32. Fitness is maximised
everywhere.

Candidate i of generation t is a pure function of (run key, t, i, search state): see `stream`.
"""

import enum
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array  # a typed key, made by jax.random.key
PyTree = Any
Genotype = PyTree  # a pytree of int32 and float32 arrays: one point of a Space


class Shared(NamedTuple):
    """A part of a state that is the same in every run and never changes, a table of noise say.

    Runs in one program share it, and no checkpoint holds it: `init` makes it again.
    """

    value: PyTree


class Stream(enum.IntEnum):
    """The named children of a generation's key. Numbers are part of every result: append only."""

    NOISE = 0
    PLAN = 1
    ARCHITECTURE = 2
    EPISODE = 3
    CONTROLLER = 4
    INIT = 5
    START = 6
    SELECT = 7
    REPORT = 8
    EVALUATE = 9
    FRONT = 10
    RULE = 11


def stream(run_key: Key, generation: Array | int, name: Stream) -> Key:
    """Return the key of one named stream of one generation.

    Candidates and directions fold their own index into it: nothing depends on who asks, or when.

    Args:
        run_key: the key of the run.
        generation: int32 [].
        name: which of the generation's streams.
    """
    return jax.random.fold_in(jax.random.fold_in(run_key, generation), int(name))


class Part(enum.StrEnum):
    """The parts of a generation's work, as a profiler sees them.

    `jax.named_scope(Part.PHYSICS)` writes the name into the metadata of the operations traced
    inside; what is computed, and how fast, does not depend on it. Of two the inner one counts.
    """

    PROPOSING = "esenas_jax.proposing"  # architectures
    PERTURBING = "esenas_jax.perturbing"  # weights
    PHYSICS = "esenas_jax.physics"  # the task: resets and steps, or its single shot
    POLICY = "esenas_jax.policy"  # binding networks, normalising observations, acting
    UPDATE = "esenas_jax.update"  # of the strategy
    CONTROLLER = "esenas_jax.controller"  # its update


class Candidate(NamedTuple):
    """What is evaluated: weights, an architecture, and the key of its episodes."""

    params: Array  # [P]
    genotype: Genotype
    info: PyTree  # what the controller wants back with the score: its parent, say
    key: Key  # of the candidate's episodes


class Evaluation(NamedTuple):
    """What an evaluation saw. Every field but `statistics` has one entry a candidate.

    Scores that are not finite mark a failed candidate; `failed` says so.
    """

    episode_return: Array  # float32, mean over the candidate's episodes
    return_without_bonus: Array  # float32, the same without the reward for being alive
    steps: Array  # int32, environment steps simulated while alive, over all episodes
    episode_length: Array  # float32, mean environment steps an episode
    failed: Array  # bool
    statistics: PyTree  # what the task learns from, summed over the candidates


class Cost(NamedTuple):
    """What an architecture costs to store and to run, [] each.

    Weights are the trained numbers on connections between nodes. What every architecture of a
    policy has besides them is counted apart: biases in `biases`, and the numbers that normalise
    observations, which are the task's, in a run's `result.json`. Neither is in the bits.
    """

    edges: Array  # int32, connections between nodes that are present
    # int32, of weights and activations, in one application of the network; at most 2^31 - 1
    multiplications: Array
    weights: Array  # int32, distinct trained numbers on those connections
    biases: Array  # int32, trained numbers that are on no connection
    bits: Array  # int32, 32 a weight, and the code of the structure; at most 2^31 - 1
    entropy_bits: Array  # float32, the same with an entropy-coded structure


class Scores(NamedTuple):
    """What the two learners see of an evaluation: larger is better."""

    strategy: Array  # float32 []
    controller: Array  # float32 [], or [M] for a controller of M objectives
