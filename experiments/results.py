"""What a run has found, in numbers and in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from esenas_jax.answer import Answer, Front
from esenas_jax.policies import Policy, matrix_weights
from esenas_jax.policies.costs import WEIGHT_BITS
from esenas_jax.search import Search
from esenas_jax.tasks.task import Task, normalizes
from esenas_jax.types import Cost, Evaluation
from experiments.progress import digits
from experiments.workdir import Workdir


def worth(report: Evaluation) -> dict[str, Any]:
    """Return what episodes [n] say of a policy: means, and their standard errors.

    Of an exam what it tells of its examples, under its own names: `test_accuracy`, say.
    """
    if report.statistics:
        return {
            **{name: _mean(values) for name, values in report.statistics.items()},
            "report_examples": int(report.failed.size),
            "failed_examples": int(report.failed.sum()),
        }
    return {
        "return": _mean(report.episode_return),
        "return_without_bonus": _mean(report.return_without_bonus),
        "episode_length": _mean(report.episode_length),
        "report_episodes": int(report.episode_return.size),
        "failed_episodes": int(report.failed.sum()),
    }


def result(
    search: Search,
    found: Answer,
    first: Mapping[str, Any],
    last: Mapping[str, Any],
    front: Front | None = None,
) -> dict[str, Any]:
    """Return the content of `result.json`, given the first and last rows of metrics."""
    told = worth(found.report)
    if not _examined(told):
        told["first_return_without_bonus"] = first["return_without_bonus"]
    return told | {
        **_amounts(found.cost),
        "normalizer_numbers": normalizer_numbers(search.task),
        "possible_edges": search.policy.max_edges,
        "compression": compression(search.policy, found.cost),
        "generations": last["generation"] + 1,
        "env_steps": last["env_steps"],
        "episodes": last["episodes"],
        **({} if front is None else {"front": points(front), "front_cost": search.objective.cost}),
    }


def points(front: Front) -> list[dict[str, Any]]:
    """Return the architectures of a front, the cheapest first: what each is worth, and costs."""
    return [
        worth(jax.tree.map(lambda x, k=k: x[k], front.evaluations))
        | _amounts(jax.tree.map(lambda x, k=k: x[k], front.cost))
        | {"dominated": bool(front.dominated[k])}
        for k in range(int(front.valid.sum()))  # the others come after them
    ]


def _amounts(cost: Cost) -> dict[str, int | float]:
    return {
        name: (float if name == "entropy_bits" else int)(value)
        for name, value in cost._asdict().items()
    }


def normalizer_numbers(task: Task) -> int:
    """Return how many numbers normalise observations: a mean and a scale for each, or none."""
    return 2 * task.obs_size if normalizes(task) else 0


def compression(policy: Policy, cost: Cost) -> dict[str, dict[str, float]]:
    """Return what matrices of the same layers take, and how many times as much that is.

    Of dense, Toeplitz and circulant matrices: `weights`, `bits` at 32 a weight, and `times_weights`
    and `times_bits`, above 1 where the architecture takes less. Weights may shrink and bits not: a
    colouring takes bits of its own. {} for a policy that has no such layers.
    """
    if not policy.shapes:
        return {}
    return {
        name: {
            "weights": weights,
            "bits": WEIGHT_BITS * weights,
            "times_weights": weights / max(int(cost.weights), 1),
            "times_bits": WEIGHT_BITS * weights / max(int(cost.bits), 1),
        }
        for name, weights in matrix_weights(policy.shapes).items()
    }


def results(
    search: Search,
    about: Sequence[Mapping[str, float]],
    found: Sequence[Answer],
    rows: Sequence[Mapping[str, Any]],
    fronts: Sequence[Front | None] | None = None,
) -> dict[str, Any]:
    """Return the content of `result.json` of many runs in one program.

    Args:
        search: that was run.
        about: seed and swept numbers of every run.
        found: their answers.
        rows: of metrics, those of a generation after those of the one before.
        fronts: theirs, of controllers of several objectives.

    Returns:
        `runs`, each with what `result` has; `settings`, the runs of equal swept numbers together,
        with means over their seeds and 95 % intervals; `best_run`, whose policy was best on the
        episodes that select (those that report estimate it, then, without bias), by the score that
        its controller sees. Where numbers of the objective are swept, by the return: the scores of
        two objectives cannot be compared.
    """
    first, last = rows[: len(about)], rows[-len(about) :]
    runs = [
        {
            **about[r],
            **result(search, found[r], first[r], last[r], fronts[r] if fronts else None),
            "discarded": last[r]["discarded"],
        }
        for r in range(len(about))
    ]
    settings: dict[tuple, list[dict[str, Any]]] = {}
    for run, numbers in zip(runs, about, strict=True):
        swept = tuple((name, value) for name, value in numbers.items() if name != "seed")
        settings.setdefault(swept, []).append(run)
    if any(name.startswith("objective.") for name in about[0]):
        selected = [np.asarray(x.selection.episode_return)[x.choice].mean() for x in found]
    else:
        selected = [float(x.score) for x in found]
    return {
        "runs": runs,
        "settings": [
            {
                **dict(swept),
                "seeds": len(members),
                **{
                    name: _over_seeds([m[name]["mean"] for m in members])
                    for name in _reported(members[0])
                },
            }
            for swept, members in settings.items()
        ],
        "best_run": int(np.argmax(np.where(np.isfinite(selected), selected, -np.inf))),
    }


_REPORTED = ("return", "return_without_bonus", "episode_length")


def _examined(run: Mapping[str, Any]) -> bool:
    return "report_examples" in run


def _reported(run: Mapping[str, Any]) -> list[str]:
    """Return the names of what a run is worth: of its episodes, or what its exam tells."""
    if not _examined(run):
        return list(_REPORTED)
    return [name for name, value in run.items() if isinstance(value, Mapping) and "mean" in value]


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and 95 % interval (Student's t) of one number a seed; no interval for one."""
    from scipy.stats import t

    x = np.asarray(values, np.float64)
    if x.size < 2 or not np.isfinite(x).all():
        return {"mean": float(x.mean()), "interval": None}
    half = float(t.ppf(0.975, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size))
    return {"mean": float(x.mean()), "interval": [float(x.mean()) - half, float(x.mean()) + half]}


