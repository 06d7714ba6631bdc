"""What a user gets wrong, and the one sentence that each gets for it.

A row is what is wrong, and the sentence: a regular expression that must match all of it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from esenas_jax import tasks
from experiments import build, evaluate, train
from experiments.checkpoints import CheckpointError, Checkpoints
from experiments.command_line import RunError, load_config
from experiments.metrics_log import read_rows
from experiments.workdir import Workdir, WorkdirError
from tests.support.shared_programs import shared_programs

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "tests" / "pendulum_config.py"
REGRESSION = ROOT / "experiments" / "configs" / "regression_ars.py"
ONE_SENTENCE = (
    build.ConfigError, WorkdirError, CheckpointError, RunError,
)  # fmt: skip  # what the commands print as "error: ...", without a traceback


def tiny(policy: str = "edges", **changes) -> ConfigDict:
    """A run of a second: 11 candidates of 16 steps."""
    config = load_config(f"{CONFIG}:{policy},es,es")
    config.task.horizon = 16
    config.strategy.update({"num_directions": 4, "num_exact": 3})
    config.controller.population_size = 8
    config.population.lanes = 8
    config.update({"generations": 4, "checkpoint_every": 1, **changes})
    return config


# --- on the command line: arguments, error --------------------------------------------------------

COMMAND = {
    "a word for a section": (
        ["--config.policy=dense"],
        "policy is a section of the config: set one of policy.*, or start from another .*",
    ),
    "unknown field": (
        ["--config.strategy.noise_stdd=1"],
        "the config has no field strategy.noise_stdd; the nearest is strategy.noise_std.",
    ),
    "a word for an integer": (["--config.seed=abc"], "seed must be an integer, got 'abc'."),
    "a fraction for an integer": (
        ["--config.generations=1.5"],
        "generations must be an integer, got '1.5'.",
    ),
    "None for an integer": (
        ["--config.generations=None"],
        "generations must be an integer, got None.",
    ),
    "a word for a number": (
        ["--config.strategy.noise_std=x"],
        "strategy.noise_std must be a number, got 'x'.",
    ),
    "a word for a flag": (
        ["--config.deterministic=maybe"],
        "deterministic must be true or false, got 'maybe'.",
    ),
    "more devices than there are": (
        ["--config.devices=9"],
        r"population: devices must be in \[1, 8\], got 9; to split the CPU into 9, add .*",
    ),
    "a sweep of words": (
        ["--config.sweep.strategy.noise_std=[a,b]"],
        r"sweep.strategy.noise_std must be a list of numbers, \[0.1,0.2\] say, got '\[a,b\]'.",
    ),
    "a sweep of nothing named": (
        ["--config.sweep=[0.1,0.2]"],
        r"a sweep names what it varies, --config.sweep.strategy.noise_std=\[0.1,0.2\].",
    ),
    "a sweep in two words": (
        ["--config.sweep.strategy.noise_std", "[0.1,-0.2]"],
        "strategy: noise_std must be a positive finite number, got -0.2.",
    ),
    "a sweep inside a sweep": (
        ["--config.sweep.strategy.noise_std=[1]", "--config.sweep.strategy.noise_std.x=[1]"],
        r"sweep.strategy.noise_std must be a list of numbers, got fields of its own: x.",
    ),
    "a sweep over something static": (
        ["--config.sweep.strategy.num_directions=[4,8]"],
        (
            "sweep can vary strategy.noise_std, strategy.step_size, objective.shift_per_step, got "
            "strategy.num_directions: the rest is fixed when the program is compiled, .*"
        ),
    ),
    "a sweep over what is not there": (
        ["--config.sweep.nothing=[1,2]"],
        "sweep can vary strategy.noise_std, .*, got nothing: the rest is fixed .*",
    ),
    "a process without its coordinator": (
        ["--process_id=1"],
        "--process_id needs --coordinator=HOST:PORT, got None.",
    ),
    "unknown flag": (["--nope=3"], r"Unknown command line flag 'nope' \(--help lists the flags\)."),
    "unknown way to resume": (
        ["--resume=maybe"],
        r"flag --resume=maybe: value should be one of <auto\|never\|must> \(--help .*",
    ),
    "stray argument": (["extra"], "unexpected arguments extra."),
    "no workdir": (["--workdir="], "the workdir must have a name, got ''."),
    "no config": (
        ["--config="],
        "cannot load the config : there is no file ''.",
    ),
    "no such config": (
        ["--config=nowhere.py"],
        "cannot load the config nowhere.py: there is no file 'nowhere.py'.",
    ),
    "no such config, in two words": (
        ["--config", "config.none.py"],
        "cannot load the config config.none.py: there is no file 'config.none.py'.",
    ),
    "a file that is no config": (
        [f"--config={ROOT / 'experiments' / 'build.py'}"],
        "cannot load the config .*build.py: it defines no get_config.",
    ),
    "a file that is no Python": (
        [f"--config={ROOT / 'README.md'}"],
        "cannot load the config .*README.md: it must be a Python file that defines get_config.",
    ),
    "the config of a finished run": (
        [f"--config={ROOT / 'benchmarks' / 'results' / 'cpu' / 'cores.json'}"],
        "cannot load the config .*json: it must be a Python file that defines get_config.",
    ),
    "two numbers that are one in float32": (
        ["--config.sweep.strategy.noise_std=[0.1,0.10000000001]"],
        r"sweep.strategy.noise_std must be different numbers in float32, got \[0.1, 0.1\d+\].",
    ),
    "unknown variant": (
        [f"--config={REGRESSION}:decay,smokeest"],
        "cannot load the config .*: a config's variant must be smoke, got 'smokeest'.",
    ),
    "workdir in a file": (
        [f"--workdir={REGRESSION}/x"],
        "cannot write the workdir .*: Not a directory.",
    ),
    "workdir where nobody may write": (
        ["--workdir=/sys/esenas"],
        "cannot write the workdir /sys/esenas: (Permission denied|.* not permitted|Read-only .*).",
    ),
    "must resume, from nothing": (
        ["--resume=must"],
        ".*/run holds no checkpoint to go on from, and --resume=must.",
    ),
}


# A process that imports what the command imports, and forks once for each: importing takes longer
# than all else that a refused command does.
FORKS = """
import gc, json, os, runpy, sys
import experiments.evaluate, experiments.profiling, experiments.record
gc.freeze()
for name, arguments in json.load(sys.stdin).items():
    child = os.fork()
    if child == 0:
        for stream, kind in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{sys.argv[1]}/{name}.{kind}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ["experiments.train", *arguments]
        runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([name, code]), flush=True)
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> dict[str, list[str]]:
    """What each command gets: its own words, and a config and a workdir where it names none."""
    folder = tmp_path_factory.mktemp("commands")

    def given(name: str) -> list[str]:
        own = COMMAND[name][0]
        named = {word.partition("=")[0] for word in own}
        usual = {"--config": CONFIG, "--workdir": folder / name / "run"}
        return [f"{flag}={value}" for flag, value in usual.items() if flag not in named] + own

    return {name: given(name) for name in COMMAND}


