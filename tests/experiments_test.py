"""The runner: what a run writes, what it refuses, and that its config files are what they say."""

import functools
import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from esenas_jax import controllers, tasks
from esenas_jax.answer import Answer, Contender, reevaluate
from esenas_jax.policies import costs
from esenas_jax.search import Search
from esenas_jax.tasks.normalizer import Moments
from esenas_jax.types import Evaluation, Stream, stream
from experiments import build, command_line, evaluate, record, results, train
from experiments.checkpoints import Checkpoints
from experiments.command_line import load_config
from experiments.configs import hopper_policies
from experiments.metrics_log import read_rows
from experiments.policy_file import load_contender, load_policy, save_policy
from experiments.progress import digits
from experiments.workdir import Workdir, WorkdirError, finite
from tests.support.compiling import environment_as_shipped
from tests.support.shared_programs import shared_programs

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "experiments" / "configs"
NAMES = sorted(p.stem for p in CONFIGS.glob("*.py") if p.stem not in ("__init__", "base"))


def run(*arguments: str, cwd: Path = ROOT, environment=os.environ) -> subprocess.CompletedProcess:
    """Run the command as a user does."""
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "experiments.train", *arguments],
        check=False,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def pendulum(**changes) -> ConfigDict:
    """A run of a second: edge search on Pendulum."""
    config = load_config(str(CONFIGS / "pendulum_edges.py:smoke"))
    config.task.horizon = 16
    config.task.normalizer = "es"
    config.strategy.update({"num_directions": 4, "num_exact": 3})
    config.controller.population_size = 8
    # Programs of one device compile in half the time.
    config.update({"virtual_shards": None} | changes)
    return config


def small(**changes) -> ConfigDict:
    """A run whose generation compiles in a second: every weight of a linear regression."""
    config = pendulum()
    config.task = build.section("task", "regression", batch_size=8)
    config.policy = build.section("policy", "dense", hidden=(), output_activation="identity")
    config.controller = build.section("controller", "constant")
    config.update(changes)
    return config


