"""What a run has found, in numbers and in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from esenas_jax.answer import Answer
from esenas_jax.search import Search
from esenas_jax.types import Evaluation


def worth(report: Evaluation) -> dict[str, Any]:
    """Return what episodes [n] say of a policy: means, and their standard errors."""
    return {
        "return": _mean(report.episode_return),
        "return_without_bonus": _mean(report.return_without_bonus),
        "episode_length": _mean(report.episode_length),
        "report_episodes": int(report.episode_return.size),
        "failed_episodes": int(report.failed.sum()),
    }


def result(
    search: Search, found: Answer, first: Mapping[str, Any], last: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of `result.json`, given the first and last rows of metrics."""
    return worth(found.report) | {
        "first_return_without_bonus": first["return_without_bonus"],
        "edges": int(found.cost.edges),
        "possible_edges": search.policy.max_edges,
        "weights": int(found.cost.weights),
        "generations": last["generation"] + 1,
        "env_steps": last["env_steps"],
        "episodes": last["episodes"],
    }


def measured(found: Mapping[str, Any], on: str) -> dict[str, str]:
    """Return the lines that say what a policy is worth."""
    lines = {"Return": _pm(found["return"])}
    if found["return"] != found["return_without_bonus"]:
        before = found.get("first_return_without_bonus")
        lines |= {
            "Return without alive bonus": _pm(found["return_without_bonus"])
            + ("" if before is None else f" (first generation {before:.4g})"),
        }
    if found["episode_length"]["mean"]:
        lines["Episode length"] = f"{_pm(found['episode_length'])} steps"
    failed = found["failed_episodes"]
    return lines | {
        "Measured on": f"{found['report_episodes']} episodes {on}, ± standard error"
        + (f"; {failed} of them failed" if failed else "")
    }


def table(lines: Mapping[str, str]) -> str:
    """Return lines with their names in a column."""
    return "\n".join(f"{name:27s} {value}" for name, value in lines.items())


def _mean(per_episode: ArrayLike) -> dict[str, float]:
    values = np.asarray(per_episode)
    error = values.std(ddof=1) / np.sqrt(values.size)
    return {"mean": float(values.mean()), "standard_error": float(error)}


def _pm(value: Mapping[str, float | None]) -> str:
    if value["mean"] is None:
        return "not finite"
    return f"{value['mean']:.4g} ± {value['standard_error']:.2g}"
