"""Every example is a script of under 80 lines that runs as it is; long ones have a quick mode."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

DAILY = {"stackelberg.py"}  # of the long ones, run with their quick mode; the others are slow tests
SLOW = {
    "three_level_nest.py",
    "charged_particle.py",
    "game_of_two.py",
    "nested_minimum.py",
    "per_weight_l2.py",
    "perturbation_confusion.py",
}  # without a quick mode, and yet slow tests
WITH = dict.fromkeys(  # what is not in the environment of the tests
    ["calibration_torch.py", "deep_dream_torch.py", "torch_layer.py"], "torch"
)


def test_there_are_examples():
    assert EXAMPLES


def has_quick_mode(script: Path) -> bool:
    return "--quick" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            path,
            id=path.name,
            marks=pytest.mark.slow
            if path.name in SLOW or (has_quick_mode(path) and path.name not in DAILY)
            else (),
        )
        for path in EXAMPLES
    ],
)
def test_an_example_runs(script: Path, tmp_path: Path):
    if script.name in WITH:
        pytest.importorskip(WITH[script.name])
    quick = ["--quick"] if has_quick_mode(script) else []
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script), *quick],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout, "an example prints what it found"


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(script: Path):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 80
