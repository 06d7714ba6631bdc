"""What every controller offers."""

from collections.abc import Callable
from typing import NamedTuple

from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key, PyTree

Metrics = dict[str, Array]


class Controller(NamedTuple):
    """The combinatorial half: proposes an architecture per candidate and learns from the scores.

    `prepare` does once a generation what all proposals share (sorting, building a distribution);
    `propose` then makes any candidate's architecture from the plan, anywhere.
    """

    space: Space  # of the policy
    init: Callable[[Key], PyTree]  # -> state
    prepare: Callable[[Key, PyTree], PyTree]  # key, state -> plan
    propose: Callable[
        [Key, PyTree, Array], tuple[Genotype, PyTree]
    ]  # key, plan, i -> genotype, info
    # key, state, genotypes [N], info [N], scores [N], or [N, M] of several objectives, valid [N]
    # -> (state, metrics). Candidates that are not valid failed: they are never a parent, an elite,
    # or best.
    update: Callable[[Key, PyTree, Genotype, PyTree, Array, Array], tuple[PyTree, Metrics]]
    # state -> (genotypes [A], bool [A]): the most promising architectures, best first, and whether
    # an entry is one; A is the controller's own number.
    best: Callable[[PyTree], tuple[Genotype, Array]]
    num_objectives: int = 1  # M, the numbers that it maximises
