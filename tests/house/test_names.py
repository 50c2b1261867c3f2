"""Names that say something, errors that say something, and nothing of one machine in the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.source import FILES, MODULES, REPO, ROOMS, label, tree

EMPTY_NAMES = {"utils", "util", "misc", "common", "core", "helpers", "_src"}

# Written so that no pattern matches its own text.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:(?:work|root|home|Users|farm)/|tmp/[a-z])")
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|download\.pytorch\.org|conda\.anaconda\.org"
    r"|://[a-z.]*(?:pypi|pythonhost|npmj|debian)[a-z]*\."
)


def test_rooms_say_what_is_in_them():
    names = {part for path in FILES for part in (path.stem, path.stem.lstrip("_"))}
    assert not (names | set(ROOMS) | set(MODULES)) & EMPTY_NAMES


def test_no_module_shadows_the_standard_library():
    names = {path.stem for path in FILES if not path.stem.startswith("__")} | set(ROOMS)
    assert not names & sys.stdlib_module_names


def silent_raises(syntax: ast.AST) -> list[int]:
    """The lines that raise an error without a message; `raise` and `raise error` pass it on."""
    lines = []
    for node in ast.walk(syntax):
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        error = node.exc
        if isinstance(error, ast.Call):
            silent = not (error.args or error.keywords)
        else:
            name = error.attr if isinstance(error, ast.Attribute) else getattr(error, "id", "")
            silent = name[:1].isupper()
        if silent:
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("path", FILES, ids=label)
def test_every_raise_has_a_message(path: Path):
    lines = silent_raises(tree(path))
    assert not lines, f"{label(path)} raises without a message on line(s) {lines}"


def test_a_silent_raise_is_seen():
    source = "raise ValueError\nraise ValueError()\nraise errors.Bad\nraise\nraise e\nraise E('why')"
    assert silent_raises(ast.parse(source)) == [1, 2, 3]


def tracked_text() -> list[tuple[Path, str]]:
    """Every text file that git tracks or would add."""
    if not (REPO / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        check=True,
    )
    paths = [REPO / name for name in listed.stdout.decode().split("\0") if name]
    texts = []
    for path in paths:
        try:
            texts.append((path, path.read_text(encoding="utf-8")))
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    return texts


@pytest.mark.parametrize(
    ("what", "pattern"), [("machine path", MACHINE_PATH), ("registry host", REGISTRY_HOST)]
)
def test_nothing_of_one_machine_is_tracked(what: str, pattern: re.Pattern[str]):
    found = [
        f"{label(path)}:{number}: {line.strip()[:120]}"
        for path, text in tracked_text()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, f"{what}:\n" + "\n".join(found)


def test_the_patterns_see_what_they_look_for():
    assert MACHINE_PATH.search("cd " + "/" + "root/x")
    assert MACHINE_PATH.search('"' + "/" + "tmp/jobs/1")
    assert not MACHINE_PATH.search("tests/home/x and https://example.com/home/x and ~/work/x")
    assert REGISTRY_HOST.search("https:" + "//" + "pypi" + ".org/simple")
