"""Rooms import each other by front doors, and a front door shows what `__all__` says."""

import ast
import importlib
import re
import sys
import types
from pathlib import Path

import pytest

from tests.house.source import (
    FILES,
    MODULES,
    PACKAGE,
    ROOMS,
    imported_names,
    label,
    module_name,
    tree,
)

SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
INNER = set(ROOMS) | set(MODULES)


def side_doors(module: str, is_package: bool, syntax: ast.AST) -> list[str]:
    """The imports of one module that do not go through a front door, each as one line of text."""
    own = [*module.split("."), "", ""][1]
    wrong = []
    for line, name in imported_names(module, is_package, syntax):
        parts = name.split(".")
        if parts[0] != "nestor":
            continue
        place = parts[1] if len(parts) > 1 else ""
        if place not in INNER:
            if module not in ("nestor", "nestor.__main__"):
                wrong.append(f"line {line}: {name} comes from the top of the house; name its room")
        elif place != own and any(part.startswith("_") for part in parts[2:]):
            wrong.append(f"line {line}: {name} is inside nestor.{place}; use its front door")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_go_through_front_doors(path: Path):
    wrong = side_doors(module_name(path), path.name == "__init__.py", tree(path))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "from nestor.trees._arithmetic import dot",
        "from nestor.trees import _arithmetic",
        "import nestor.trees._arithmetic as arithmetic",
        "from ..trees._arithmetic import dot",
        "def late():\n    from nestor.errors import _private",
        "import nestor",
        "from nestor import argmin",
    ],
)
def test_a_side_door_is_refused(line: str):
    assert side_doors("nestor.programs._wrong", False, ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "from nestor.trees import dot",
        "from nestor import trees",
        "from nestor.programs._programs import hoist",
        "from jax._anything import something",
    ],
)
def test_a_front_door_is_allowed(line: str):
    assert not side_doors("nestor.programs._right", False, ast.parse(line))


@pytest.mark.parametrize("room", ROOMS)
def test_a_door_has_one_sentence(room: str):
    assert (PACKAGE / room / "__init__.py").exists(), f"nestor.{room} has no front door"
    text = ast.get_docstring(tree(PACKAGE / room / "__init__.py"))
    assert text, f"nestor.{room} does not say what it is for"
    plain = text.replace("e.g.", "").replace("i.e.", "")
    ends = [match.end() for match in SENTENCE_END.finditer(plain)]
    assert ends == [len(plain)], f"nestor.{room} says more, or less, than one sentence: {text!r}"


@pytest.mark.parametrize("place", ROOMS + MODULES)
def test_a_door_shows_what_it_lists(place: str):
    module = importlib.import_module(f"nestor.{place}")
    if place in ROOMS:
        later = getattr(module, "_LATER", {})  # names that a door brings when they are asked for
        shown = [name for name in {**vars(module), **later} if not name.startswith("_")]
        if getattr(module, "jaxtyping", None) is sys.modules.get("jaxtyping", module):
            shown.remove("jaxtyping")  # put there by `--jaxtyping-packages`, the beartype hook
    else:  # a module of the ground floor also holds what it imports
        shown = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
    assert sorted(shown) == sorted(getattr(module, "__all__", []))
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_house_shows_what_it_lists():
    import nestor

    for name in nestor.__all__:
        assert hasattr(nestor, name), f"nestor.__all__ lists {name}, which is not there"
    shown = {
        name
        for name, value in vars(nestor).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    unlisted = shown - set(nestor.__all__)
    assert not unlisted, f"not in nestor.__all__: {sorted(unlisted)}"


@pytest.mark.parametrize("room", ROOMS)
def test_files_inside_a_room_are_private(room: str):
    inside = [path for path in (PACKAGE / room).rglob("*.py") if not path.name.startswith("_")]
    if room == "minimize":  # dict-minimize's modules, which programs import by these names
        inside = [path for path in inside if not path.name.endswith("_api.py")]
    assert not inside, f"rename with a leading _: {[label(path) for path in inside]}"
