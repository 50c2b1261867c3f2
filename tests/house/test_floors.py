"""The floors hold, and the machine that says so does refuse what is forbidden."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import PACKAGE, REPO


def lint_imports(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the contracts of this repository on the package under `root/src`."""
    return subprocess.run(
        [
            *(
                sys.executable,
                "-c",
                "from importlinter.cli import lint_imports_command as run; run()",
            ),
            *("--config", str(REPO / "pyproject.toml"), "--no-cache", "--no-logo"),
            *arguments,
        ],
        cwd=root / "src",
        env={**os.environ, "PYTHONPATH": str(root / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def add(package: Path, file: str, line: str) -> None:
    """Append one line to a file of the package; a room that is not there yet gets a door first."""
    path = package / file
    path.parent.mkdir(exist_ok=True)
    (path.parent / "__init__.py").touch()
    with path.open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package to do wrong in."""
    package = tmp_path / "src" / "nestor"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def test_the_floors_hold():
    done = lint_imports(REPO)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


VIOLATIONS = {
    # what is wrong: (file, the line it gets, words of the refusal)
    "up by one floor": (
        "linear/_wrong.py",
        "import nestor.adjoints",
        "nestor.linear is not allowed to import nestor.adjoints",
    ),
    "up by many floors": (
        "trees/_wrong.py",
        "from nestor import cli",
        "nestor.trees is not allowed to import nestor.cli",
    ),
    "up from the ground": (
        "errors.py",
        "import nestor.trees",
        "nestor.errors is not allowed to import nestor.trees",
    ),
    "next door on one floor": (
        "loops/_wrong.py",
        "import nestor.linear",
        "nestor.loops is not allowed to import nestor.linear",
    ),
    "up, hidden in a function": (
        "adjoints/_wrong.py",
        "def late():\n    from nestor.solvers import LBFGS\n    return LBFGS",
        "nestor.adjoints is not allowed to import nestor.solvers",
    ),
    "a room on no floor": ("attic/_wrong.py", "BOX = 1", "attic"),
}


@pytest.mark.parametrize("wrong", VIOLATIONS)
def test_a_violation_is_refused(copy: Path, wrong: str):
    file, line, words = VIOLATIONS[wrong]
    for room in ("adjoints", "cli", "linear", "loops", "solvers", "trees"):
        add(copy, f"{room}/__init__.py", "")
    before = lint_imports(copy.parents[1], "--contract", "floors")
    assert before.returncode == 0, before.stdout + before.stderr

    add(copy, file, line)

    done = lint_imports(copy.parents[1], "--contract", "floors")
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
