"""The page about writing a solver: its code runs, and its solver and adjoint pass the kits."""

import re
import types
from pathlib import Path

import jax
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-solver.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
USE = next(number for number, block in enumerate(BLOCKS) if "nestor.minimize" in block)


def page_module() -> types.ModuleType:
    """What the page defines; the block that uses it is run by a test of its own."""
    module = types.ModuleType("write_a_solver")
    for number, block in enumerate(BLOCKS):
        if number == USE:
            block = "import nestor"
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), module.__dict__)
    return module


page = page_module()
TestBarzilaiBorwein = page.TestBarzilaiBorwein


@pytest.mark.parametrize("x64", [False, True])
def test_the_example_runs(x64: bool):
    with jax.enable_x64(x64):
        exec(compile(BLOCKS[USE], f"{PAGE.name}, use", "exec"), vars(page_module()))


@pytest.mark.parametrize(
    "check", ["test_is_frozen_and_compares_by_value", "test_derivative_of_a_root", "test_failure_is_nan"]
)
def test_the_adjoint_of_the_page(check: str):
    getattr(page.TestShortUnroll(), check)()


def test_it_is_as_short_as_the_page_says():
    assert len(BLOCKS[0].strip().splitlines()) <= 40
    assert len(BLOCKS[0][BLOCKS[0].index("@trees.record") :].strip().splitlines()) <= 25