@pytest.fixture(scope="module", autouse=True)
def each_brax_environment_is_made_once():
    """Making one takes half a second, and a dozen configs have the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "brax_environment", functools.cache(tasks.brax_environment))
        yield


@pytest.fixture(scope="module")
def sharing():
    """Return what makes a context in which trainings of one config share a program."""
    return functools.partial(shared_programs, pictures=True, kept=({}, {}))


@pytest.fixture(scope="module")
def trained(sharing, tmp_path_factory):
    workdir = Workdir(tmp_path_factory.mktemp("run"))
    config = pendulum(generations=4, seed=6)
    config.objective.shift_per_step = 1.0
    with sharing():
        return workdir, config, train.train(config, workdir)


@pytest.fixture(scope="module")
def many(sharing, tmp_path_factory):
    """Two seeds with two numbers each; the last of them is `trained`."""
    workdir = Workdir(tmp_path_factory.mktemp("many"))
    sweep = ConfigDict({"objective": {"shift_per_step": [0.0, 1.0]}})
    config = pendulum(generations=4, seed=5, seeds=2, sweep=sweep, checkpoint_every=2)
    with sharing():
        return workdir, config, train.train(config, workdir)


# --- what a run writes ----------------------------------------------------------------------------


def test_the_workdir_holds_what_outsiders_rely_on(trained):
    workdir, config, result = trained
    names = {p.name for p in workdir.path.iterdir()}
    promised = {"config.json", "provenance.json", "metrics.jsonl", "result.json", "policy.npz"}
    assert promised | {"report"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {p.name for p in (workdir.path / "report").iterdir()} == {"curve.png", "network.png"}
    assert workdir.read("config.json") == json.loads(json.dumps(config.to_dict()))
    assert workdir.read("result.json") == result
    origin = workdir.read("provenance.json")
    assert origin["versions"]["jax"] == jax.__version__
    assert set(origin["seconds"]) == {"compile", "run", "host", "answer"}
    assert all(seconds > 0 for seconds in origin["seconds"].values())
    assert origin["peak_memory"]["host_bytes"] > 10**7
    assert (origin["devices_used"], origin["device_count"], origin["device"]) == (1, 8, "cpu")
    assert origin["from_generation"] == 0
    assert "earlier" not in origin


def test_metrics_have_a_line_a_generation_with_exact_totals(trained):
    workdir, config, _ = trained
    rows = read_rows(workdir.path)
    assert [row["generation"] for row in rows] == [0, 1, 2, 3]
    candidates = 2 * 4 + 3
    per_generation = candidates * config.task.episodes
    assert [row["episodes"] for row in rows] == [per_generation * (i + 1) for i in range(4)]
    assert [row["env_steps"] for row in rows] == [16 * row["episodes"] for row in rows]
    for name in (
        "exact_mean", "exact_std", "fitness_mean", "fitness_max", "failed", "discarded",
        "return_without_bonus", "episode_length", "edges", "multiplications", "weights", "biases",
        "bits", "entropy_bits", "update_norm", "controller_population_max",
    ):  # fmt: skip
        assert all(isinstance(row[name], int | float) for row in rows), name


def test_what_an_architecture_costs_is_in_the_result_and_in_the_summary(trained):
    workdir, _, result = trained
    policy = result["edges"], result["multiplications"], result["weights"], result["biases"]
    assert policy == (24, 24, 24, 16)
    assert result["normalizer_numbers"] == 2 * 3
    text = results.summary(result, workdir)
    assert "24 distinct weights; biases: 16, numbers that normalise observations: 6\n" in text
    assert "24 of weights and activations, to act once\n" in text
    config = pendulum()
    config.task.normalizer = "none"
    assert results.normalizer_numbers(build.build(config).task) == 0


def test_the_architecture_of_a_run_is_written_and_read_as_pygloves_json(trained):
    """What the README does with a run."""
    import pyglove as pg

    from esenas_jax.spaces.pyglove import dumps, loads

    workdir, *_ = trained
    search = build.build(json.loads((workdir.path / "config.json").read_text()))
    genotype = load_contender(workdir.path / "policy.npz", search).genotype
    text = dumps(search.policy.space, genotype)
    assert pg.from_json_str(text).to_numbers() == genotype.tolist()
    np.testing.assert_array_equal(loads(search.policy.space, text), genotype)


def test_tensorboard_has_the_same_numbers(trained):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    workdir, _, _ = trained
    (file,) = workdir.path.glob("events.out.tfevents.*")
    data, seen = file.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        record = data[12 : 12 + length]
        assert int.from_bytes(data[12 + length : 16 + length], "little") == masked_crc32c(record)
        event = Event.FromString(record)
        for value in event.summary.value:
            seen[value.tag, event.step] = value.simple_value
        data = data[16 + length :]
    for row in read_rows(workdir.path):
        assert seen["exact_mean", row["generation"]] == np.float32(row["exact_mean"])
        assert seen["env_steps", row["generation"]] == row["env_steps"]


def test_the_policy_file_is_enough_to_act(trained):
    workdir, config, _ = trained
    act = jax.jit(load_policy(workdir.path / "policy.npz"))
    search = build.build(config)
    with np.load(workdir.path / "policy.npz") as file:
        arrays = dict(file)
    genotype = jax.numpy.asarray(arrays["genotype_0"])
    network = search.policy.bind(jax.numpy.asarray(arrays["weights"]), genotype)
    batch = jax.random.normal(jax.random.key(0), (4, 3))
    for obs in batch:
        normalized = (obs - arrays["normalizer_mean"]) * arrays["normalizer_scale"]
        expected = search.policy.apply(network, normalized)
        np.testing.assert_allclose(act(obs), expected, rtol=1e-6)
    np.testing.assert_allclose(act(batch), [act(obs) for obs in batch], rtol=1e-6)
    for shape in ((), (1,), (3, 1), (1, 1, 3)):
        with pytest.raises(ValueError, match=r"^an observation must be of shape \(3,\) or \(B, 3"):
            act(jax.numpy.zeros(shape))
    assert not np.allclose(arrays["normalizer_scale"], 1.0)  # it learnt something


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"normalizer_mean": np.zeros(1, np.float32)}, "must hold normalizer_mean of shape"),
        ({"weights": np.full(3, np.nan, np.float32)}, "must hold weights of shape "),
        ({"moments_count": np.float32(np.inf)}, "must hold finite numbers, got others"),
        ({"genotype_0": None}, "holds no policy: genotype_0 is missing."),
        ({"genotype_0": np.zeros(8, np.int32)}, "must hold an architecture of the policy: "),
        ({"config": np.array("{")}, "holds no policy: its config is no JSON: "),
        ({"config": np.array("[]")}, "holds no policy: its config has none."),
        ({"config": np.array('{"policy": {"name": "os.system"}, "obs_size": 3, "action_size": 1}')},
         "holds no policy: policy.name must be one of "),
        ({"weights": np.array([{}], object)}, "holds no policy: Object arrays cannot be loaded"),
    ],
)  # fmt: skip
def test_a_policy_file_that_was_changed_is_refused_in_one_sentence(
    trained, tmp_path, changes, sentence
):
    with np.load(trained[0].path / "policy.npz") as file:
        arrays = dict(file) | changes
    path = tmp_path / "policy.npz"
    np.savez(path, **{name: x for name, x in arrays.items() if x is not None})
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the sentence is compared
        load_policy(path)
    assert str(raised.value).startswith(f"{path} {sentence}")


def test_an_array_alone_is_no_policy(tmp_path):
    np.save(tmp_path / "policy.npy", np.zeros(3))
    os.rename(tmp_path / "policy.npy", tmp_path / "policy.npz")
    with pytest.raises(ValueError, match=r"policy\.npz holds no policy: "):
        load_policy(tmp_path / "policy.npz")


def test_a_file_that_holds_no_policy_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"holds no policy: config, moments_count, .* is missing"):
        load_policy(tmp_path / "other.npz")


def test_the_result_is_measured_on_its_episodes(trained):
    _, config, result = trained
    assert result["report_episodes"] >= config.answer_episodes
    assert result["episode_length"] == {"mean": 16.0, "standard_error": 0.0}
    assert result["return"]["standard_error"] > 0
    assert (result["edges"], result["possible_edges"]) == (24, 64)
    assert result["generations"] == 4


def test_the_summary_names_what_a_newcomer_looks_for(trained):
    workdir, _, result = trained
    text = train.summary(result, workdir)
    for words in ("Return  ", "±", "16 ± 0 steps", "24 of 64"):
        assert words in text, text
    assert str(workdir.path / "report") in text


def test_a_finished_run_is_not_trained_again(trained, capsys):
    workdir, config, result = trained
    before = (workdir.path / "metrics.jsonl").stat().st_mtime_ns
    assert train.train(config, workdir) == result
    assert "is finished" in capsys.readouterr().out
    assert (workdir.path / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_run_killed_before_its_first_checkpoint_starts_over_and_comes_to_the_same(
    sharing, trained, tmp_path
):
    workdir, config, result = trained
    again = Workdir(tmp_path)
    again.write("config.json", config.to_dict())
    (tmp_path / "metrics.jsonl").write_text('{"generation": 0}\n{"generat')
    with sharing():
        assert train.train(config, again) == result
    for name in ("metrics.jsonl", "result.json", "policy.npz"):
        assert (tmp_path / name).read_bytes() == (workdir.path / name).read_bytes(), name


def test_three_discarded_generations_in_a_row_stop_the_run(tmp_path):
    # A step this large makes the weights infinite.
    config = small(generations=9)
    config.strategy.step_size = 3e38
    config.strategy.shaping = "raw"
    why = "3 generations in a row were discarded; .* but the update of the weights was not"
    with pytest.raises(train.RunError, match=why):
        train.train(config, Workdir(tmp_path))
    assert read_rows(tmp_path)[-1]["discarded"] == 3
    assert not (tmp_path / "result.json").exists()


# --- many runs in one program ---------------------------------------------------------------------


def test_every_run_of_many_is_what_it_would_be_alone(many, trained):
    workdir, _, found = many
    rows = read_rows(workdir.path)
    assert [(row["generation"], row["run"]) for row in rows] == [
        (g, r) for g in range(4) for r in range(4)
    ]
    settings = [(run["seed"], run["objective.shift_per_step"]) for run in found["runs"]]
    assert settings == [(5, 0.0), (6, 0.0), (5, 1.0), (6, 1.0)]
    single, _, alone = trained
    for row, expected in zip(rows[3::4], read_rows(single.path), strict=True):
        assert {k: row[k] for k in ("env_steps", "episodes")} == {
            k: expected[k] for k in ("env_steps", "episodes")
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    last = found["runs"][3]
    assert last["return"]["mean"] == pytest.approx(alone["return"]["mean"], rel=1e-4)
    assert last["edges"] == alone["edges"]


def test_the_result_of_many_runs_has_means_over_seeds_and_their_intervals(many):
    _, _, found = many
    for k, setting in enumerate(found["settings"]):
        assert setting["objective.shift_per_step"] == float(k)
        assert setting["seeds"] == 2
        returns = [run["return"]["mean"] for run in found["runs"][2 * k : 2 * k + 2]]
        assert setting["return"]["mean"] == pytest.approx(np.mean(returns))
        half = 12.706 * abs(returns[0] - returns[1]) / 2  # t for one degree of freedom, 95 %
        low, high = setting["return"]["interval"]
        assert (high - low) / 2 == pytest.approx(half, rel=1e-3)


def test_the_policy_of_many_runs_is_that_of_the_best_and_all_are_there(many):
    workdir, _, found = many
    assert sorted(p.name for p in (workdir.path / "policies").iterdir()) == [
        f"{r}.npz" for r in range(4)
    ]
    best = workdir.path / "policies" / f"{found['best_run']}.npz"
    with np.load(best) as expected, np.load(workdir.path / "policy.npz") as got:
        assert all(np.array_equal(expected[name], got[name]) for name in expected)


def test_the_best_run_is_chosen_by_the_episodes_that_selected_its_answer(many):
    """By the score that its controller saw, which knows of costs; by the return if those differ."""
    _, config, _ = many
    search = build.build(config)
    nothing = jnp.zeros(3)
    rows = [{"generation": 0, "env_steps": 0, "episodes": 0, "return_without_bonus": 0.0,
             "discarded": 0}] * 3  # fmt: skip

    def answer(score, choice, *selected):
        selection = jnp.array(selected)[:, None] * jnp.ones((1, 2))
        report = Evaluation(nothing, nothing, nothing, nothing, nothing > 0, ())
        cost = costs.cost(edges=1, weights=1, biases=0)
        seen = report._replace(episode_return=selection)
        return Answer(None, cost, choice, jnp.float32(score), seen, report)

    found = [
        answer(-2.0, 1, 9.0, 1.0),
        answer(-3.0, 0, 2.0, jnp.nan),
        answer(-jnp.inf, 0, jnp.nan, 3.0),
    ]
    about = [{"seed": s} for s in range(3)]
    assert results.results(search, about, found, rows)["best_run"] == 0
    about = [{"seed": 0, "objective.target": float(s)} for s in range(3)]
    assert results.results(search, about, found, rows)["best_run"] == 1


def test_the_summary_of_many_runs_has_a_line_a_setting(many):
    workdir, _, found = many
    text = train.summary(found, workdir)
    mean, (low, high) = (found["settings"][1]["return"][k] for k in ("mean", "interval"))
    line = next(line for line in text.splitlines() if line.startswith("shift_per_step 1 "))
    assert line.split("  ")[-1].strip().startswith(f"return {mean:.4g} [{low:.4g}, {high:.4g}]")
    assert "(2 seeds)" in text
    assert (workdir.path / "report" / "curve.png").stat().st_size > 10_000


def test_many_runs_resume_with_the_same_bits(sharing, many, tmp_path):
    """From the middle, and with more checkpoints than the run that was not stopped."""
    workdir, config, found = many
    again = Workdir(tmp_path / "run")
    shutil.copytree(workdir.path, again.path)
    for name in ("result.json", "policy.npz"):
        (again.path / name).unlink()
    shutil.rmtree(again.path / "checkpoints" / "4")
    (again.path / "metrics.jsonl").write_text("\n".join(
        (workdir.path / "metrics.jsonl").read_text().splitlines()[:11]
    ))  # fmt: skip
    config = ConfigDict({**config.to_dict(), "checkpoint_every": 1})
    with sharing():
        assert train.train(config, again, "must") == found
    for name in ("metrics.jsonl", "policy.npz"):
        assert (again.path / name).read_bytes() == (workdir.path / name).read_bytes(), name


@pytest.mark.slow
def test_many_runs_resume_with_one_table_of_noise_that_no_checkpoint_holds(tmp_path):
    noise = build.section("noise", "shared_table", table_size=4096)
    config = small(generations=4, checkpoint_every=2, seeds=2, noise=noise)
    workdir = Workdir(tmp_path)
    found = train.train(config, workdir)
    saved = Checkpoints(tmp_path / "checkpoints", read_only=True).leaves(2)
    assert max(x.size for x in saved.values()) < 4096
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    assert train.train(config, workdir, "must") == found


def test_unfinished_runs_of_many_are_not_evaluated(many, tmp_path):
    workdir, _, _ = many
    shutil.copytree(workdir.path, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(WorkdirError, match="holds 4 runs that are not finished"):
        evaluate.evaluate(Workdir(tmp_path / "run"), episodes=4)
    found = evaluate.evaluate(workdir, episodes=4)
    assert found["report_episodes"] == 4


# --- compiling and dispatching --------------------------------------------------------------------


def test_a_generation_is_compiled_once_whatever_the_dispatches(tmp_path, monkeypatch):
    """Dispatches of one, of three and of five generations, cut by checkpoints."""
    compiled = []
    monkeypatch.setattr(train.Run, "_next", lambda run, seconds: 5)

    def hear(name, seconds, fun_name="", **more):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        train.train(small(generations=12, checkpoint_every=4), Workdir(tmp_path))
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert compiled.count("jit(advance)") == 1, compiled
    assert not [name for name in compiled if "step" in name], compiled


def test_the_help_shows_what_the_command_takes():
    done = run("--help")
    for flag in ("--coordinator", "--num_processes", "--process_id", "--profile", "--resume"):
        assert f"{flag}:" in done.stdout, flag


@pytest.mark.slow
def test_a_profile_tells_where_the_time_went_and_changes_no_result(trained, tmp_path, capsys):
    _, config, result = trained
    assert train.train(config, Workdir(tmp_path / "traced"), profile=2) == result
    told = capsys.readouterr().out
    assert "Time: physics" in told
    assert "Time: a generation" in told
    traces = tmp_path / "traced" / "profile" / "plugins" / "profile"
    assert len(list(traces.glob("generation_*/*.xplane.pb"))) == 2


def test_json_gets_null_for_what_is_not_finite():
    value = {"a": np.float32("nan"), "b": [np.inf, 1.5], "c": jax.numpy.int32(3)}
    assert finite(value) == {"a": None, "b": [None, 1.5], "c": 3}


# --- what it refuses ------------------------------------------------------------------------------


def test_the_folder_of_another_config_is_refused_with_the_differences(trained):
    workdir, config, _ = trained
    other = ConfigDict(config.to_dict())
    other.strategy.noise_std = 0.3
    with pytest.raises(WorkdirError, match=r"strategy\.noise_std was 0\.5, is 0\.3"):
        train.train(other, workdir)
    assert workdir.read("config.json")["strategy"]["noise_std"] == config.strategy.noise_std


@pytest.mark.parametrize("dtype", [pytest.param("float16", marks=pytest.mark.slow), "bfloat16"])
def test_a_run_with_a_noise_table_resumes(dtype, tmp_path):
    config = small(checkpoint_every=1)
    config.noise = build.section("noise", "shared_table", table_size=4096, dtype=dtype)
    result = train.train(config, Workdir(tmp_path))
    saved = Checkpoints(tmp_path / "checkpoints", read_only=True).leaves(2)
    assert max(x.size for x in saved.values()) < 4096  # the table is drawn again
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "3")
    assert train.train(config, Workdir(tmp_path), "must") == result


def test_a_table_smaller_than_the_weights_is_refused(tmp_path):
    config = pendulum()
    config.noise = build.section("noise", "shared_table", table_size=80)
    message = r"^search: table_size must be above the number of parameters, 80, got 80\.$"
    with pytest.raises(build.ConfigError, match=message):
        train.train(config, Workdir(tmp_path))


def test_zero_partitions_are_refused():
    config = pendulum()
    config.policy = build.section("policy", "partitioned", hidden=(), num_partitions=0)
    with pytest.raises(ValueError, match="num_partitions must be at least 1, got 0"):
        build.build(config)


def test_an_argument_that_a_section_does_not_have_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="has no argument 'noise_stdd'; did you mean 'noise_std'"):
        build.section("strategy", "es", noise_stdd=0.1)


def test_the_command_trains(tmp_path):
    good = run(
        f"--config={CONFIGS / 'regression_ars.py'}:smoke",
        f"--workdir={tmp_path / 'run'}",
        "--config.task.batch_size=64",
        "--config.deterministic=True",
        "--config.virtual_shards=2",
    )
    assert good.returncode == 0, good.stderr
    assert good.stderr == ""
    assert "Return " in good.stdout
    assert "Pictures" in good.stdout.splitlines()[-1]
    assert "Note" not in good.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["task"]["batch_size"] == 64
    # An XLA that did not know them would have ended the process.
    flags = Workdir(tmp_path / "run").read("provenance.json")["xla_flags"].split()
    assert "--xla_gpu_deterministic_ops=true" in flags
    assert ("--xla_cpu_max_isa=AVX" in flags) == (platform.machine() == "x86_64")


def test_what_can_change_bits_between_two_starts_is_named():
    from experiments.provenance import changed, provenance

    here = provenance() | {"dirty": False}  # without a Git checkout it is None
    assert here["cpu"]
    assert changed(here, here) == []
    assert changed(here, here | {"device_count": 1, "cpu_count": 64}) == []
    assert changed(here, here | {"cpu": "another", "dirty": None}) == ["dirty", "cpu"]
    more = {"xla_flags": here["xla_flags"] + " --xla_force_host_platform_device_count=2"}
    assert changed(here, here | more) == []
    assert changed(here, here | {"xla_flags": "--xla_cpu_max_isa=AVX"}) == ["xla_flags"]
    assert changed(here, here | {"virtual_shards": 2}) == ["virtual_shards"]


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("model name\t: X\nflags\t\t: fpu sse2 avx avx2 avx512f avx512bw\n", 512),
        ("flags\t\t: fpu sse2 avx avx2\nflags\t\t: avx512f\n", 256),
        ("flags\t\t: fpu sse2\n", 128),
        ("Features\t: fp asimd evtstrm\n", 128),
        ("vmx flags\t: avx\n", None),
        ("", None),
    ],
)
def test_the_width_of_vectors_is_read_from_what_linux_says_of_the_processor(text, bits):
    from experiments.provenance import vector_bits

    assert vector_bits(text) == bits


def test_a_config_of_before_a_field_was_added_is_refused_by_its_name(tmp_path):
    path = tmp_path / "old.py"
    path.write_text(
        "from experiments.configs import regression_ars\n"
        "def get_config(name=None):\n"
        "    config = regression_ars.get_config(name)\n"
        "    del config['virtual_shards']\n"
        "    return config\n"
    )
    done = run(f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert done.stderr == "error: the config has no virtual_shards.\n"
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_config_file_is_one_sentence(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def get_config(name=None):\n    return {}['x']\n")
    with pytest.raises(SystemExit, match=r"^error: cannot load the config .*: KeyError: 'x'"):
        load_config(str(path))


def test_without_the_flags_that_it_needs_a_promise_is_not_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train.Run, "carry_out", lambda run, begun: {})
    train.train(pendulum(virtual_shards=1, deterministic=True), Workdir(tmp_path))
    told = capsys.readouterr().out
    assert "Note: the same bits are promised only with XLA_FLAGS=--xla_" in told


# --- a front --------------------------------------------------------------------------------------


def with_front(task: str = "regression", **changes) -> ConfigDict:
    """A run of seconds whose controller weighs return against edges."""
    config = with_policy("boolean_mask", generations=4)
    if task == "regression":
        config.task, config.policy.hidden = small().task, ()
    config.controller = build.section("controller", "nsga2", num_best=5)
    config.objective = build.section("objective", "pareto", cost="edges", shift_per_step=1.0)
    config.update(changes)
    return config


@pytest.mark.parametrize(
    ("task", "seeds"),
    [
        ("regression", 1),
        pytest.param("pendulum", 1, marks=pytest.mark.slow),
        pytest.param("pendulum", 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_with_every_architecture_of_its_front(task, seeds, tmp_path):
    config, workdir = with_front(task, seeds=seeds), Workdir(tmp_path)
    found = train.train(config, workdir)
    alone = found["runs"][found["best_run"]] if seeds > 1 else found
    front = alone["front"]
    assert 1 <= len(front) <= 5
    assert alone["front_cost"] == "edges"
    edges = [point["edges"] for point in front]
    assert edges == sorted(set(edges))  # of equal costs only one is in the front
    # Those that are left over after measuring return more the more they cost.
    returns = [point["return"]["mean"] for point in front]
    for k, point in enumerate(front):
        assert point["dominated"] == any(r >= returns[k] for r in returns[:k])
        assert point["report_episodes"] == config.answer_episodes
        assert point["return"]["standard_error"] > 0
    assert (workdir.path / "report" / "front.png").exists()
    text = train.summary(found, workdir)
    lines = text.splitlines()[-len(front) :]
    for k, (point, line) in enumerate(zip(front, lines, strict=True)):
        assert line.split()[0] == str(point["edges"])
        assert f"{k}.npz" in line
        assert ("dominated" in line) == point["dominated"]

    # The file of each holds it, under the weights of the end: it is worth what the result says.
    assert len(list((workdir.path / "front").iterdir())) == len(front)
    search = build.build(config)
    cost = jax.jit(search.policy.cost)
    for k, point in enumerate(front):
        held = load_contender(workdir.path / "front" / f"{k}.npz", search)
        assert int(cost(held.genotype).edges) == point["edges"]
    key = jax.random.key(int(config.seed) + int(found.get("best_run", 0)))
    starts = jnp.arange(config.answer_episodes, dtype=jnp.int32)[None]
    again = jax.jit(lambda *arguments: reevaluate(search, *arguments))(
        stream(key, config.generations, Stream.FRONT),
        jax.tree.map(lambda x: x[None], held),
        starts,
    )
    np.testing.assert_allclose(again.episode_return.mean(), returns[-1], rtol=1e-4)


def test_numbers_of_a_controller_can_be_swept_and_are_checked():
    sweep = {"controller": {"crossover_rate": [0.5, 1.0]}, "objective": {"shift_per_step": [1, 2]}}
    planned = build.plan(with_front(sweep=ConfigDict(sweep)))
    assert [run["controller.crossover_rate"] for run in planned.runs] == [0.5, 0.5, 1.0, 1.0]
    sweep["controller"]["crossover_rate"] = [0.5, 2.0]
    with pytest.raises(build.ConfigError, match=r"^controller: crossover_rate must be in \[0, 1\]"):
        build.plan(with_front(sweep=ConfigDict(sweep)))


def test_a_single_objective_has_no_front(trained):
    workdir, _, found = trained
    assert "front" not in found
    assert not (workdir.path / "front").exists()


# --- policies -------------------------------------------------------------------------------------


def with_policy(name: str, **changes) -> ConfigDict:
    """The smoke run of hopper_policies.py, on Pendulum: a run of seconds."""
    config = load_config(f"{CONFIGS / 'hopper_policies.py'}:{name},smoke")
    config.task = pendulum().task
    config.task.episodes = 1
    if "num_edges" in config.policy:  # 3-32-1 has 128 edges
        config.policy.num_edges = (24, 8) if name == "independent" else 32
    config.strategy.update({"num_directions": 4, "num_exact": 3})
    config.population.lanes = 8
    config.update({"virtual_shards": None} | changes)
    return config


def untrained(config: ConfigDict) -> Contender:
    """What would be deployed before any training, had it seen observations."""
    search, key = build.build(config), jax.random.key(0)
    size = search.policy.obs_size
    moments = Moments(*map(jnp.float32, (9.0, np.linspace(-1, 2, size), np.linspace(4, 90, size))))
    genotype = jax.jit(search.policy.space.sample)(key)
    return Contender(jax.jit(search.policy.init)(key), genotype, moments)


def untrained_file(path: Path, config: ConfigDict) -> Path:
    save_policy(path, build.build(config), config, untrained(config))
    return path


@pytest.fixture(scope="module")
def dense_file(tmp_path_factory):
    return untrained_file(tmp_path_factory.mktemp("dense") / "policy.npz", with_policy("dense"))


def forget(trained: Path) -> None:
    """What a policy came from may be gone."""
    trained.unlink(missing_ok=True)
    build.trained_policy.cache_clear()


def copied(name: str, dense_file: Path, folder: Path) -> tuple[ConfigDict, Path]:
    """The config of a policy, and the file that it is trained further from, if it is."""
    config, trained = with_policy(name), folder / "trained.npz"
    if name == "magnitude_pruned":
        shutil.copy(dense_file, trained)
        config.policy.trained = str(trained)
    return config, trained


def check_what_is_printed(name: str, result: dict, workdir: Workdir) -> None:
    """That pictures, summary and compression are those of the policy."""
    pictured = name not in ("residual", "op_edges")
    assert (workdir.path / "report" / "network.png").exists() == pictured
    text = train.summary(result, workdir)
    assert f"{result['bits']:,} of weights and structure" in text
    assert ("network.png" in text) == pictured
    assert result["compression"]["dense"]["weights"] == (3 if name == "linear" else 128)


def check_that_its_file_acts(search: Search, workdir: Workdir) -> None:
    act = jax.jit(load_policy(workdir.path / "policy.npz"))
    chosen = load_contender(workdir.path / "policy.npz", search)
    obs = jax.random.normal(jax.random.key(0), (3,))

    @jax.jit
    def expected(obs):
        lens = search.task.lens(chosen.moments)
        network = search.policy.bind(chosen.params, chosen.genotype)
        return search.policy.apply(network, (obs - lens.mean) * lens.scale)

    np.testing.assert_allclose(act(obs), expected(obs), rtol=1e-5, atol=1e-6)


# Each is built as another one is.
TWINS = ("dense", "linear", "random_mask", "partition", "circulant", "independent")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in TWINS else [])
        for name in hopper_policies.POLICIES
    ],
)
def test_what_is_recorded_of_every_policy_is_enough_to_act(name, dense_file, tmp_path, monkeypatch):
    """All that a run leaves but its checkpoints, without the run."""
    monkeypatch.setattr(record, "learning_curve", lambda *arguments, **options: None)
    config, trained = copied(name, dense_file, tmp_path)
    workdir, search = Workdir(tmp_path / "run"), build.build(config)
    chosen = untrained(config)
    cost = jax.jit(search.policy.cost)(chosen.genotype)
    nothing = np.zeros(4, np.float32)
    seen = Evaluation(nothing, nothing, nothing, nothing, nothing > 0, ())
    kept = record.Record(config, build.plan(config), workdir)
    row = {"generation": 0, "env_steps": 9, "episodes": 3, "return_without_bonus": 0.0}
    with workdir.claim():
        kept.begin(False)
        with kept.open_log(0) as log:
            log.add([row], {})
        result = kept.conclude(Answer(chosen, cost, np.int32(0), np.float32(0), seen, seen))
    check_what_is_printed(name, result, workdir)
    assert 0 < result["weights"] <= result["edges"]
    forget(trained)
    check_that_its_file_acts(search, workdir)
    if name == "magnitude_pruned":
        assert np.isfinite(evaluate.evaluate(workdir, episodes=4)["return"]["mean"])


@pytest.mark.slow
@pytest.mark.parametrize("name", hopper_policies.POLICIES)
def test_every_policy_trains_and_its_file_is_enough_to_act(name, dense_file, tmp_path):
    config, trained = copied(name, dense_file, tmp_path)
    workdir = Workdir(tmp_path / "run")
    result = train.train(config, workdir)
    assert np.isfinite(result["return"]["mean"])
    check_what_is_printed(name, result, workdir)
    rows = read_rows(workdir.path)
    assert all(0 < row["weights"] <= row["edges"] for row in rows)
    if name not in ("boolean_mask", "partition", "partition_per_layer"):
        assert rows[-1]["bits"] == result["bits"]
    search = build.build(config)
    forget(trained)
    check_that_its_file_acts(search, workdir)
    if name == "magnitude_pruned":
        assert np.isfinite(evaluate.evaluate(workdir, episodes=4)["return"]["mean"])


def hopper_policy(name: str, folder: Path) -> ConfigDict:
    """A policy's config as it is; where it goes on from weights, they are untrained ones."""
    config = load_config(f"{CONFIGS / 'hopper_policies.py'}:{name},smoke")
    if name == "magnitude_pruned":
        dense = load_config(f"{CONFIGS / 'hopper_policies.py'}:dense,smoke")
        config.policy.trained = str(untrained_file(folder / "dense.npz", dense))
    return config


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in TWINS else [])
        for name in hopper_policies.POLICIES
    ],
)
def test_every_policys_config_builds_as_it_is(name, tmp_path):
    search = build.build(hopper_policy(name, tmp_path))
    assert (search.policy.obs_size, search.policy.action_size) == (11, 3)
    start = jax.eval_shape(search.policy.init, jax.random.key(0))
    assert start.shape == (search.policy.num_params,)


