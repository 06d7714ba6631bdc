"""What every controller offers."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from esenas_jax.spaces import Space
from esenas_jax.types import Array, Genotype, Key, PyTree

Metrics = dict[str, Array]


class Host(Protocol):
    """The half of a controller that one run has on the host; the state is the controller's."""

    proposals: int  # made in exchanges, not in a replay
    seconds: float  # that these took, hearing of results included

    def exchange(self, state: PyTree) -> PyTree:
        """Hear of the results in a state, and return it with the architectures to evaluate next.

        To be called before every generation, of one run after the other. Nothing changes while
        there is nothing to hear: within the generations that share proposals (`propose_every`), and
        after one that was discarded, whose architectures are run again.
        """
        ...

    def history(self) -> dict[str, np.ndarray]:
        """Return what was handed in and heard, [rounds heard of, ...] each."""
        ...

    def replay(self, state: PyTree, history: Mapping[str, np.ndarray]) -> None:
        """Go where another host was that had this state and this history."""
        ...


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
    num_incumbents: int = 0  # how many candidates of a generation run again what was found before
    # The candidates that propose -> the half on the host of a run, for a controller that has one:
    # `propose` looks up what it handed in, at most that many architectures a generation.
    host: Callable[[Sequence[int]], Host] | None = None
