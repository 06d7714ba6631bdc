"""What every policy offers."""

from collections.abc import Callable
from typing import NamedTuple

from esenas_jax.spaces import Space
from esenas_jax.types import Array, Cost, Genotype, Key, PyTree


class Policy(NamedTuple):
    """A network whose weights a strategy trains and whose architecture a controller searches.

    The layout of the parameters is the policy's own affair. Weights and architecture are combined
    once an episode (`bind`), never once a step: in the loop that steps many episodes, masking at
    every step costs 1.3 times a dense network and looking colours up 1.9 times.
    """

    obs_size: int  # O
    action_size: int  # A
    num_params: int  # P
    max_edges: int  # E, edges that an architecture could have
    space: Space
    init: Callable[[Key], Array]  # key -> parameters [P]
    bind: Callable[[Array, Genotype], PyTree]  # parameters [P], genotype -> network
    apply: Callable[[PyTree, Array], Array]  # network, observation [O] -> action [A]
    used: Callable[[Genotype], Array]  # genotype -> bool [P], False where a parameter cannot matter
    cost: Callable[[Genotype], Cost]
    # network -> weights [in, out] of consecutive layers, 0 where there is no edge: for drawing it.
    # None where a network is no such sequence.
    matrices: Callable[[PyTree], list[Array]] | None = None
    # (in, out) of the weight matrices of the dense network with the same layers, which costs are
    # compared with; () where there is no such network.
    shapes: tuple[tuple[int, int], ...] = ()
