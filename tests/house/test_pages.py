"""Every Python block of the pages and of the README runs, and prints what the page says it prints."""

import contextlib
import io
import re
import traceback

import jax
import pytest

import nestor
from nestor import (
    adjoints,
    dashboard,
    linear,
    loops,
    plots,
    programs,
    search,
    solvers,
    testing,
    trees,
    tuning,
)
from tests.house.source import REPO

PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
BLOCK = re.compile(r"^```(python|output)\n(.*?)^```$", re.M | re.S)
WITH = {
    "pytorch.md": "torch",
    "coming-from-optuna.md": "optuna",
}  # pages whose blocks need what is not in the environment of the tests
SETTINGS = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}


@pytest.fixture
def as_a_user():
    """JAX as a user finds it; a page may change a setting, and the next page starts afresh."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    for name, value in SETTINGS.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def run(text: str, name: str) -> list[str]:
    """Run the blocks of a page in one namespace; what is wrong, if anything."""
    namespace: dict[str, object] = {"__name__": name}
    printed = None
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(2))
        if block[1] == "output":
            if printed is None or printed.strip() != block[2].strip():
                return [f"{name}:{line + 1}: the page says\n{block[2]}and it printed\n{printed}"]
            continue
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                exec(compile("\n" * line + block[2], name, "exec"), namespace)
        except Exception:
            return [f"{name}: {traceback.format_exc()}"]
        printed = said.getvalue()
    return []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_a_page_runs(page, as_a_user):
    if page.name in WITH:
        pytest.importorskip(WITH[page.name])
    wrong = run(page.read_text(encoding="utf-8"), page.relative_to(REPO).as_posix())
    assert not wrong, wrong[0]


def test_a_wrong_page_is_seen():
    assert run("```python\n1 / 0\n```\n", "page")
    assert run("```python\nprint(1)\n```\n\n```output\n2\n```\n", "page")
    assert not run("```python\nprint(1)\n```\n\n```output\n1\n```\n", "page")


def test_every_status_has_its_remedy():
    page = (REPO / "docs" / "how-to" / "it-does-not-converge.md").read_text(encoding="utf-8")
    missing = [status.name for status in nestor.Status if f"| `{status.name}` |" not in page]
    assert not missing, f"no row in docs/how-to/it-does-not-converge.md: {missing}"


def test_the_reference_lists_what_extenders_use():
    """The rooms that people extend: every name that a door shows stands somewhere in the reference."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (REPO / "docs" / "reference").glob("*.md"))
    listed = set(re.findall(r"^\.\. auto\w+::\s+(nestor\.[\w.]+)", pages, re.M))
    rooms = (adjoints, dashboard, linear, loops, plots, programs, search, solvers, testing, trees, tuning)
    missing = [
        f"{room.__name__}.{name}"
        for room in rooms
        for name in room.__all__
        if f"{room.__name__}.{name}" not in listed and f"nestor.{name}" not in listed
    ]
    assert not missing, f"on no page under docs/reference/: {missing}"