@pytest.fixture(scope="module")
def commands(arguments, tmp_path_factory) -> dict[str, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("streams")
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(folder)],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=300,
        input=json.dumps(arguments),
    )  # fmt: skip
    codes = dict(json.loads(line) for line in done.stdout.splitlines())
    return {
        name: subprocess.CompletedProcess(
            arguments[name],
            codes[name],
            (folder / f"{name}.out").read_text(),
            (folder / f"{name}.err").read_text(),
        )
        for name in COMMAND
    }


@pytest.mark.parametrize("name", COMMAND)
def test_a_wrong_command_ends_in_one_sentence(name, commands):
    done = commands[name]
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(f"error: {COMMAND[name][1]}", line), line
    assert done.returncode == 1
    assert "Compiling" not in done.stdout


def test_a_forked_command_ends_as_one_that_was_started_alone(arguments, commands):
    name = "more devices than there are"
    alone = subprocess.run(
        [sys.executable, "-m", "experiments.train", *arguments[name]],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    forked = commands[name]
    for field in ("returncode", "stdout", "stderr"):
        assert getattr(alone, field) == getattr(forked, field)


ABSENT = """
import jax
from experiments.command_line import DeviceError, find_devices
for name in ("cuda", "tpu,cpu"):
    jax.config.update("jax_platforms", name)
    try:
        find_devices()
    except DeviceError as error:
        print(error)
"""


def test_a_backend_that_is_named_and_absent_is_one_sentence():
    """Without a visible GPU, and without JAX's packages for TPUs."""
    done = subprocess.run(
        [sys.executable, "-c", ABSENT],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=120,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    wanted = (
        r"JAX_PLATFORMS={} asks for a backend that does not start here \(.+\): mend that, install "
        r"JAX for it if it is missing \(make train EXTRAS=cuda12, cuda13 or tpu\), or unset "
        r"JAX_PLATFORMS\."
    )
    lines = done.stdout.splitlines()
    for name, line in zip(("cuda", "tpu,cpu"), lines, strict=True):
        assert re.fullmatch(wanted.format(name), line), line


# --- a config: field, value, sentence -------------------------------------------------------------

CONFIGS = {
    "unknown policy": (
        "policy.name", "nope",
        "policy.name must be one of boolean_mask, circulant, dense, edge_pruned, .*, got 'nope'.",
    ),
    "unknown strategy": (
        "strategy.name", "sgd", "strategy.name must be one of ars, es, got 'sgd'.",
    ),
    "unknown controller": (
        "controller.name", "x",
        "controller.name must be one of constant, .*, regularized_evolution, reinforce, got 'x'.",
    ),
    "unknown task": (
        "task.name", "x", "task.name must be one of digits, environment, regression, got 'x'.",
    ),
    "name alone": (
        "controller.name", "random",
        ("controller random takes num_best, but the config has .*: a section's name cannot be "
        "overridden alone, start from another config file."),
    ),
    "no section": ("policy", 3, "policy must be a section with a name, got 3."),
    "unknown environment": (
        "task.environment", "hoppr",
        "task: environment must be one of pendulum, mountain_car, ant, .*walker2d, got 'hoppr'.",
    ),
    "unknown normalizer": (
        "task.normalizer", "x", "task: normalizer must be one of ars, es, none, got 'x'.",
    ),
    "backend of pendulum": (
        "task.backend", "spring", "task: backend must be None for pendulum, got 'spring'.",
    ),
    "no steps": ("task.horizon", 0, "task: horizon must be at least 1, got 0."),
    "no episodes": ("task.episodes", 0, "task: episodes must be at least 1, got 0."),
    "held past the horizon": (
        "task.action_repeat", 5, "task: horizon must be a multiple of action_repeat 5, got 16.",
    ),
    "too many steps": (
        "task.horizon", 2**30,
        (r"search: a generation must have fewer than 2\^31 environment steps, got 11811160064: 11 "
        "candidates of 1 episodes of 1073741824."),
    ),
    "too many edges": (
        "policy.num_edges", 33, r"policy: num_edges must be in \[1, 32\], got 33.",
    ),
    "no edges": ("policy.num_edges", 0, r"policy: num_edges must be in \[1, 32\], got 0."),
    "layer of no units": (
        "policy.hidden", (0,), "policy: a hidden layer's size must be at least 1, got 0.",
    ),
    "unknown activation": (
        "policy.hidden_activation", "x",
        "policy.hidden_activation must be one of identity, relu, sigmoid, swish, tanh, got 'x'.",
    ),
    "no directions": (
        "strategy.num_directions", 0, "strategy: num_directions must be at least 1, got 0.",
    ),
    "exact evaluations below none": (
        "strategy.num_exact", -1, "strategy: num_exact must be at least 0, got -1.",
    ),
    "more elites than directions": (
        "strategy.num_elites", 5, r"strategy: num_elites must be in \[1, 4\], got 5.",
    ),
    "no noise": (
        "strategy.noise_std", 0.0, "strategy: noise_std must be a positive finite number, got 0.0.",
    ),
    "noise that float32 does not know": (
        "strategy.noise_std", 1e-50,
        "strategy: noise_std must be a positive finite number, got 1e-50.",
    ),
    "a step that is no number": (
        "strategy.step_size", float("nan"), "strategy: step_size must be finite, got nan.",
    ),
    "unknown optimiser": (
        "strategy.optimizer", "x", "strategy.optimizer must be one of adabelief, .*, got 'x'.",
    ),
    "unknown shaping": (
        "strategy.shaping", "x",
        "strategy.shaping must be one of centered_ranks, raw, z_score, got 'x'.",
    ),
    "tournament": (
        "controller.tournament_size", 9,
        r"controller: tournament_size must be in \[2, 8\], got 9.",
    ),
    "a controller of two objectives": (
        "controller", build.section("controller", "nsga2"),
        ("search: the controller must maximise as many numbers as the objective gives it, 1, got "
        "one that maximises 2."),
    ),
    "incumbents alone": (
        "controller", build.section("controller", "hill_climbing", num_incumbents=11),
        ("search: num_incumbents must be fewer than the 11 architectures of a generation, got 11: "
        "none would be new."),
    ),
    "an objective of two": (
        "objective", build.section("objective", "pareto"),
        ("search: the controller must maximise as many numbers as the objective gives it, 2, got "
        "one that maximises 1."),
    ),
    "unknown cost": (
        "objective", build.section("objective", "hard_limit", limit=9, cost="size"),
        "objective: cost must be one of edges, multiplications, weights, .*, got 'size'.",
    ),
    "infinite shift": (
        "objective.shift_per_step", float("inf"),
        "objective: shift_per_step must be finite, got inf.",
    ),
    "unknown start": (
        "search.starts", "x",
        "search.starts must be one of candidate, fixed, generation, pair, got 'x'.",
    ),
    "share above one": (
        "search.max_failed", 1.5, r"search: max_failed must be in \[0, 1\], got 1.5.",
    ),
    "never proposed": (
        "search.propose_every", 0, "search: propose_every must be at least 1, got 0.",
    ),
    "lanes": ("population.lanes", 0, "population: lanes must be at least 1, got 0."),
    "no seeds": ("seeds", 0, r"seeds must be in \[1, 1048576\], got 0."),
    "something else shared out": (
        "devices_share", "x", "devices_share must be one of candidates, runs, learners, got 'x'.",
    ),
    "runs that cannot be shared out": (
        "devices", 2, "devices that share out runs must divide their number, 3, got 2.",
    ),
    "runs shared out among whatever there is": (
        "devices", None,
        "devices must be given with devices_share runs: results depend on their number, .*",
    ),
    "no shards": ("virtual_shards", 0, "virtual_shards must be at least 1, got 0."),
    "a negative number in a sweep": (
        "sweep", {"strategy": {"noise_std": [0.1, -1.0]}},
        "strategy: noise_std must be a positive finite number, got -1.0.",
    ),
    "a number twice in a sweep": (
        "sweep", {"strategy": {"noise_std": [0.1, 0.1]}},
        r"sweep.strategy.noise_std must be different numbers in float32, got \[0.1, 0.1\].",
    ),
    "an empty sweep": (
        "sweep", {"objective": {"shift_per_step": []}},
        r"sweep.objective.shift_per_step must be different numbers in float32, got \[\].",
    ),
    "devices that do not divide": (
        "virtual_shards", 3,
        "population: virtual_shards must be None or a multiple of devices, 2, got 3.",
    ),
    "more shards than candidates": (
        "virtual_shards", 12,
        "search: a generation of 11 candidates can be cut into at most as many shards .*, got 12.",
    ),
    "a population that is none": (
        "devices_share", "learners",
        "devices_share learners needs a population of learners, got learners alone.",
    ),
    "a rule for one alone": (
        "rule", build.section("rule", "culling"),
        "learners: rule must be none with learners alone, got one that needs 2 or more.",
    ),
    "a second rule without a first": (
        "second_rule", build.section("rule", "culling"),
        "second_rule must be none without a rule before it, got culling.",
    ),
    "a population of none": (
        "learners", build.section("learners", "population", number=0),
        "learners: number must be at least 1, got 0.",
    ),
    "no lags": (
        "learners", build.section("learners", "asynchronous", lags=()),
        "learners: lags must be of at least one worker, got none.",
    ),
    "a rule without a temperature": (
        "rule", build.section("rule", "annealing", temperature=0.0),
        "rule: temperature must be a positive finite number, got 0.0.",
    ),
    "an unknown rule": (
        "rule.name", "x",
        "rule.name must be one of annealing, apart, culling, none, swarm, tabu, got 'x'.",
    ),
    "a mini-batch of more images than there are": (
        "task", {"name": "digits", "split_seed": 0, "batch_size": 5000},
        "task: batch_size must be at most the 1259 examples to train on, got 5000.",
    ),
    "a split that there is not": (
        "task", {"name": "digits", "split_seed": -1, "batch_size": 32},
        "task: split_seed must be at least 0, got -1.",
    ),
    "generations": ("generations", 0, r"generations must be in \[1, 2147483647\], got 0."),
    "answer": ("answer_episodes", 1, "answer_episodes must be at least 2, got 1."),
    "checkpoints": ("checkpoint_every", 0, "checkpoint_every must be at least 1, got 0."),
    "seed": ("seed", -1, r"seed must be in \[0, 4294967295\], got -1."),
}  # fmt: skip


def no_compile(*arguments):
    raise AssertionError("it was compiled")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrong_config_is_refused_before_any_compile_and_leaves_the_folder_free(
    name, tmp_path, monkeypatch
):
    field, value, sentence = CONFIGS[name]
    monkeypatch.setattr(train.Run, "_compile", no_compile)
    config = tiny()
    if value == "learners" or (field == "virtual_shards" and value):
        config.devices = 2
    if "shared" in name:
        config.update({"seeds": 3, "devices_share": "runs", "devices": 1})
    section, _, last = field.rpartition(".")
    with config.ignore_type():
        (config[section] if section else config)[last] = value
    with pytest.raises(build.ConfigError) as refused:
        train.train(config, Workdir(tmp_path))
    assert re.fullmatch(sentence, str(refused.value)), refused.value
    assert not (tmp_path / "config.json").exists()


def test_a_field_that_is_missing_is_named(tmp_path):
    config = tiny().to_dict()
    del config["population"]
    with pytest.raises(build.ConfigError, match=r"^the config has no population\.$"):
        build.build(config)


# --- a workdir: what is done to a good one, what is run on it, sentence ---------------------------


def small() -> ConfigDict:
    """A run whose generation compiles in a second."""
    config = tiny()
    config.task = build.section("task", "regression", batch_size=8)
    config.policy = build.section("policy", "dense", hidden=())
    config.controller = build.section("controller", "constant")
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train.train(small(), Workdir(folder))
    return folder


def again(folder: Path) -> None:
    train.train(small(), Workdir(folder))


def measure(folder: Path) -> None:
    evaluate.evaluate(Workdir(folder), episodes=4)


def unfinish(folder: Path) -> None:
    (folder / "result.json").unlink()


def replace(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content)


def change_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["strategy"]["noise_std"], config["seed"] = 0.3, 7
    (folder / "config.json").write_text(json.dumps(config))


def without_sections(folder: Path) -> None:
    (folder / "config.json").write_text('{"seed": 1, "generations": 2}')


def no_checkpoints(folder: Path) -> None:
    unfinish(folder)
    shutil.rmtree(folder / "checkpoints")


def checkpoints_in_a_file(folder: Path) -> None:
    no_checkpoints(folder)
    (folder / "checkpoints").write_text("")


def no_metrics(folder: Path) -> None:
    unfinish(folder)
    (folder / "metrics.jsonl").unlink()


def config_in_a_folder(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


def only_checkpoints(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("events."):
            path.unlink()


def lock_in_a_folder(folder: Path) -> None:
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()


def other_version(folder: Path) -> None:
    unfinish(folder)
    about = folder / "checkpoints" / "4" / "about" / "metadata"
    content = json.loads(about.read_text()) | {"format": 0, "esenas_jax": "0.0.9"}
    about.write_text(json.dumps(content))


WORKDIRS = {
    "of another config": (
        change_config, again,
        ("{folder} holds a run of another config .seed was 7, is 0; strategy.noise_std was 0.3, is "
        "0.1.: choose another --workdir, or remove that folder."),
    ),
    "config that is no JSON": (
        replace("config.json", "{"), again, "cannot read {folder}/config.json: .*",
    ),
    "config that is a list": (
        replace("config.json", "[]"), again, "{folder}/config.json must hold a JSON object.",
    ),
    "results without a config": (
        lambda folder: (folder / "config.json").unlink(), again,
        "{folder} holds result.json of a run, but no config.json: choose another .* that folder.",
    ),
    "checkpoints without a config": (
        only_checkpoints, again,
        "{folder} holds checkpoints/. of a run, but no config.json: choose another .*",
    ),
    "result that is none": (
        replace("result.json", '{"a": 1}'), again, "{folder}/result.json is no result of a run.",
    ),
    "a lock that is a folder": (
        lock_in_a_folder, again, "cannot write the workdir {folder}: Is a directory.",
    ),
    "metrics that are none": (
        lambda folder: (unfinish(folder), replace("metrics.jsonl", "[]\n3\n[]\n[]\n")(folder)),
        again,
        "{folder}/metrics.jsonl does not hold the 4 generations before the checkpoint: .*",
    ),
    "config that is a folder": (
        config_in_a_folder, again, "cannot read {folder}/config.json: .*Is a directory.*",
    ),
    "result that is no JSON": (
        replace("result.json", "{"), again, "cannot read {folder}/result.json: .*",
    ),
    "metrics missing": (
        no_metrics, again,
        ("{folder}/metrics.jsonl does not hold the 4 generations before the checkpoint: remove "
        "{folder} to start over."),
    ),
    "checkpoint of another version": (
        other_version, again,
        ("the checkpoint {folder}/checkpoints/4 was written by esenas_jax 0.0.9 in another form "
        ".format 0. than this one, 0.1.0 .format 2., reads: go on with the version that wrote it, "
        "or start over in another --workdir."),
    ),
    "checkpoints that are a file": (
        checkpoints_in_a_file, again, "{folder}/checkpoints must be a folder, of checkpoints.",
    ),
    "nothing to evaluate": (
        shutil.rmtree, measure, "{folder} is no workdir of a run: config.json is missing.",
    ),
    "a config of nothing to evaluate": (
        without_sections, measure,
        "the config has no answer_episodes, checkpoint_every, controller, .*, task.",
    ),
    "no checkpoint to evaluate yet": (
        no_checkpoints, measure,
        "{folder} has no checkpoint yet: there is nothing to evaluate.",
    ),
    "a policy that is none": (
        replace("policy.npz", "x"), measure,
        "cannot use the policy of a finished run: {folder}/policy.npz holds no policy: .*",
    ),
    "no policy": (
        lambda folder: (folder / "policy.npz").unlink(), measure,
        "cannot use the policy of a finished run: .*No such file or directory.*policy.npz.*",
    ),
    "one episode": (
        lambda folder: None,
        lambda folder: evaluate.evaluate(Workdir(folder), episodes=1),
        "episodes must be at least 2, got 1.",
    ),
    "a seed below none": (
        lambda folder: None,
        lambda folder: evaluate.evaluate(Workdir(folder), seed=-1),
        r"seed must be in \[0, 4294967295\], got -1.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKDIRS)
def test_a_wrong_workdir_is_refused_before_any_compile_and_keeps_what_it_has(
    name, finished, tmp_path, monkeypatch
):
    spoil, use, sentence = WORKDIRS[name]
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    spoil(folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(train.Run, "_compile", no_compile)
    with pytest.raises(ONE_SENTENCE) as refused:
        use(folder)
    wanted = sentence.replace("{folder}", re.escape(str(folder)))
    assert re.fullmatch(wanted, str(refused.value)), refused.value
    kept = {p: p.read_bytes() for p in before if p.exists() and p.name != "provenance.json"}
    assert kept == {p: b for p, b in before.items() if p.name != "provenance.json"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere but in /sys: see above")
def test_a_folder_without_permission_is_refused(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    folder.chmod(0o500)
    with pytest.raises(WorkdirError, match=r"cannot write the workdir .*: Permission denied"):
        again(folder)


# --- a task: evaluate, sentence -------------------------------------------------------------------


def score(network, apply):
    return apply(network, jnp.ones(2))[0]


def nan(key, network, apply):
    return tasks.single_score(score(network, apply) * jnp.nan)


def raises(key, network, apply):
    raise ZeroDivisionError("there is no such world.")


def raises_later(key, network, apply):
    """On the host, in the compiled program."""

    def call(x):
        raise ConnectionError("the simulator has gone.")

    return tasks.single_score(
        jax.pure_callback(call, jnp.float32(0), score(network, apply), vmap_method="sequential")
    )


def no_evaluation(key, network, apply):
    return score(network, apply)


def grows(key, network, apply):
    """Gets better, and breaks when it is good: an output above 2 is no number."""
    value = score(network, apply)
    return tasks.single_score(jnp.where(value > 2.0, jnp.nan, value))


TASKS = {
    "that returns NaN": (
        nan,
        ("3 generations in a row were discarded; in the last, the scores of 11 candidates were not "
        "finite. The checkpoint of generation 0 is from before them."),
    ),
    "that raises": (
        raises,
        ("compiling a generation failed with ZeroDivisionError: there is no such world .see "
        "{folder}/traceback.txt.."),
    ),
    "that raises while it runs": (
        raises_later,
        ("generation 0 failed with ConnectionError: the simulator has gone .see "
        "{folder}/traceback.txt.."),
    ),
    "that returns no Evaluation": (
        no_evaluation,
        "compiling a generation failed with TypeError: a task's evaluate must return .* got .*",
    ),
}  # fmt: skip


def with_task(evaluate, monkeypatch, **changes) -> ConfigDict:
    def bad():
        return tasks.SingleShot(obs_size=2, action_size=1, evaluate=evaluate)

    monkeypatch.setitem(build.FUNCTIONS["task"], "bad", bad)
    config = tiny(**changes)
    config.task = ConfigDict({"name": "bad"})
    config.policy = build.section(
        "policy", "edge_pruned", hidden=(), num_edges=2, output_activation="identity"
    )
    config.controller = build.section("controller", "constant")  # it compiles soonest
    return config


@pytest.mark.parametrize("name", TASKS)
def test_a_wrong_task_ends_in_one_sentence(name, tmp_path, monkeypatch):
    evaluate, sentence = TASKS[name]
    with pytest.raises(RunError) as refused:
        train.train(with_task(evaluate, monkeypatch), Workdir(tmp_path))
    wanted = sentence.replace("{folder}", re.escape(str(tmp_path)))
    assert re.fullmatch(wanted, str(refused.value)), refused.value
    assert not (tmp_path / "result.json").exists()
    if evaluate is nan:
        assert Checkpoints(tmp_path / "checkpoints", read_only=True).generations() == [0]
    if "traceback.txt" in sentence:
        assert "Error: " in (tmp_path / "traceback.txt").read_text()


@pytest.mark.parametrize("strategy", ["es", pytest.param("ars", marks=pytest.mark.slow)])
def test_scores_that_are_all_equal_are_told_and_move_nothing(
    strategy, tmp_path, monkeypatch, capsys
):
    def equal(key, network, apply):
        return tasks.single_score(0.25 + 0.0 * score(network, apply))

    config = with_task(equal, monkeypatch)
    config.strategy = build.section("strategy", strategy, num_directions=4, num_exact=3)
    train.train(config, Workdir(tmp_path))
    told = capsys.readouterr().out
    sentence = (
        "Generation 0: every candidate scored 0.25; nothing can be learnt while all scores are "
        "equal.\n"
    )
    assert told.count(sentence) == 1
    assert told.count("all scores are equal") == 1
    checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
    saved = [checkpoints.leaves(g) for g in checkpoints.generations()]
    assert len(saved) == 3
    assert all(np.array_equal(s["strategy.params"], saved[0]["strategy.params"]) for s in saved)
    assert [row["update_norm"] for row in read_rows(tmp_path)] == [0.0] * 4


def test_a_task_that_breaks_leaves_the_checkpoint_of_the_last_good_generation(
    tmp_path, monkeypatch
):
    config = with_task(grows, monkeypatch, generations=500, checkpoint_every=1000)
    config.controller = tiny().controller
    config.strategy.step_size = 0.1
    with shared_programs():
        for _ in range(2):  # the same again from the checkpoint
            with pytest.raises(RunError, match="3 generations in a row were discarded") as refused:
                train.train(config, Workdir(tmp_path))
            rows = read_rows(tmp_path)
            assert [row["discarded"] for row in rows[-4:]] == [0, 1, 2, 3]
            good = rows[-3]["generation"]  # the first that was discarded: the state before it
            assert good > 1
            assert f"The checkpoint of generation {good} is from before them." in str(refused.value)
            checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
            assert checkpoints.generations() == [good]
            saved = checkpoints.leaves(good)
            assert (saved["generation"], saved["discarded"]) == (good, 0)
            assert np.isfinite(saved["strategy.params"]).all()
            # Its scores that were not finite never won.
            assert np.isfinite(saved["controller.scores"]).all()
            assert saved["incumbent.score"] <= 2.0


@pytest.mark.slow
def test_an_answer_that_cannot_be_had_is_told_and_the_run_stays(tmp_path, monkeypatch):
    """A host that fails when it is asked once more than the generations need.

    Halves of a pair are evaluated together: of 11 candidates the last is evaluated twice.
    """
    calls = []
    needed = 4 * 12

    def tired(key, network, apply):
        def call(x):
            calls.append(1)
            if len(calls) > needed:
                raise ConnectionError("the simulator has gone.")
            return x

        value = score(network, apply)
        return tasks.single_score(jax.pure_callback(call, value, value, vmap_method="sequential"))

    config = with_task(tired, monkeypatch)
    with pytest.raises(RunError, match=r"^choosing the answer failed with ConnectionError: "):
        train.train(config, Workdir(tmp_path))
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).generations()[-1] == 4
    with pytest.raises(RunError, match=r"^measuring failed with ConnectionError: the simulator"):
        evaluate.evaluate(Workdir(tmp_path), episodes=4)
    calls.clear()
    assert train.train(config, Workdir(tmp_path))["generations"] == 4
