"""An algorithm of PyGlove under way: what it proposed, what it heard, and how it gets there again.

PyGlove's own `recover` brings back what an algorithm has learnt, but not what it would have drawn
next: a run that is resumed asks and tells it all over again.
"""

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pyglove as pg

from esenas_jax.controllers.host import Round, State
from esenas_jax.spaces import Space
from esenas_jax.spaces.pyglove import from_dna, to_pyglove
from esenas_jax.types import Genotype


class PyGloveHost:
    """The half of `controllers.pyglove` that is on the host; see `controllers.Host`.

    Args:
        space: of the policy.
        algorithm: is copied.
        proposers: the candidates that propose, ascending.
        spec: of the space; built if it is None.

    Raises:
        TypeError: if PyGlove has no form of the space.
    """

    def __init__(
        self,
        space: Space,
        algorithm: pg.DNAGenerator,
        proposers: Sequence[int],
        spec: pg.DNASpec | None = None,
    ) -> None:
        self.proposals, self.seconds = 0, 0.0
        self._space = space
        self._spec = to_pyglove(space) if spec is None else spec
        self._algorithm: Any = algorithm.clone(deep=True)
        self._proposers = list(proposers)
        self._waiting: dict[int, pg.DNA] = {}  # what is being evaluated, by proposer
        self._heard: list[Round] = []  # as NumPy arrays
        self._drawn: Any = None  # the state of Python's generator, as the algorithm left it

    def exchange(self, state: State) -> State:
        """Hear of the results in a state, and return it with the architectures to evaluate next.

        Raises:
            ValueError: if the state is not that of the last exchange or its generation, or the
                algorithm has no proposals left, or proposes what is none of the space.
        """
        told, handed_in = int(state.told), len(self._heard) + bool(self._waiting)
        if told not in (handed_in - 1, handed_in):
            raise ValueError(
                f"the host handed in {handed_in} rounds of architectures, but the state has "
                f"results of {told}: exchange before every generation, and replay a run that is "
                "resumed."
            )
        if told < handed_in:
            return state
        started = time.perf_counter()
        with self._drawing(state):
            if handed_in:
                self._hear(jax.device_get(state.round))
            genotypes = self._propose(state.round.valid.size)
        self.proposals += len(self._proposers)
        self.seconds += time.perf_counter() - started

        def put(new: np.ndarray, old: Any) -> jax.Array:
            # As the compiled generation knows it: what is bound to a device is another type.
            return jax.device_put(new, old.sharding if getattr(old, "committed", False) else None)

        genotypes = jax.tree.map(put, genotypes, state.round.genotypes)
        return state._replace(round=state.round._replace(genotypes=genotypes))

    def history(self) -> dict[str, np.ndarray]:
        """Return what was handed in and heard, [rounds heard of, ...] each; {} before the first."""
        if not self._heard:
            return {}
        return _by_name(jax.tree.map(lambda *rounds: np.stack(rounds), *self._heard))

    def replay(self, state: State, history: Mapping[str, np.ndarray]) -> None:
        """Ask and tell the algorithm all over again, up to the round in the state.

        It takes as long as it took: PyGlove proposes a few architectures a second in large spaces.

        Raises:
            ValueError: if it proposes others than it did.
        """
        latest: Round = jax.device_get(state.round)
        structure = jax.tree.structure(latest)
        columns = [history[name] for name in _by_name(latest)] if history else []
        past = [structure.unflatten(leaves) for leaves in zip(*columns, strict=True)]
        with self._drawing(state):
            for number, made in enumerate([*past, latest]):
                if number:
                    self._hear(past[number - 1])
                proposed = self._propose(made.valid.size)
                same = jax.tree.map(np.array_equal, proposed, made.genotypes)
                if not all(jax.tree.leaves(same)):
                    raise ValueError(
                        f"in round {number} of its replay the algorithm does not propose what it "
                        "proposed before: it must be the same version of PyGlove and of the "
                        "algorithm, which must draw from Python's random or a seed of its own."
                    )

    @contextlib.contextmanager
    def _drawing(self, state: State) -> Iterator[None]:
        """Let the algorithm draw from Python's generator as if nobody else did."""
        others = random.getstate()
        try:
            if self._drawn is None:
                random.seed(int(state.seed))
                self._algorithm.setup(self._spec)
            else:
                random.setstate(self._drawn)
            yield
            self._drawn = random.getstate()
        finally:
            random.setstate(others)

    def _propose(self, number: int) -> Genotype:
        """Return the next architectures, [number] by the candidate that proposes."""
        self._waiting = {proposer: self._next() for proposer in self._proposers}
        made = [self._genotype(dna) for dna in self._waiting.values()]
        # Candidates that propose nothing are never looked up.
        places = np.searchsorted(self._proposers, np.arange(number)).clip(max=len(made) - 1)
        return jax.tree.map(lambda *each: np.stack(each)[places], *made)

    def _next(self) -> pg.DNA:
        try:
            return self._algorithm.propose()
        except StopIteration:
            raise ValueError(
                f"the algorithm has no proposals left after {self._algorithm.num_proposals}."
            ) from None

    def _genotype(self, dna: pg.DNA) -> Genotype:
        if not isinstance(dna, pg.DNA):
            raise TypeError(f"the algorithm must propose a pg.DNA, got {dna!r}.")
        try:
            return from_dna(self._space, dna)
        except ValueError as error:
            raise ValueError(f"the algorithm proposed what is none of the space: {error}") from None

    def _hear(self, told: Round) -> None:
        """Tell the algorithm of the results of what it proposed."""
        for proposer, dna in self._waiting.items():
            scores = told.scores[told.valid & (told.proposer == proposer)]
            if len(scores):
                score = scores.mean(axis=0, dtype=np.float64)
                reward = tuple(score.tolist()) if score.ndim else float(score)
                self._algorithm.feedback(dna, reward)
        self._waiting = {}
        self._heard.append(told)


def _by_name(tree: Any) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
