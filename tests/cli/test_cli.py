"""The `nestor` command as it is typed: help, refusals, a short demo, and Ctrl-C."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from nestor.cli import _digits, _experiment, _report, main
from nestor.errors import BadArgument


def nestor(*words: str, **options) -> subprocess.CompletedProcess[str]:
    """Type a command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "nestor", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        **options,
    )


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Type a command, in this process."""
    try:
        status = main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


ctrl_c = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")


def interrupted(*words: str, at: str) -> None:
    """Type a demo, and Ctrl-C when it prints that: it ends with one line that says so."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "nestor", "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if at in line:
                break
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=120)
    finally:
        demo.kill()
    assert demo.returncode == 130, err
    assert len(err.splitlines()) == 1
    assert "interrupted" in err


def refused(capsys: pytest.CaptureFixture[str], words: list[str], parts: tuple[str, ...]) -> None:
    """Type what cannot be understood: an error of two lines with all of these parts."""
    status, out, err = typed(capsys, *words)
    assert (status, out) == (2, "")
    for part in parts:
        assert part in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_help_says_what_there_is(capsys, words: list[str]):
    status, out, err = typed(capsys, *words)
    assert (status, err) == (0, "")
    for part in ("nested optimization", "commands:", "demo", "--version", "examples:"):
        assert part in out


def test_help_of_the_demo_lists_its_options(capsys):
    status, out, _ = typed(capsys, "demo", "--help")
    assert status == 0
    for option in ("--steps", "--seed", "--train-size", "--out", "--no-picture", "--quiet"):
        assert option in out


@pytest.mark.parametrize("words", [["--help"], ["demo", "--help"]])
def test_help_fits_a_narrow_page(capsys, words: list[str]):
    _, out, _ = typed(capsys, *words)
    assert max(map(len, out.splitlines())) <= 110


def test_version(capsys):
    import nestor

    assert typed(capsys, "--version") == (0, f"nestor {nestor.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["dmo"], ["'dmo'", "did you mean 'demo'?"]),
        (["zebra"], ["'zebra'", "demo"]),
        (["demo", "shedule"], ["nestor demo", "'shedule'", "did you mean 'schedule'?"]),
        (["demo", "schedule", "--step", "3"], ["nestor demo schedule", "did you mean '--steps'?"]),
        (["demo", "schedule", "extra"], ["nestor demo schedule", "'extra'"]),
        (["--verson"], ["'--verson'", "did you mean '--version'?"]),
        (["demo", "--step", "3"], ["nestor demo", "'--step'", "did you mean '--steps'?"]),
        (["demo", "--trainsize=3"], ["'--trainsize'", "did you mean '--train-size'?"]),
        (["demo", "--steps", "0"], ["--steps", "'0'", "whole number from 1"]),
        (["demo", "--steps", "many"], ["--steps", "'many'", "whole number"]),
        (["demo", "--seed", "-1"], ["--seed", "'-1'", "whole number from 0"]),
        (["demo", "--train-size", "1700"], ["--train-size", "'1700'", "to 1597"]),
        (["demo", "--steps"], ["--steps", "expected one argument"]),
        (["demo", "extra"], ["nestor demo", "'extra'"]),
    ],
)
def test_a_wrong_word_is_named_with_a_remedy(capsys, words: list[str], parts: list[str]):
    refused(capsys, words, (*parts, "Do this: see nestor"))


