"""`import nestor` brings in nothing optional, changes nothing and compiles nothing.

What the import costs is measured in `benchmarks/import_time.py`; nothing here looks at a clock.
"""

import json
import subprocess
import sys

import pytest

HEAVY = (
    *("optax", "equinox", "lineax", "optimistix", "jaxopt"),
    *("matplotlib", "sklearn", "scipy.optimize", "rich", "torch", "tensorflow"),
    *("plotly", "starlette", "uvicorn"),
)

PROBE = """
import json, sys
import jax, jax.monitoring

before = dict(jax.config.values)
events = []
jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
import nestor
print(json.dumps({
    "changed": sorted(k for k, value in jax.config.values.items() if value != before.get(k)),
    "compiled": sorted({name for name in events if "compile" in name or "trace" in name}),
    "modules": sorted(set(sys.modules)),
}))
if sys.argv[1:]:
    nestor.argmin, nestor.minimize
    print(json.dumps(sorted(set(sys.modules))))
    jax.jit(lambda x: x + 1)(1.0)
    print(json.dumps([name for name in events if "compile" in name]))
"""


def probe(*arguments: str) -> list[str]:
    """Run the probe in a fresh interpreter; what it printed, line by line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """One run, which also compiles something after the import, to show that it would be seen."""
    return probe("and compile")


@pytest.mark.parametrize("name", HEAVY)
def test_nothing_optional_is_imported(lines: list[str], name: str):
    assert name not in json.loads(lines[0])["modules"]


@pytest.mark.parametrize("name", [*HEAVY, "nestor.proximal", "nestor.training", "nestor.search"])
def test_what_minimizes_brings_nothing_that_it_may_not_need(lines: list[str], name: str):
    assert name not in json.loads(lines[1])


def test_no_setting_of_jax_is_changed(lines: list[str]):
    assert json.loads(lines[0])["changed"] == []


def test_nothing_is_compiled(lines: list[str]):
    assert json.loads(lines[0])["compiled"] == []
    assert json.loads(lines[2]), "the probe would not have seen a compilation"
