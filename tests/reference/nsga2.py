"""Slow transcription of the two procedures of NSGA-II, and of its survival.

Source: Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic
algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002: sections
III-A (fast-non-dominated-sort), III-B (crowding-distance-assignment) and III-C (main
loop). Objectives are maximised here.

The paper leaves open in which order equal values are sorted: here the one that was first
stays first. It divides by f_max - f_min, which may be 0: the members inside then gain
nothing.
"""

import math


def dominates(p, q):
    return all(a >= b for a, b in zip(p, q, strict=True)) and any(
        a > b for a, b in zip(p, q, strict=True)
    )


def fast_non_dominated_sort(scores):
    """Returns the fronts, as lists of indices."""
    dominated = {p: [] for p in range(len(scores))}  # S_p
    number = dict.fromkeys(range(len(scores)), 0)  # n_p
    fronts = [[]]
    for p in range(len(scores)):
        for q in range(len(scores)):
            if dominates(scores[p], scores[q]):
                dominated[p].append(q)
            elif dominates(scores[q], scores[p]):
                number[p] += 1
        if number[p] == 0:
            fronts[0].append(p)
    while fronts[-1]:
        following = []
        for p in fronts[-1]:
            for q in dominated[p]:
                number[q] -= 1
                if number[q] == 0:
                    following.append(q)
        fronts.append(following)
    return [sorted(front) for front in fronts[:-1]]


def crowding_distance_assignment(scores):
    """Returns the distance of each member of one front."""
    distance = [0.0] * len(scores)
    for m in range(len(scores[0])):
        order = sorted(range(len(scores)), key=lambda i: scores[i][m])
        span = scores[order[-1]][m] - scores[order[0]][m]
        for k in range(1, len(order) - 1):
            if span > 0:
                distance[order[k]] += (scores[order[k + 1]][m] - scores[order[k - 1]][m]) / span
        distance[order[0]] = distance[order[-1]] = math.inf
    return distance


def survivors(scores, size):
    """Returns the indices that make up the next population, the best first."""
    chosen = []
    for front in fast_non_dominated_sort(scores):
        distance = crowding_distance_assignment([scores[i] for i in front])
        order = sorted(range(len(front)), key=lambda k: -distance[k])
        chosen += [front[k] for k in order]
    return chosen[:size]
