"""How a measured figure is judged."""

import json

import numpy as np
import pytest

from benchmarks.measure import (
    Row,
    bootstrap,
    bootstrap_ratio_of_means,
    cell,
    paired_ratio,
    remembered,
    report,
)


@pytest.mark.parametrize(
    ("value", "interval", "target", "direction", "holds"),
    [
        (1.16, (1.14, 1.18), 1.15, "at_most", True),  # the better end meets it
        (1.18, (1.16, 1.20), 1.15, "at_most", False),
        (98.0, (97.0, 101.0), 100.0, "at_least", True),
        (98.0, (97.0, 99.0), 100.0, "at_least", False),
        (1.10, (1.00, 1.20), 1.15, "at_most", None),  # wider than a tenth
        (1.10, (1.00, 1.20), 1.35, "at_most", None),  # one three times as wide has the target
        (1.10, (1.00, 1.20), 1.45, "at_most", True),
        (1.10, (1.00, 1.20), 0.75, "at_most", False),
        (1.10, (1.00, 1.20), 0.75, "at_least", True),
        (1.10, (1.05, 9.00), 0.75, "at_least", True),  # on the target's side
        (1.10, (1.05, 9.00), 1.20, "at_least", None),
        (1.10, None, 1.15, "at_most", None),
        (1.10, (1.09, 1.11), None, None, None),
    ],
)
def test_a_target_holds_when_the_better_end_of_a_narrow_interval_meets_it(
    value, interval, target, direction, holds
):
    assert Row("r", value, interval, "x", target, direction).holds is holds


@pytest.mark.parametrize(
    ("interval", "direction", "holds"),
    [
        ((-0.9, 0.1), "at_least", True),
        ((-1.0, 0.1), "at_least", True),
        ((-1.1, 0.1), "at_least", None),
        ((-1.4, -1.1), "at_least", False),
        ((-1.4, -1.1), "at_most", True),
        ((-1.4, -0.9), "at_most", None),
        ((-0.9, 0.1), "at_most", False),
        (None, "at_least", None),
    ],
)
def test_a_target_for_all_of_an_interval_holds_when_all_of_it_meets_it(interval, direction, holds):
    row = Row("r", -1.0, interval, "points", -1.0, direction, whole=True)
    assert row.holds is holds


def test_the_interval_of_a_median_covers_it():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        low, high = bootstrap(rng.normal(size=25))
        covered += low <= 0 <= high
    assert covered >= 31  # 95 % of 40, less five standard errors


def test_the_sides_of_a_ratio_alternate():
    calls = []
    ratio, interval, times = paired_ratio(lambda: calls.append("n"), lambda: calls.append("d"), 3)
    assert "".join(calls) == "nd" + "dn" + "nd" + "dn"
    assert times.shape == (3, 2)
    assert interval[0] <= ratio <= interval[1]


def test_a_ratio_of_means_is_resampled_by_pairs():
    # Every pair has the ratio 2, so that every resample does; the means alone would vary.
    numerator, denominator = [2.0, 20.0, 200.0], [1.0, 10.0, 100.0]
    ratio, interval = bootstrap_ratio_of_means(numerator, denominator)
    assert ratio == 2.0
    assert interval == (2.0, 2.0)
    ratio, (low, high) = bootstrap_ratio_of_means([1.0, 5.0], [2.0, 1.0])
    assert ratio == 2.0  # not the mean of 1/2 and 5
    assert (low, high) == (0.5, 5.0)  # a quarter of the resamples are the first pair twice


def test_the_picture_stands_beside_the_json(tmp_path):
    drawn = []
    report("name", [Row("a", 1.0)], tmp_path / "a.json", drawn.append)
    assert drawn == [tmp_path / "a.png"]
    report("name", [Row("a", 1.0)], None, drawn.append)
    assert len(drawn) == 1


def test_the_json_has_the_form_that_outsiders_read(tmp_path):
    report("name", [Row("a", 1.0, (0.99, 1.01), "x", 1.1, "at_most")], tmp_path / "x" / "a.json")
    content = json.loads((tmp_path / "x" / "a.json").read_text())
    assert set(content) == {
        "benchmark", "device", "device_count", "processor", "versions", "commit", "rows"
    }  # fmt: skip
    assert content["rows"] == [
        {
            "name": "a",
            "value": 1.0,
            "interval": [0.99, 1.01],
            "unit": "x",
            "target": 1.1,
            "direction": "at_most",
            "whole": False,
            "holds": True,
        }
    ]


def test_a_note_stands_behind_the_figure_or_says_why_there_is_none(tmp_path, capsys):
    rows = [Row("a", 2.0, None, "x", note="loop"), Row("b", None, note="no time left")]
    assert [cell(row) for row in rows] == ["2 x, loop", "not measured: no time left"]
    report("name", rows, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["note"] == "loop"
    assert "not measured: no time left" in capsys.readouterr().out


def test_what_was_measured_is_remembered_and_other_settings_are_refused(tmp_path):
    path = tmp_path / "rows" / "a.json"
    asked = []

    def measure():
        asked.append(1)
        return {"losses": [0.5, 1.0]}

    for _ in range(2):
        assert remembered(path, {"seeds": [2, 1]}, measure) == {"losses": [0.5, 1.0]}
    assert len(asked) == 1
    with pytest.raises(SystemExit) as refused:
        remembered(path, {"seeds": [3, 1]}, measure)
    assert str(refused.value) == f"error: {path} was measured with other settings: remove it."
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]
