"""Slow transcription of PyGlove 0.4.5's regularized evolution and Uniform mutator.

Sources: pyglove
0.4.5 `ext/evolution/regularized_evolution.py`, `base.py` (Evolution), `selectors.py`
(Random, Top, Last), `mutators.py` (Uniform) and `core/geno/categorical.py`, read and
run. The algorithm is that of arXiv 1802.01548.

Facts pinned:
  * Random proposals go on until population_size FEEDBACKS have come, not proposals: a
    caller that asks for a second batch before answering gets random genotypes again.
  * The tournament draws tournament_size different members (without replacement), each
    equally likely. The best reward wins; among equals the one drawn first wins, which
    makes ties uniformly random.
  * The winner is mutated once, and the child is proposed even if nothing changed.
  * The population is the population_size members fed back last, in feedback order.
    Members are never removed for being bad.
  * The mutator picks one NODE uniformly and redraws what is below it:

      space                                      nodes
      one oneof                                  1
      Dict of m oneofs                           m      (the Dict is not a node)
      sublist_of(k), k > 1                       k + 1  (the list itself is a node)
      sublist_of(1)                              1      (behaves as a oneof)
      Dict of sublist_of(k), k > 1, m oneofs     k + 1 + m
      Dict of sublist_of(1), m oneofs            1 + m
      manyof(k, distinct=False), k > 1           k + 1
      manyof(1, distinct=False)                  1

  * Redrawing a oneof, an element of a manyof(distinct=False) or a whole list may give
    back the old value. Redrawing one element of a distinct list cannot: the new value
    comes from those that are nowhere in the list, the old value excluded. If there are
    none (k = n) the list stays as it is.

Random numbers come from a numpy Generator, so sequences do not equal PyGlove's (Python
`random`); only the distributions do.
"""

import math

import numpy as np


class RegularizedEvolution:
    """`sample(rng)` draws a genotype, `mutate(rng, genotype)` returns a mutated copy."""

    def __init__(self, population_size, tournament_size, sample, mutate, rng):
        if tournament_size < 2 or population_size < tournament_size:
            raise ValueError("2 <= tournament_size <= population_size is needed")
        self.population_size = population_size
        self.tournament_size = tournament_size
        self.sample = sample
        self.mutate = mutate
        self.rng = rng
        self.num_feedbacks = 0
        self.population = []  # (genotype, reward), oldest first

    def propose(self):
        if self.num_feedbacks < self.population_size:
            return self.sample(self.rng)
        drawn = self.rng.choice(len(self.population), size=self.tournament_size, replace=False)
        winner = int(drawn[0])
        for index in drawn[1:]:
            if self.population[int(index)][1] > self.population[winner][1]:
                winner = int(index)
        return self.mutate(self.rng, self.population[winner][0])

    def feedback(self, genotype, reward):
        """PyGlove leaves NaN rewards to chance (its sort is then undefined): refused."""
        if math.isnan(reward):
            raise ValueError("NaN reward")
        self.num_feedbacks += 1
        self.population.append((genotype, float(reward)))
        self.population = self.population[-self.population_size :]


def uniform_mutate_subset(rng, subset, n):
    """Mutates one sublist_of(k) of range(n), choices distinct and kept in list order.

    Returns a tuple of k different integers; a replaced element keeps its position.
    """
    subset = [int(value) for value in subset]
    k = len(subset)
    node = int(rng.integers(_subset_nodes(k)))
    return _mutate_subset_node(rng, subset, n, node)


def uniform_mutate_choices(rng, choices, num_categories):
    """Mutates a Dict of independent oneofs: exactly one choice is redrawn.

    num_categories is one integer for all the choices, or a sequence with one for each.
    Returns a tuple.
    """
    choices = [int(value) for value in choices]
    node = int(rng.integers(len(choices)))
    return _redraw_choice(rng, choices, num_categories, node)


def uniform_mutate_subset_and_choices(rng, subset, n, choices, num_categories):
    """Mutates a Dict of one sublist_of(k) and m oneofs; returns both as tuples.

    The k + 1 (or 1) nodes of the list and the m choices are equally likely.
    """
    subset = [int(value) for value in subset]
    choices = [int(value) for value in choices]
    subset_nodes = _subset_nodes(len(subset))
    node = int(rng.integers(subset_nodes + len(choices)))
    if node < subset_nodes:
        return _mutate_subset_node(rng, subset, n, node), tuple(choices)
    node -= subset_nodes
    return tuple(subset), _redraw_choice(rng, choices, num_categories, node)


def uniform_mutate_repeated(rng, choices, num_categories):
    """Mutates one manyof(k, distinct=False) over range(num_categories).

    Unlike a Dict of k oneofs it redraws all k choices with probability 1 / (k + 1).
    """
    choices = [int(value) for value in choices]
    k = len(choices)
    node = int(rng.integers(k + 1 if k > 1 else 1))
    if k > 1 and node == 0:
        return tuple(int(rng.integers(num_categories)) for _ in range(k))
    return _redraw_choice(rng, choices, num_categories, node - 1 if k > 1 else 0)


def _subset_nodes(k):
    return k + 1 if k > 1 else 1


def _mutate_subset_node(rng, subset, n, node):
    """Node 0 is the whole list, node i the element i - 1 (only when k > 1)."""
    k = len(subset)
    if node == 0:
        return tuple(int(value) for value in rng.choice(n, size=k, replace=False))
    unused = [value for value in range(n) if value not in subset]
    mutated = list(subset)
    if unused:
        mutated[node - 1] = unused[int(rng.integers(len(unused)))]
    return tuple(mutated)


def _redraw_choice(rng, choices, num_categories, index):
    categories = num_categories if np.ndim(num_categories) == 0 else num_categories[index]
    mutated = list(choices)
    mutated[index] = int(rng.integers(int(categories)))
    return tuple(mutated)