@pytest.mark.slow
@pytest.mark.parametrize("name", hopper_policies.POLICIES)
def test_every_policys_own_smoke_run_trains(name, tmp_path):
    result = train.train(hopper_policy(name, tmp_path), Workdir(tmp_path / "run"))
    assert [row["generation"] for row in read_rows(tmp_path / "run")] == [0, 1, 2]
    assert np.isfinite(result["return"]["mean"])


def test_pruning_starts_from_the_largest_weights_that_were_trained(dense_file):
    config = with_policy("magnitude_pruned")
    config.policy.trained = str(dense_file)
    start = build.build(config).policy.init(jax.random.key(0))
    with np.load(dense_file) as file:
        weights = file["weights"][:128]
    kept = np.sort(np.argsort(-np.abs(weights), kind="stable")[:32])
    np.testing.assert_array_equal(start[:32], weights[kept])


@pytest.fixture(scope="module")
def seen_run(dense_file, tmp_path_factory):
    """The dense file, had it been chosen after it had seen 100 observations."""
    path = tmp_path_factory.mktemp("seen") / "policy.npz"
    with np.load(dense_file) as file:
        moments = {"count": 100.0, "mean": [0.5, -0.5, 2.0], "deviation": [10.0, 40.0, 900.0]}
        more = {f"moments_{name}": np.float32(value) for name, value in moments.items()}
        np.savez(path, **(dict(file) | more))
    return path


