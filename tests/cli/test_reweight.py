"""`nestor demo reweight`: what it prints and writes, what it refuses, Ctrl-C, and the problem beneath."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor.cli import _reweight
from tests.cli.test_cli import ctrl_c, interrupted, refused, typed
from tests.cli.test_cli import nestor as command

SHORT = ("--steps", "100", "--train-size", "300", "--clean-size", "60")


@pytest.fixture(scope="module")
def noisy() -> _reweight.Noisy:
    """Few images, a quarter of them with a wrong label."""
    return _reweight.load(1, 200, 40, 0.25)


@pytest.mark.slow
def test_the_demo_reweights_and_records_it(tmp_path: Path):
    done = command("demo", "reweight", *SHORT, "--out", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    parts = (
        "clean only",
        "noisy and clean, reweighted",
        "oracle",
        "of the weight",
        "SAMA(eps=None)",
        "Wrote",
    )
    for part in parts:
        assert part in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 120
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reweight.json", "reweight.png"]
    record = json.loads((tmp_path / "reweight.json").read_text())
    assert record["interrupted"] is False
    assert record["sizes"] == {"train": 300, "wrong": 120, "clean": 60, "test": 1437}
    assert len(record["weights"]) == 300
    curves = record["curves"]
    assert curves["step"] == list(range(2, 101, 2))
    lengths = {len(line) for line in curves["test_accuracy"].values()}
    assert lengths == {50} == {len(curves["weight_of_right"])}
    assert curves["weight_of_wrong"][-1] < curves["weight_of_right"][-1]
    assert set(record["test_accuracy"]) == {
        "noisy",
        "clean only",
        "noisy and clean",
        "oracle",
        "reweighted",
    }
    assert record["test_accuracy"]["reweighted"] > record["test_accuracy"]["noisy"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--wrng", "3"], ["'--wrng'", "did you mean '--wrong'?"]),
        (["--wrong", "95"], ["--wrong", "'95'", "from 0 to 80"]),
        (["--clean-size", "x"], ["--clean-size", "'x'", "whole number from 10"]),
        (["extra"], ["'extra'"]),
    ],
)
def test_a_wrong_word_is_named_with_a_remedy(capsys, words: list[str], parts: list[str]):
    remedy = "Do this: see nestor demo reweight --help"
    refused(capsys, ["demo", "reweight", *words], ("nestor demo reweight", *parts, remedy))


def test_help_lists_the_options(capsys):
    status, out, _ = typed(capsys, "demo", "reweight", "--help")
    assert status == 0
    for part in ("--steps", "--clean-size", "--wrong", "--seed", "--out", "--no-picture", "Ctrl-C"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.slow
@ctrl_c
def test_ctrl_c_writes_what_there_is(tmp_path: Path):
    words = (*SHORT, "--no-picture", "--out", str(tmp_path), "--steps", "100000")
    interrupted("reweight", *words, at="without weights   0")
    record = json.loads((tmp_path / "reweight.json").read_text())
    assert record["interrupted"] is True
    assert len(record["curves"]["test_accuracy"]["noisy"]) >= 1
    assert "test_accuracy" not in record


def test_the_parts_share_no_image_and_the_wrong_labels_are_as_many_as_asked_for(noisy):
    parts = [noisy.train, noisy.clean, noisy.test]
    assert [len(part.labels) for part in parts] == [200, 40, 1557]
    assert noisy.wrong.sum() == 50
    again = _reweight.load(1, 200, 40, 0.0)
    assert np.array_equal(noisy.train.images, again.train.images)
    assert np.array_equal(noisy.train.labels != again.train.labels, noisy.wrong)
    every = np.concatenate([part.images for part in parts])
    _, digits = _reweight.images_and_labels()
    assert len(every) == len(digits)
    assert len(np.unique(every, axis=0)) >= len(np.unique(_reweight.images_and_labels()[0], axis=0)) - 1


def test_the_rivals_are_four_separate_trainings(noisy):
    graph, names = _reweight.rivals(noisy, 20, seed=3)
    together = graph.run(20, key=jax.random.key(4)).params["models"]
    alone = nestor.Graph(
        {
            "models": nestor.Level(
                lambda p, part: jnp.mean(_reweight.losses(p["models"], part)),
                _reweight.start(jax.random.split(jax.random.key(3))[0]),
                nestor.sgd(nestor.schedules.Cosine(_reweight.RATE, 20), momentum=_reweight.MOMENTUM),
                data=noisy.train,
            )
        }
    ).run(20, key=jax.random.key(4))
    mine = jax.tree.map(lambda leaf: leaf[names.index("noisy")], together)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(alone.params["models"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_looking_at_a_run_does_not_change_it(noisy):
    graph = _reweight.reweighting(noisy, 10, seed=3)
    *_, last = _reweight.looks(graph, ["reweighted"], noisy, 10, seed=3)
    whole = graph.run(10, key=jax.random.key(4))
    np.testing.assert_allclose(last.loss, whole.history.loss[-1], rtol=1e-6)
    assert last.step == 10
    assert last.weights is not None
    assert np.all((last.weights > 0) & (last.weights < 1))
