"""Single problems of CUTEst, as the package sif2jax writes them in JAX, and the frozen list of those we trust.

Importing sif2jax runs every one of its 849 problems; here its packages are entered without running what is in
their `__init__`, so that a problem costs its own file and no more.
"""

import functools
import importlib
import importlib.util
import json
import pathlib
import re
import statistics
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree

import nestor

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).parent
LISTS = HERE / "cutest"
FOLDERS = ("_unconstrained_minimisation", "_bounded_minimisation", "_quadratic_problems")


class Problem(NamedTuple):
    """A problem on vectors.

    Attributes:
        name: as in CUTEst.
        fun: from a vector (n,) to a scalar.
        x0: the default start, (n,), float64.
        lower, upper: bounds, (n,), or None.
    """

    name: str
    fun: Callable[[Any], Any]
    x0: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None


@functools.cache
def _enter() -> pathlib.Path:
    """Make sif2jax's packages importable without running them."""
    spec = importlib.util.find_spec("sif2jax")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("sif2jax is not installed: pip install 'nestor[cutest]'")
    root = pathlib.Path(next(iter(spec.submodule_search_locations)))
    for name, folder in (("sif2jax", root), ("sif2jax.cutest", root / "cutest")):
        _shell(name, folder)
    for folder in FOLDERS:
        _shell(f"sif2jax.cutest.{folder}", root / "cutest" / folder)
    return root


def _shell(name: str, folder: pathlib.Path) -> None:
    if name not in sys.modules:
        shell = types.ModuleType(name)
        shell.__path__ = [str(folder)]
        sys.modules[name] = shell


def shown(folder: str) -> Iterator[tuple[str, str]]:
    """(module, class) of every problem that a folder of sif2jax shows; those it keeps back are left out."""
    text = (_enter() / "cutest" / folder / "__init__.py").read_text()
    for module, classes in re.findall(r"^from \.(\w+) import (\([^)]*\)|.*)", text, flags=re.M):
        for name in re.findall(r"(\w+) as \w+", classes):
            yield module, name


def load(folder: str, module: str, name: str) -> Problem:
    """One problem, as a function of a vector."""
    _enter()
    its = getattr(importlib.import_module(f"sif2jax.cutest.{folder}.{module}"), name)()
    y0 = its.y0
    x0, back = ravel_pytree(y0)
    bounds = getattr(its, "bounds", None)
    sides = (None, None) if bounds is None else tuple(np.asarray(ravel_pytree(b)[0], float) for b in bounds)

    def fun(x: Any) -> Any:
        return jnp.asarray(its.objective(back(x), its.args)).reshape(())

    return Problem(name, fun, np.asarray(x0, float), *sides)


def frozen(which: str) -> list[dict[str, Any]]:
    """The verified list: `unconstrained` or `bounded`."""
    return json.loads((LISTS / f"{which}.json").read_text())["problems"]


# --- the judge --------------------------------------------------------------------------------------------------

BAR = 1e-5  # of max(1, |g0|), in the largest absolute entry of the projected gradient
STEPS = 5000  # evaluations that every method may spend


class Judge:
    """The verdict on points of one problem, in float64, by the problem's own gradient and nothing of a solver."""

    def __init__(self, problem: Problem):
        self.problem = problem
        size = problem.x0.size
        self.lower = np.full(size, -np.inf) if problem.lower is None else problem.lower
        self.upper = np.full(size, np.inf) if problem.upper is None else problem.upper
        self.start = np.clip(problem.x0, self.lower, self.upper)
        self._both = jax.jit(jax.value_and_grad(problem.fun))
        self.bar = BAR * max(1.0, self.optimality(self.start, self.both(self.start)[1]))

    def both(self, x: Any) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        value, grad = self._both(jnp.asarray(x))
        return float(value), np.asarray(grad)

    def optimality(self, x: np.ndarray, grad: np.ndarray) -> float:
        """The largest entry of the projected gradient; infinite outside the box."""
        if np.any(x < self.lower) or np.any(x > self.upper):
            return np.inf
        size = float(np.max(np.abs(x - np.clip(x - grad, self.lower, self.upper))))
        return size if np.isfinite(size) else np.inf

    def verdict(
        self, x: Any, success: bool, evaluations: int, best: float, first: int | None
    ) -> dict[str, Any]:
        """What a solve came to.

        Args:
            x: the point that was returned.
            success: what the solver says.
            evaluations: how many it made.
            best: the least value known.
            first: the evaluation that first met the bar, or None.
        """
        x = np.asarray(x)
        value, grad = self.both(x)
        stationary = self.optimality(x, grad) <= self.bar
        at_best = bool(value <= best + 1e-6 * max(1.0, abs(best)))
        return {
            "stationary": stationary,
            "success": bool(success),
            "best": stationary and at_best,
            "value": value,
            "optimality": self.optimality(x, grad),
            "evaluations": int(evaluations),
            "first": first if first is not None else (int(evaluations) if stationary else None),
        }