def test_what_is_trained_further_starts_with_the_moments_of_its_file(seen_run):
    config = with_policy("magnitude_pruned")
    config.policy.trained = str(seen_run)
    moments = jax.jit(build.build(config).init)(jax.random.key(7)).moments
    with np.load(seen_run) as file:
        for name, value in moments._asdict().items():
            np.testing.assert_array_equal(value, file[f"moments_{name}"], name)


@pytest.mark.slow
def test_what_is_trained_further_sees_what_it_was_trained_to_see(seen_run):
    """With nothing pruned the first generation is worth what the dense policy is."""
    dense, key = build.build(with_policy("dense")), jax.random.key(7)
    chosen, state = load_contender(seen_run, dense), dense.init(key)
    state = state._replace(
        moments=chosen.moments, strategy=state.strategy._replace(params=chosen.params)
    )
    expected = jax.jit(dense.step)(key, state)[1].exact_mean
    config = with_policy("magnitude_pruned")
    config.policy.update({"trained": str(seen_run), "num_edges": 128})
    pruned = build.build(config)
    first = jax.jit(pruned.step)(key, pruned.init(key))[1].exact_mean
    np.testing.assert_allclose(first, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"normalizer": "none"}, "a task with moments must normalise observations, got .*none"),
        ({"environment": "mountain_car"}, "moments must be of 2 observations, got 3"),
    ],
)
def test_weights_that_saw_other_observations_are_refused(task, sentence, seen_run, tmp_path):
    config, trained = with_policy("magnitude_pruned"), tmp_path / "trained.npz"
    config.task.update(task)
    with np.load(seen_run) as file:
        arrays = dict(file)
    if "environment" in task:  # 2-32-1 has 128 parameters
        arrays["weights"] = arrays["weights"][:128]
        arrays["config"] = np.array(str(arrays["config"]).replace('"obs_size": 3', '"obs_size": 2'))
    np.savez(trained, **arrays)
    config.policy.trained = str(trained)
    with pytest.raises(
        build.ConfigError, match=f"trained .* cannot be trained further: {sentence}"
    ):
        build.build(config)


