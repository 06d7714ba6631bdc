"""What every strategy offers."""

from collections.abc import Callable
from typing import NamedTuple

from esenas_jax.types import Array, Key, PyTree

# total(f) is the sum of f(d) over all directions d. The population provides it: it alone knows how
# the directions are chunked and who makes which, so a strategy never holds a block of noise [D, P].
Total = Callable[[Callable[[Array], PyTree]], PyTree]
# used(i) is bool [P], which parameters the architecture of candidate i uses.
Used = Callable[[Array], Array]
Metrics = dict[str, Array]


class Strategy(NamedTuple):
    """The continuous half: perturbs the parameters, and moves them by the scores that come back.

    Candidates 0 .. num_perturbed - 1 are perturbed, the `num_exact` that follow run the parameters
    as they are. The state has a field `params` [P], and numbers that may vary from run to run in a
    field `hyper`, float32.
    """

    num_directions: int  # D
    num_perturbed: int
    num_exact: int  # X
    init: Callable[[Array], PyTree]  # parameters [P] -> state
    candidate: Callable[[Key, PyTree, Array], Array]  # noise key, state, i -> parameters [P]
    # noise key, state, ids [n] -> parameters [n, P]: `candidate` of each. If n is even, the ids are
    # n / 2 pairs, ids[2k] // 2 = ids[2k + 1] // 2, so that the noise of a pair can be drawn once.
    candidates: Callable[[Key, PyTree, Array], Array]
    # noise key, state, fitness [N], valid [N], total, used, the state that the candidates were made
    # from (an earlier one, if the results come late) -> (state, metrics)
    update: Callable[[Key, PyTree, Array, Array, Total, Used, PyTree], tuple[PyTree, Metrics]]
    pair: Callable[[Array], Array]  # i -> an index that only the halves of one pair share
    # noise key, state -> what the same candidates are made from, and the same update, with the
    # noise of the generation drawn already, if that pays
    prepare: Callable[[Key, PyTree], PyTree] = lambda key, state: state

    @property
    def num_candidates(self) -> int:
        """N = perturbed + exact."""
        return self.num_perturbed + self.num_exact