def by_nestor(judge: Judge, best: float, solver: Any) -> dict[str, Any]:
    """A solve by a solver of ours, or by the default where it is None; evaluations outside the box are counted."""
    outside: list[int] = []
    boxed = judge.problem.lower is not None

    def look(report: nestor.Report) -> None:
        x = np.asarray(report.x)
        if np.any(x < judge.lower) or np.any(x > judge.upper):
            outside.append(report.step)

    solution = nestor.minimize(
        judge.problem.fun,
        jnp.asarray(judge.problem.x0),
        bounds=(judge.lower, judge.upper) if boxed else None,
        solver=solver,
        max_steps=STEPS,
        history=True,
        callback=look if boxed else None,
        raise_on_failure=False,
    )
    assert solution.history is not None
    good = np.flatnonzero(np.asarray(solution.history.optimality) <= judge.bar)
    first = int(good[0]) + 1 if good.size else None
    row = judge.verdict(solution.x, solution.success, solution.stats.evaluations, best, first)
    return {**row, "status": solution.status.name, "outside": len(outside)}


def by_scipy(judge: Judge, best: float, method: str) -> dict[str, Any]:
    """A solve by SciPy with its own tolerances, over a compiled value and gradient."""
    evaluations, first = 0, None

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal evaluations, first
        value, grad = judge.both(x)
        evaluations += 1
        if first is None and np.isfinite(value) and judge.optimality(x, grad) <= judge.bar:
            first = evaluations
        return value, grad

    more: dict[str, Any] = {"bounds": scipy.optimize.Bounds(judge.lower, judge.upper)}
    more = more if judge.problem.lower is not None else {}
    options = {"maxiter": STEPS} | ({"maxfun": STEPS} if method == "L-BFGS-B" else {})
    result = scipy.optimize.minimize(fun, judge.start, jac=True, method=method, options=options, **more)
    return {
        **judge.verdict(result.x, result.success, evaluations, best, first),
        "status": str(result.message),
    }


def count(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one method over all problems."""
    solved = [row for row in rows if row["stationary"]]
    denied = [row for row in solved if not row["success"]]
    return {
        "solved": len(solved),
        "percent": round(100 * len(solved) / len(rows), 2),
        "false_successes": sum(row["success"] and not row["stationary"] for row in rows),
        "denied": len(denied),
        "wrong_denials": sum(row["best"] for row in denied),
        "at_best_value": sum(row["best"] for row in rows),
        "evaluations_median": statistics.median(row["evaluations"] for row in rows),
        "outside": sum(row.get("outside", 0) for row in rows),
    }


def profile(rows: dict[str, list[dict[str, Any]]], path: pathlib.Path, title: str) -> None:
    """Write the data profile: the share of problems that met the bar within so many evaluations."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    grid = np.unique(np.round(np.geomspace(1, STEPS, 200)).astype(int))
    curves = {}
    for name, results in rows.items():
        first = np.array([row["first"] if row["first"] is not None else np.inf for row in results])
        curves[name] = [round(float(np.mean(first <= k)), 4) for k in grid]
        axes.step(grid, curves[name], where="post", label=name)
    axes.set(xscale="log", xlabel="evaluations", ylabel="share of problems", ylim=(0, 1.02), title=title)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)
    results = {"evaluations": grid.tolist(), "share": curves, "problems": rows}
    path.with_suffix(".json").write_text(json.dumps(results, indent=None) + "\n")


# --- a comparison ------------------------------------------------------------------------------------------------

Run = Callable[[Judge, float], dict[str, Any]]


def compare(
    which: str, title: str, methods: dict[str, Run], sampled: dict[str, Run], names: list[str]
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Every method on every problem of a frozen list, one problem after the other.

    Args:
        which: the list, `unconstrained` or `bounded`.
        title: of the profile.
        methods, sampled: (judge, best value) -> the verdict; those sampled run on every ninth problem.
        names: problems to run; all where it is empty, and then the profile is written.

    Returns:
        The number of problems, and the counts of every method.
    """
    jax.config.update("jax_enable_x64", True)
    listed = [p for p in frozen(which) if not names or p["name"] in names]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in (*methods, *sampled)}
    for i, entry in enumerate(listed):
        judge = Judge(load(entry["folder"], entry["module"], entry["name"]))
        assert judge.start.size == entry["n"]
        assert np.isfinite(judge.bar)
        runs = {**methods, **sampled} if i % 9 == 0 else methods
        for name, run in runs.items():
            row = run(judge, entry["best"])
            rows[name].append({"problem": entry["name"], **row})
            if not row["success"] or not row["stationary"]:
                print(entry["name"], name, {k: row[k] for k in row if k != "first"}, file=sys.stderr)
        jax.clear_caches()
    if not names:
        shown = {name: rows[name] for name in methods}
        profile(shown, HERE / "results" / f"cutest_{which}", f"{title}: {len(listed)} problems")
    return len(listed), {name: count(results) for name, results in rows.items()}