@pytest.mark.parametrize(
    ("trained", "why"),
    [
        (None, "no file is named"),
        ("nowhere.npz", ".*No such file or directory.*"),
        (str(CONFIGS / "base.py"), ".*"),
    ],
)
def test_weights_that_are_none_are_refused_in_one_sentence(trained, why):
    config = with_policy("magnitude_pruned")
    config.policy.trained = trained
    sentence = "^policy: trained must be the policy.npz of a finished run with a dense policy, got "
    with pytest.raises(build.ConfigError, match=f"{sentence}.*: ({why}).$"):
        build.build(config)


def test_the_weights_of_other_layers_are_refused_in_one_sentence(dense_file):
    config = with_policy("magnitude_pruned")
    config.policy.update({"trained": str(dense_file), "hidden": (16,)})
    sentence = r"same layers and activations: hidden is \(16,\) here, and \[32\] in '.*'\.$"
    with pytest.raises(build.ConfigError, match=sentence):
        build.build(config)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"hidden_activation": "relu"}, "hidden_activation is 'relu' here, and 'tanh' in "),
        ({"output_activation": "identity"}, "output_activation is 'identity' here, and 'tanh' in "),
        ({"linear_first_hidden": True}, "linear_first_hidden is True here, and False in "),
    ],
)
def test_the_weights_of_another_network_are_refused_in_one_sentence(changes, why, dense_file):
    config = with_policy("magnitude_pruned")
    config.policy.update({"trained": str(dense_file), **changes})
    sentence = f"trained must be a dense policy of the same layers and activations: {why}"
    with pytest.raises(build.ConfigError, match=re.escape(sentence)):
        build.build(config)