def summary(found: dict[str, Any], workdir: Workdir) -> str:
    """Return the last lines of a run: what was found, and where to look at it."""
    origin = workdir.read("provenance.json")
    where = {
        "Devices": f"{origin['devices_used']} x {origin['device']}",
        "Pictures": f"{workdir.path / 'report'}: "
        + ", ".join(sorted(path.name for path in (workdir.path / "report").glob("*.png"))),
    }
    if "proposals_per_second" in origin:
        where["Controller"] = (
            f"{origin['proposals_per_second']:,.3g} architectures a second, on the host"
        )
    if "runs" in found:
        return table(_settings(found) | where) + _front(found["runs"][found["best_run"]])
    return table(measured(found, "on untouched seeds") | costs(found) | where) + _front(found)


def _settings(found: Mapping[str, Any]) -> dict[str, str]:
    """Return a line for every setting of the sweep, or one for all seeds."""
    lines = {}
    best = found["runs"][found["best_run"]]
    reported = _reported(best)
    for setting in found["settings"]:
        swept = [k for k in setting if k not in ("seeds", *reported)]
        name = ", ".join(f"{k.split('.')[-1]} {digits(setting[k])}" for k in swept) or "All runs"
        if _examined(best):
            parts = [f"{_words(k)} {_interval(setting[k])}" for k in reported]
        else:
            parts = [f"return {_interval(setting['return'])}"]
            if setting["return"] != setting["return_without_bonus"]:
                parts.append(f"without alive bonus {_interval(setting['return_without_bonus'])}")
        seeds = setting["seeds"]
        lines[name] = f"{', '.join(parts)} ({seeds} seed{'s' * (seeds != 1)})"
    measured_on = (
        f"{best['report_examples']} examples a run that neither trained nor selected"
        if _examined(best)
        else f"{best['report_episodes']} episodes a run on untouched seeds"
    )
    return lines | {
        "Measured on": f"{measured_on}; [95 % interval of the mean over seeds]",
        "Best run": f"{found['best_run']} (seed {best['seed']}), in policy.npz; all in policies/",
        **costs(best),
    }


