"""Train one run.

    python -m experiments.train --config=experiments/configs/quickstart.py --workdir=runs/quickstart

Any field of the config can be overridden, `--config.strategy.noise_std=0.05` say; a config's short
variant stands behind a colon, `--config=experiments/configs/quickstart.py:smoke`. All side effects
of a run are here: the library computes, and this file reads, prints, times and writes.
"""

import difflib
import json
import os
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from numpy.typing import ArrayLike

from esenas_jax import _checks
from esenas_jax.answer import Answer, choose_answer
from esenas_jax.search import Metrics, Search, SearchState
from experiments.build import ConfigError, build, describe
from experiments.policy_file import save_policy
from experiments.progress import Progress
from experiments.report import draw_network, learning_curve
from experiments.workdir import Workdir, WorkdirError, finite, provenance

MAX_DISCARDED = 3  # generations in a row

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config file, see experiments/configs."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder that the run writes to.")


class RunError(Exception):
    """A run that cannot go on, in one sentence."""


def train(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Carry out a run and return its result, as written to `result.json`."""
    finished = workdir.finished(config)
    if finished is not None:
        print(f"The run in {workdir.path} is finished. Remove that folder to train it again.")
        return finished
    try:
        generations = _checks.integer("generations", config.generations, 1)
        episodes = _checks.integer("answer_episodes", config.answer_episodes, 2)
        run_key = jax.random.key(_checks.integer("seed", config.seed, 0, 2**32 - 1))
        search = build(config)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    origin = provenance()
    workdir.write("config.json", config.to_dict())
    workdir.write("provenance.json", origin)
    print(f"{describe(config)} on {origin['device_count']} x {origin['device']}:")
    print(
        f"{search.num_candidates} candidates a generation, {search.policy.num_params} parameters, "
        f"architectures from {search.policy.space}."
    )

    state, step, compiled = _compile(search, run_key)
    started = time.perf_counter()
    state, first, last = _generations(workdir, run_key, state, step, generations)
    ran = time.perf_counter() - started

    print(
        f"Choosing the answer, then measuring it on untouched seeds, {episodes} episodes each; "
        "the program for that is compiled first."
    )
    found = jax.device_get(choose_answer(search, run_key, state, episodes))
    seconds = {"compile": compiled, "run": ran, "answer": time.perf_counter() - started - ran}
    result = _result(search, found, first, last) | {"seconds": seconds}
    save_policy(workdir.path / "policy.npz", search, config, found.chosen)
    workdir.write("provenance.json", {**origin, "seconds": seconds})
    workdir.write("result.json", result)
    _pictures(workdir, search, found, describe(config))
    return workdir.read("result.json")


def _generations(
    workdir: Workdir, run_key: jax.Array, state: SearchState, step: Any, generations: int
) -> tuple[SearchState, dict[str, Any], dict[str, Any]]:
    """Carry out all generations; return the last state and the first and last lines of metrics."""
    first, row = None, {"env_steps": 0, "episodes": 0}
    started = time.perf_counter()
    with workdir.metrics() as lines, _events(workdir) as events, Progress(generations) as progress:
        for _ in range(generations):
            state, metrics = step(run_key, state)
            row = _row(jax.device_get(metrics), row, time.perf_counter() - started)
            first = first or row
            lines.write(json.dumps(row) + "\n")
            for name, value in row.items():
                if value is not None and name != "generation":
                    events.add_scalar(name, value, row["generation"])
            progress.update(row)
            if row["discarded"] >= MAX_DISCARDED:
                why = (
                    f"the scores of {row['failed']} candidates were not finite"
                    if row["failed"]
                    else "all scores were finite, but the update of the weights was not"
                )
                raise RunError(
                    f"{MAX_DISCARDED} generations in a row were discarded; in the last, {why}."
                )
    assert first is not None
    return state, first, row


def summary(result: dict[str, Any], workdir: Workdir) -> str:
    """Return the last lines of a run: what was found, and where to look at it."""
    lines = {"Return": _pm(result["return"])}
    if result["return"] != result["return_without_bonus"]:
        before = result["first_return_without_bonus"]
        lines |= {
            "Return without alive bonus": _pm(result["return_without_bonus"])
            + ("" if before is None else f" (first generation {before:.4g})"),
        }
    if result["episode_length"]["mean"]:
        lines["Episode length"] = f"{_pm(result['episode_length'])} steps"
    lines |= {
        "Measured on": f"{result['report_episodes']} episodes on untouched seeds, ± standard error",
        "Edges": f"{result['edges']} of {result['possible_edges']}, "
        f"{result['weights']} distinct weights",
        "Pictures": f"{workdir.path / 'report'}: curve.png, network.png",
    }
    return "\n".join(f"{name:27s} {value}" for name, value in lines.items())


def _compile(search: Search, run_key: jax.Array) -> tuple[Any, Any, float]:
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    later = f"later starts find it in {cache}" if cache else "the compilation cache is off"
    print(f"Compiling a generation. A Brax program takes about 20 s; {later}.")
    started = time.perf_counter()
    state = jax.jit(search.init)(run_key)
    step = jax.jit(search.step).lower(run_key, state).compile()
    seconds = time.perf_counter() - started
    print(f"Compiled in {seconds:.1f} s.")
    return state, step, seconds


def _row(metrics: Metrics, before: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return a generation's line of metrics.jsonl; its totals are Python integers: always exact."""
    values = metrics._asdict()
    row = {
        "generation": values.pop("generation"),
        "env_steps": before["env_steps"] + int(values.pop("steps")),
        "episodes": before["episodes"] + int(values.pop("episodes")),
    }
    learners = values.pop("strategy")
    learners |= {f"controller_{k}": v for k, v in values.pop("controller").items()}
    return finite({**row, **values, **learners, "seconds": round(seconds, 3)})


def _result(
    search: Search, found: Answer, first: dict[str, Any], last: dict[str, Any]
) -> dict[str, Any]:
    report = found.report
    return {
        "return": _mean(report.episode_return),
        "return_without_bonus": _mean(report.return_without_bonus),
        "episode_length": _mean(report.episode_length),
        "report_episodes": int(report.episode_return.size),
        "failed_episodes": int(report.failed.sum()),
        "first_return_without_bonus": first["return_without_bonus"],
        "edges": int(found.cost.edges),
        "possible_edges": search.policy.max_edges,
        "weights": int(found.cost.weights),
        "generations": last["generation"] + 1,
        "env_steps": last["env_steps"],
        "episodes": last["episodes"],
    }


def _mean(per_episode: ArrayLike) -> dict[str, float]:
    values = np.asarray(per_episode)
    error = values.std(ddof=1) / np.sqrt(values.size)
    return {"mean": float(values.mean()), "standard_error": float(error)}


def _pm(value: dict[str, float | None]) -> str:
    if value["mean"] is None:
        return "not finite"
    return f"{value['mean']:.4g} ± {value['standard_error']:.2g}"


def _pictures(workdir: Workdir, search: Search, found: Answer, title: str) -> None:
    learning_curve(workdir.rows(), workdir.path / "report" / "curve.png", title=title)
    if search.policy.matrices is None:
        return
    bound = search.policy.bind(found.chosen.params, found.chosen.genotype)
    matrices = [np.asarray(w) for w in search.policy.matrices(bound)]
    draw_network(matrices, workdir.path / "report" / "network.png", title=title)


def _events(workdir: Workdir) -> Any:
    from tensorboardX import SummaryWriter

    for old in workdir.path.glob("events.out.tfevents.*"):
        old.unlink()
    return SummaryWriter(logdir=str(workdir.path))


def configure_jax() -> None:
    """Make every platform multiply in float32, and keep compiled programs in the user's cache.

    TF32, the default of recent GPUs, changes what is learnt. JAX_DEFAULT_MATMUL_PRECISION and
    JAX_COMPILATION_CACHE_DIR are obeyed where they are set.
    """
    if "JAX_DEFAULT_MATMUL_PRECISION" not in os.environ:
        jax.config.update("jax_default_matmul_precision", "highest")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "esenas_jax" / "jax"))


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}.")
    logging.set_verbosity(logging.WARNING)  # JAX tells at length which devices it did not find
    configure_jax()
    try:
        workdir = Workdir(str(_WORKDIR.value))
        result = train(_CONFIG.value, workdir)
    except (ConfigError, RunError, WorkdirError) as error:
        sys.exit(f"error: {error}")
    print(summary(result, workdir))


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; a config or field that does not exist ends in one sentence."""
    words = [argument.lstrip("-") if argument.startswith("-") else "" for argument in argv]
    fields = [w.partition("=")[0].removeprefix("config.") for w in words if w.startswith("config.")]
    # absl takes --config=FILE as well as --config FILE.
    files = [w.partition("=")[2] for w in words if w.startswith("config=")]
    files += [argv[i + 1] for i, w in enumerate(words[:-1]) if w == "config"]
    if files:
        known = [name for name, _ in _leaves(load_config(files[-1]).to_dict())]
        for field in fields:
            if field not in known:
                near = difflib.get_close_matches(field, known, n=1, cutoff=0.0)[0]
                sys.exit(f"error: the config has no field {field}; the nearest is {near}.")
    return app.parse_flags_with_usage(argv)


def load_config(file: str) -> ConfigDict:
    """Return the config "FILE" or "FILE:VARIANT", without overrides; exit if it cannot be had."""
    path, _, name = file.partition(":")
    try:
        return runpy.run_path(path)["get_config"](name or None)
    except KeyError:
        sys.exit(f"error: cannot load the config {file}: it defines no get_config.")
    except (OSError, ValueError) as error:
        sys.exit(f"error: cannot load the config {file}: {error}")


def _leaves(section: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