def test_the_weights_of_a_policy_that_is_not_dense_are_refused(trained):
    """There may be as many of them."""
    config = with_policy("magnitude_pruned")
    config.policy.trained = str(trained[0].path / "policy.npz")
    with pytest.raises(build.ConfigError, match=r"a run with the policy dense, got .*, of edge_p"):
        build.build(config)


def test_an_argument_of_a_users_own_keeps_its_default(monkeypatch):
    def mine(space, population_size=7):
        return controllers.regularized_evolution(space, population_size)

    monkeypatch.setitem(build.FUNCTIONS["controller"], "mine", mine)
    assert build.section("controller", "mine").population_size == 7
    assert build.section("controller", "regularized_evolution").population_size is None


def test_an_error_in_a_users_own_part_names_its_line(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("def mine():\n    return {}['not there']\n")
    own = runpy.run_path(str(tmp_path / "mine.py"))["mine"]
    monkeypatch.setitem(build.FUNCTIONS["task"], "mine", own)
    config = with_policy("dense")
    config.task = ConfigDict({"name": "mine"})
    with pytest.raises(build.ConfigError) as raised:
        build.build(config)
    sentence = r"task: KeyError: 'not there' \(mine\.py, line 2; the traceback is in (.*\.txt)\)\."
    found = re.fullmatch(sentence, str(raised.value))
    assert found
    assert "KeyError: 'not there'" in Path(found[1]).read_text()
    os.remove(found[1])


def test_a_package_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    config = load_config(str(CONFIGS / "digits.py"))
    with pytest.raises(build.ConfigError, match=r"^task: the digits come with scikit-learn, .*\.$"):
        build.build(config)


def test_what_the_terminal_has_no_letters_for_is_printed_in_others():
    code = (
        "from experiments.command_line import print_in_any_encoding\n"
        "print_in_any_encoding(); print('1 ± 2 → σ 語')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.stdout == "1 +- 2 -> sigma ?\n"


def test_brax_is_named_only_where_a_program_is_brax(tmp_path):
    for file, brax in (("quickstart", True), ("pendulum_edges", False), ("digits", False)):
        config = load_config(str(CONFIGS / f"{file}.py"))
        assert record.Record(config, None, Workdir(tmp_path), origin={}).uses_brax == brax


def test_a_short_flag_asks_for_help_too(monkeypatch):
    monkeypatch.setattr(command_line.flags, "FLAGS", lambda argv: argv)
    assert command_line.parse_flags(["train", "-h"]) == ["train", "--help"]


@pytest.mark.parametrize(
    ("value", "number", "text"),
    [
        (-1290.4, 4, "-1290"), (123.4, 2, "120"), (12345.6, 4, "12350"), (0.012345, 4, "0.01235"),
        (3.0, 4, "3"), (1e20, 4, "1e+20"), (1.5e-7, 2, "1.5e-07"), (float("inf"), 4, "inf"),
    ],
)  # fmt: skip
def test_numbers_are_printed_without_exponents_where_they_are_large(value, number, text):
    assert digits(value, number) == text


def test_an_unknown_policy_of_a_config_file_is_refused_with_the_known_ones():
    with pytest.raises(SystemExit, match=r"policy must be one of linear, dense, .*, got 'nope'"):
        load_config(f"{CONFIGS / 'hopper_policies.py'}:nope,smoke")


# --- config files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_config_file_builds_and_says_how_it_is_run(name):
    path = CONFIGS / f"{name}.py"
    assert f"--config=experiments/configs/{name}.py" in path.read_text()
    config = load_config(str(path))
    search = build.build(config)
    assert search.num_candidates == search.strategy.num_candidates > 0
    smoke = load_config(f"{path}:smoke")
    assert smoke.generations == 3
    assert smoke.policy == config.policy


def test_the_partition_config_has_the_released_settings():
    search = build.build(load_config(str(CONFIGS / "halfcheetah_partition.py")))
    assert search.num_candidates == 450
    assert (search.strategy.num_directions, search.strategy.num_exact) == (150, 150)
    assert search.policy.num_params == 17
    assert search.task.horizon == 1000
    state = jax.eval_shape(search.controller.init, jax.random.key(0))
    assert state.scores.shape == (450,)


def test_the_population_is_a_generation_unless_it_is_set():
    config = pendulum()
    config.controller.population_size = None
    state = jax.eval_shape(build.build(config).controller.init, jax.random.key(0))
    assert state.scores.shape == (2 * 4 + 3,)


@pytest.mark.slow
def test_the_pendulum_config_swings_up(tmp_path):
    """Spinning or hanging scores below -600, holding it upright above -300.

    Five of eight seeds held it up when this was written. With other rounding it is other seeds: two
    or more of eight do, then, 99 times in 100.
    """
    done = run(
        f"--config={CONFIGS / 'pendulum_edges.py'}",
        "--config.seeds=8",
        f"--workdir={tmp_path}",
        environment=environment_as_shipped(),
    )
    assert done.returncode == 0, done.stderr
    returns = [seed["return"]["mean"] for seed in Workdir(tmp_path).read("result.json")["runs"]]
    assert sum(mean > -300 for mean in returns) >= 2, returns


def test_the_result_is_kept_when_a_picture_fails(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no ink")

    monkeypatch.setattr(record, "draw_network", broken)
    with pytest.raises(RuntimeError, match="no ink"):
        train.train(small(), Workdir(tmp_path))
    assert Workdir(tmp_path).read("result.json")["generations"] == 3


def test_the_dense_twin_differs_from_the_quickstart_in_its_architecture_alone():
    sparse = load_config(str(CONFIGS / "quickstart.py")).to_dict()
    dense = load_config(str(CONFIGS / "quickstart_dense.py")).to_dict()
    assert {k for k in sparse if sparse[k] != dense[k]} == {"policy", "controller"}