def test_a_folder_that_cannot_be_made_is_refused_at_once(capsys, tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    status, out, err = typed(capsys, "demo", "--out", str(file / "deeper"))
    assert (status, out) == (2, "")
    assert "'--out'" in err
    assert "Do this: pass another folder" in err


@pytest.mark.parametrize("package", ["sklearn", "matplotlib"])
def test_a_missing_package_is_named_at_once(capsys, monkeypatch, tmp_path: Path, package: str):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    status, _, err = typed(capsys, "demo", "--out", str(tmp_path))
    assert status == 1
    assert "pip install 'nestor[demo]'" in err


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Two steps, few training images."""
    folder = tmp_path_factory.mktemp("demo") / "a" / "b"
    return nestor("demo", "--steps", "2", "--train-size", "150", "--out", str(folder)), folder


def test_the_demo_prints_a_plan_a_table_and_what_it_wrote(short_demo):
    done, folder = short_demo
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("A linear classifier of handwritten digits")
    for part in (
        "seconds",
        "best single strength",
        "one strength per weight",
        "Overfitting",
        "Test loss",
        "Wrote",
    ):
        assert part in done.stdout
    assert max(len(line) for line in lines if str(folder) not in line) <= 110
    assert "\r" not in done.stdout + done.stderr, "a progress bar where there is no terminal"
    assert done.stderr == ""


def test_the_demo_writes_a_record_and_a_picture(short_demo):
    _, folder = short_demo
    assert sorted(path.name for path in folder.iterdir()) == ["demo.json", "demo.png"]
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "demo.json").read_text())
    assert record["interrupted"] is False
    assert record["sizes"] == {"train": 150, "validation": 823, "test": 824}
    assert record["settings"]["steps"] == 2
    assert np.shape(record["log_strengths"]) == (64, 10)
    assert {len(line) for line in record["curves"].values()} == {3}
    assert record["chosen_step"] == np.argmin(record["curves"]["held_out_loss"])
    assert set(record["scores"]) == {_report.SINGLE, _report.EACH}
    one, each = record["scores"].values()
    assert each["validation_loss"] < one["validation_loss"]
    assert record["curves"]["test_loss_for_reporting_only"][0] == pytest.approx(one["test_loss"], abs=1e-3)


@ctrl_c
def test_ctrl_c_writes_what_there_is(tmp_path: Path):
    words = ("--train-size", "150", "--no-picture", "--out", str(tmp_path))
    interrupted(*words, at="hypergradients   0")
    record = json.loads((tmp_path / "demo.json").read_text())
    assert record["interrupted"] is True
    assert "log_strength" in record["single"]
    assert len(record["curves"]["held_out_loss"]) >= 1
    assert "scores" not in record


@pytest.mark.slow
def test_the_schedule_demo_learns_step_sizes_and_records_them(tmp_path: Path):
    done = nestor("demo", "schedule", "--steps", "6", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for part in ("backwards bit for bit", "best constant rate", "learned schedule", "Test loss", "Wrote"):
        assert part in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 115
    assert sorted(path.name for path in tmp_path.iterdir()) == ["schedule.json", "schedule.png"]
    record = json.loads((tmp_path / "schedule.json").read_text())
    assert record["interrupted"] is False
    assert len(record["log_rates"]) == 100
    assert np.ptp(record["log_rates"]) > 0.05
    assert len(record["curves"]["validation_loss"]) == 6
    assert {len(column) for score in record["scores"].values() for column in score.values()} == {20}


@pytest.mark.slow
def test_the_schedule_demo_has_the_hypergradient_of_the_same_run_unrolled(digits):
    from nestor.adjoints import Unroll
    from nestor.cli import _schedule
    from nestor.training import sgd, train

    small = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, jax.numpy.float32), digits)
    key = jax.random.key(5)
    rates = jax.numpy.full(_schedule.STEPS, -2.0, jax.numpy.float32)
    _, slope = _schedule.hypergradient(rates, key, small)

    def unrolled(log_rates):
        model_key, batch_key = jax.random.split(key)
        run = train(
            _schedule.loss,
            _schedule.start(model_key),
            small.train,
            optimizer=sgd(jax.numpy.exp(log_rates), momentum=_schedule.MOMENTUM),
            steps=_schedule.STEPS,
            batch_size=_schedule.BATCH,
            key=batch_key,
            adjoint=Unroll(),
        )
        return _schedule.loss(run.params, small.validation)

    expected = jax.grad(unrolled)(rates)
    assert np.linalg.norm(slope - expected) < 2e-3 * np.linalg.norm(expected)


@pytest.fixture(scope="module")
def digits() -> _digits.Digits:
    """The splits of the demo, with few training images."""
    return _digits.load(seed=1, train_size=120)


def test_the_splits_share_no_image_and_follow_the_seed(digits):
    assert [len(split.labels) for split in digits] == [120, 838, 839]
    again, other = _digits.load(1, 120), _digits.load(2, 120)
    assert np.array_equal(digits.test.images, again.test.images)
    assert not np.array_equal(digits.test.images, other.test.images)
    total = sum(np.asarray(split.images).sum(axis=0) for split in digits)
    assert total == pytest.approx(sum(np.asarray(split.images).sum(axis=0) for split in other))
    with pytest.raises(BadArgument, match="train_size"):
        _digits.load(0, 10)


def test_the_hypergradient_agrees_with_the_dense_linear_algebra(digits):
    log_strengths = jax.numpy.full((64, 10), -6.0)
    run = jax.jit(jax.value_and_grad(_digits.validation_loss, has_aux=True))
    (_, model), gradient = run(log_strengths, _digits.no_model(), digits)

    flat = lambda w: _digits.inner_objective(w.reshape(65, 10), log_strengths, digits.train)  # noqa: E731
    assert np.max(np.abs(jax.grad(flat)(model.ravel()))) < 1e-8
    hessian = np.asarray(jax.hessian(flat)(model.ravel()))
    outer = np.asarray(jax.grad(_digits.loss)(model, digits.validation)).ravel()
    shift = np.zeros((65, 10))
    shift[-1] = 1  # of all biases alike: it changes nothing, so the Hessian is singular along it
    solved = np.linalg.solve(hessian + np.outer(shift, shift), outer).reshape(65, 10)
    expected = -solved[:-1] * np.exp(-6.0) * np.asarray(model)[:-1]
    error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    assert error < 2e-5


def test_the_choice_is_never_shown_a_test_image(digits):
    tuning = _experiment.Tuning(digits)
    held = [leaf for leaf in jax.tree.leaves(vars(tuning)) if hasattr(leaf, "shape")]
    assert held
    assert not any(leaf.shape[0] == len(digits.test.labels) for leaf in held)
    held_out = tuning._held_out
    assert np.array_equal(held_out.sum(axis=0), np.ones(len(digits.validation.labels)))
    assert np.all((tuning._shares[:-1] > 0) != held_out)
    assert tuning._shares.sum(axis=1) == pytest.approx(1.0)
