"""Exact probabilities of what a random function returns, by following all paths of its draws."""

import collections
import math


class Branches:
    """Draws like a `random.Random` along one path: the number of the outcome of each draw."""

    def __init__(self, path):
        self.path, self.sizes = path, []

    def pick(self, number):
        place = len(self.sizes)
        self.sizes.append(number)
        if place == len(self.path):
            self.path.append(0)
        return self.path[place]

    def choice(self, options):
        return options[self.pick(len(options))]

    def randint(self, low, high):
        return low + self.pick(high - low + 1)

    def sample(self, options, k):
        left = list(options)
        return [left.pop(self.pick(len(left))) for _ in range(k)]

    def uniform(self, low, high):
        """One number of each unit between whole bounds."""
        return low + self.pick(round(high - low)) + 0.375


def chances(draw):
    """The probability of every result of `draw`, by following all paths of its draws."""
    found, path = collections.Counter(), []
    while True:
        branches = Branches(path)
        found[draw(branches)] += 1 / math.prod(branches.sizes)
        while path and path[-1] == branches.sizes[len(path) - 1] - 1:
            path.pop()
        if not path:
            return found
        path[-1] += 1