def _interval(value: Mapping[str, Any]) -> str:
    if value["mean"] is None:
        return "not finite"
    if value["interval"] is None:
        return digits(value["mean"])
    return "{} [{}, {}]".format(*map(digits, (value["mean"], *value["interval"])))


def measured(found: Mapping[str, Any], on: str) -> dict[str, str]:
    """Return the lines that say what a policy is worth."""
    if _examined(found):
        failed = found["failed_examples"]
        lines = {_words(name).capitalize(): _pm(found[name]) for name in _reported(found)}
        return lines | {
            "Measured on": f"{found['report_examples']} examples that neither trained nor "
            "selected, ± standard error" + (f"; {failed} of them failed" if failed else "")
        }
    lines = {"Return": _pm(found["return"])}
    if found["return"] != found["return_without_bonus"]:
        before = found.get("first_return_without_bonus")
        lines |= {
            "Return without alive bonus": _pm(found["return_without_bonus"])
            + ("" if before is None else f" (first generation {digits(before)})"),
        }
    if found["episode_length"]["mean"]:
        lines["Episode length"] = f"{_pm(found['episode_length'])} steps"
    failed = found["failed_episodes"]
    return lines | {
        "Measured on": f"{found['report_episodes']} episodes {on}, ± standard error"
        + (f"; {failed} of them failed" if failed else "")
    }


def costs(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the lines that say what an architecture costs: weights and bits, both."""
    weights = f"{found['weights']:,} distinct weight{'s' * (found['weights'] != 1)}"
    apart = f"biases: {found['biases']:,}"
    if numbers := found.get("normalizer_numbers"):  # results of before have none
        apart += f", numbers that normalise observations: {numbers:,}"
    lines = {
        "Edges": f"{found['edges']:,} of {found['possible_edges']:,}, {weights}; {apart}",
        "Multiplications": f"{found['multiplications']:,} of weights and activations, to act once",
        "Bits": f"{found['bits']:,} of weights and structure, {found['entropy_bits']:,.0f} when "
        "the structure is entropy-coded",
    }
    for name, other in found["compression"].items():
        lines[f"{name.capitalize()}, same layers"] = (
            f"{other['weights']:,} weights, {_times(other['times_weights'])}; "
            f"{other['bits']:,} bits, {_times(other['times_bits'])}"
        )
    return lines


def _front(found: Mapping[str, Any]) -> str:
    """Return the table of a front, "" where there is none."""
    points = found.get("front")
    if not points:
        return ""
    cost, measure = found["front_cost"], _reported(points[0])[0]
    each = (
        f"{points[0]['report_examples']} examples that neither trained nor selected"
        if _examined(points[0])
        else f"{points[0]['report_episodes']} episodes each on untouched seeds"
    )
    lines = [
        f"\nThe front, under the final weights; {each}, ± standard error",
        f"{cost:>15s}  {_words(measure):15s}  in front/",
    ]
    for k, point in enumerate(points):
        line = f"{point[cost]:>15,.0f}  {_pm(point[measure]):15s}  {k}.npz"
        lines.append(line + ", dominated by another" * point["dominated"])
    return "\n".join(lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _times(factor: float) -> str:
    return f"{factor:.3g} times as many"


def table(lines: Mapping[str, str]) -> str:
    """Return lines with their names in a column."""
    return "\n".join(f"{name:27s} {value}" for name, value in lines.items())


def _mean(per_episode: ArrayLike) -> dict[str, float]:
    values = np.asarray(per_episode)
    error = values.std(ddof=1) / np.sqrt(values.size)
    return {"mean": float(values.mean()), "standard_error": float(error)}


def _pm(value: Mapping[str, float | None]) -> str:
    mean, error = value["mean"], value["standard_error"]
    if mean is None or error is None:
        return "not finite"
    return f"{digits(mean)} ± {digits(error, 2)}"
