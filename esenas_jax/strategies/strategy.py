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
    # noise key, state, ids [n] -> parameters [n, P]: `candidate` of each, in what it costs at best
    candidates: Callable[[Key, PyTree, Array], Array]
    # noise key, state, fitness [N], valid [N], total, used, parameters [P] that were perturbed
    # (others than the state's, if the results come late) -> (state, metrics)
    update: Callable[[Key, PyTree, Array, Array, Total, Used, Array], tuple[PyTree, Metrics]]
    pair: Callable[[Array], Array]  # i -> an index that only the halves of one pair share

    @property
    def num_candidates(self) -> int:
        """N = perturbed + exact."""
        return self.num_perturbed + self.num_exact
