"""What a run is worth, measured again: finished or not, the same number for the same seed."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from esenas_jax import tasks
from esenas_jax.types import Stream, stream
from experiments import evaluate, results, train
from experiments.command_line import load_config
from experiments.policy_file import load_policy
from experiments.workdir import Workdir

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    config = load_config(f"{ROOT}/tests/pendulum_config.py:edges,es,es")
    config.task.horizon = 32
    config.update({"generations": 12, "checkpoint_every": 4})
    train.train(config, Workdir(folder))
    return folder


def measured(folder: Path, **arguments) -> dict:
    return evaluate.evaluate(Workdir(folder), **arguments)


@pytest.fixture(scope="module")
def of_ten_episodes(finished) -> dict:
    """What the run is worth, measured on ten episodes of seed 3."""
    return measured(finished, episodes=10, seed=3)


def test_a_finished_run_is_measured_as_a_loop_over_its_episodes_measures_it(finished):
    """With nothing but the policy file, and the environment's own functions."""
    act, world = load_policy(finished / "policy.npz"), tasks.pendulum()
    key = stream(jax.random.key(5), 0, Stream.EVALUATE)

    def episode(start):
        state, obs = world.reset(jax.random.fold_in(jax.random.fold_in(key, start), 0))

        def step(carry, _):
            state, seen = world.step(carry[0], act(carry[1]))
            return (state, seen.obs), seen.reward

        return jnp.sum(jax.lax.scan(step, (state, obs), length=32)[1])

    returns = np.asarray(jax.jit(jax.vmap(episode))(jnp.arange(20)))
    found = measured(finished, episodes=20, seed=5)
    error = returns.std(ddof=1) / np.sqrt(20)
    assert found["return"]["mean"] == pytest.approx(returns.mean(), rel=1e-5)
    assert found["return"]["standard_error"] == pytest.approx(error, rel=1e-4)
    assert found["episode_length"] == {"mean": 32.0, "standard_error": 0.0}
    assert (found["report_episodes"], found["failed_episodes"]) == (20, 0)
    assert found["run"].endswith("finished after 12 generations")


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(finished, of_ten_episodes):
    assert measured(finished, episodes=10, seed=3) == of_ten_episodes
    assert measured(finished, episodes=10, seed=4)["return"] != of_ten_episodes["return"]


def test_many_episodes_are_measured_in_parts_and_it_is_said_how_far_they_are(
    finished, of_ten_episodes, monkeypatch, capsys
):
    monkeypatch.setattr(evaluate, "AT_A_TIME", 4)
    monkeypatch.setattr(evaluate, "EVERY_SECONDS", 0.0)
    found = measured(finished, episodes=10, seed=3)
    for name in ("return", "episode_length"):
        assert found[name] == pytest.approx(of_ten_episodes[name], rel=1e-4)
    assert found["report_episodes"] == 10
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said] == ["4 of 10 episodes", "8 of 10 episodes"]


def test_an_unfinished_run_is_measured_from_its_newest_checkpoint_and_left_alone(
    finished, of_ten_episodes, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    (folder / "policy.npz").unlink()
    torn = folder / "checkpoints" / "16.orbax-checkpoint-tmp"  # of a run that is going on
    torn.mkdir()
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    # The end of the run, so that the choice is that of the run itself.
    got = measured(folder, episodes=10, seed=3)
    assert got.pop("run").endswith("generation 12 of 12")
    assert got == {name: value for name, value in of_ten_episodes.items() if name != "run"}
    shutil.rmtree(folder / "checkpoints" / "12")
    assert measured(folder, episodes=10)["run"].endswith("generation 8 of 12")
    after = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    assert [a for a in after if a[0].name != "checkpoints"] == [
        b for b in before if b[0].exists() and b[0].name != "checkpoints"
    ]


def test_the_command_prints_what_is_measured(finished, of_ten_episodes):
    """In a process of its own, the same number."""
    command = [
        sys.executable, "-m", "experiments.evaluate", f"--workdir={finished}", "--episodes=10",
        "--seed=3",
    ]  # fmt: skip
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = {"Run": of_ten_episodes["run"]} | results.measured(of_ten_episodes, "of seed 3")
    assert printed == results.table(lines) + "\n"
    assert list(lines) == ["Run", "Return", "Episode length", "Measured on"]


def test_a_damaged_newest_checkpoint_is_named(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "result.json").unlink()
    (folder / "checkpoints" / "12" / "about" / "metadata").write_text("{")
    assert measured(folder, episodes=4)["run"].endswith("generation 8 of 12")
    assert f"A checkpoint is damaged: {folder}/checkpoints/12 (" in capsys.readouterr().out
    assert (folder / "checkpoints" / "12").exists()
