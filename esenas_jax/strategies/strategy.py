"""What every strategy offers."""

from collections.abc import Callable
from typing import NamedTuple

from esenas_jax.types import Array, Key, PyTree

# total(f) is the sum of f(d) over all directions d. The population provides it: it alone knows how
# the directions are chunked and who makes which.
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
    # noise key, state, ids [n] -> parameters [n, P]: `candidate` of each; or pairs of ids [n, 2] ->
    # parameters [n, 2, P], where a pair is 2d, 2d + 1, or one id twice: its noise is drawn once
    candidates: Callable[[Key, PyTree, Array], Array]
    # noise key, state, fitness [N], valid [N], total, used, the state that the candidates were made
    # from (an earlier one, if the results come late) -> (state, metrics)
    update: Callable[[Key, PyTree, Array, Array, Total, Used, PyTree], tuple[PyTree, Metrics]]
    pair: Callable[[Array], Array]  # i -> an index that only the halves of one pair share
    # noise key, state, bytes -> a state that gives the same candidates and the same update under
    # this key, and keeps `params` and `hyper`. It may hold the noise of the generation, if that
    # takes no more bytes; so it is the source of candidates and of an update, and never a state
    # that is updated.
    prepare: Callable[[Key, PyTree, int], PyTree] = lambda key, state, most_bytes: state

    @property
    def num_candidates(self) -> int:
        """N = perturbed + exact."""
        return self.num_perturbed + self.num_exact
