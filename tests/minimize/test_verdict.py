"""The status is what holds at the point, whatever SciPy says; budgets, reports, and what ends a solve."""

import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nestor
from nestor import Status

rosen, der = scipy.optimize.rosen, scipy.optimize.rosen_der
START = np.array([-1.2, 1.0])


def run(*args, **options):
    return nestor.minimize(*args, raise_on_failure=False, **options)


def test_a_right_answer_is_not_denied():
    """SciPy's BFGS speaks of a loss of precision where the value is far larger than its changes."""
    fun = lambda x: (1e8 + rosen(x), der(x))  # noqa: E731
    for tol in (1e-7, 1e-9):  # the second needs a second run
        assert not scipy.optimize.minimize(fun, START, jac=True, tol=tol).success
        solution = run(fun, START, tol=tol)
        assert solution.status == Status.CONVERGED
        assert np.abs(der(solution.x)).max() <= tol * np.abs(der(START)).max()


def test_a_wrong_answer_is_not_claimed():
    """A stop on a small decrease, far from a solution, is SciPy's success; here it is run on, or denied."""
    fun = lambda x: (rosen(x), der(x))  # noqa: E731
    peer = scipy.optimize.minimize(fun, START, jac=True, method="L-BFGS-B", options={"ftol": 0.2})
    assert peer.success
    assert np.abs(peer.jac).max() > 0.1
    denied = run(fun, START, method="L-BFGS-B", options={"ftol": 0.2})
    assert denied.status == Status.STALLED  # the user's own rule
    assert not denied.success
    again = run(fun, START, method="L-BFGS-B", tol=1e-2)  # SciPy's tol sets ftol too
    assert again.status == Status.CONVERGED
    assert np.abs(der(again.x)).max() <= 1e-2 * np.abs(der(START)).max()


def test_infinity_is_no_solution():
    assert run(lambda x: (1e30 * np.sum(x), np.full(2, 1e30)), np.ones(2)).status == Status.UNBOUNDED
    with np.errstate(invalid="ignore"):
        assert run(lambda x: np.sum(np.log(x)), -np.ones(2)).status == Status.NOT_FINITE


def test_what_cannot_be_met_is_denied():
    rules = [{"type": "eq", "fun": lambda x: x[0] - 1.0}, {"type": "eq", "fun": lambda x: x[0] - 2.0}]
    solution = run(lambda x: (np.sum(x**2), 2 * x), np.ones(2), constraints=rules)
    assert not solution.success
    assert solution.kkt.feasibility > 0.1


def test_budgets():
    few = run(rosen, START, max_evaluations=20)
    assert few.status == Status.OUT_OF_EVALUATIONS
    assert int(few.stats.evaluations) == 20
    steps = run(rosen, START, jac=der, max_steps=4)
    assert steps.status == Status.OUT_OF_STEPS
    assert int(steps.stats.steps) == 4
    assert run(rosen, START, max_seconds=1e-9).status == Status.OUT_OF_TIME
    compiled = run(lambda x: jnp.sum((x - 1.0) ** 4), jnp.zeros(2), max_evaluations=4)
    assert compiled.status == Status.OUT_OF_EVALUATIONS
    assert int(compiled.stats.evaluations) == 4
    with pytest.raises(nestor.SolveFailed, match="OUT_OF_EVALUATIONS"):
        nestor.minimize(rosen, START, max_evaluations=20)


def test_history_and_callback():
    seen = []
    solution = run(rosen, START, jac=der, history=True, callback=seen.append)
    history = solution.history
    assert len(history.value) == len(seen) == int(solution.stats.evaluations)
    assert history.value[0] == rosen(START)
    assert history.optimality[0] == np.abs(der(START)).max()
    assert seen[3].step == 3
    assert isinstance(seen[3].x, np.ndarray)
    stopped = run(rosen, START, callback=lambda report: report.step == 5)
    assert stopped.status == Status.STOPPED

    def finish(report):
        raise StopIteration

    assert run(rosen, START, callback=finish).status == Status.STOPPED


def test_the_users_error_passes_and_the_bar_is_drawn(capsys):
    calls = []

    def fun(x):
        calls.append(1)
        if len(calls) > 5:
            raise ValueError("mine")
        return rosen(x)

    with pytest.raises(ValueError, match=r"^mine$"):
        nestor.minimize(fun, START, method="trust-constr")
    run(rosen, START, progress=True)
    assert "eval" in capsys.readouterr().err


def test_ctrl_c_returns_the_best_point():
    calls = []

    def fun(x):
        calls.append(x.copy())
        if len(calls) == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return rosen(x)

    solution = nestor.minimize(fun, START, method="Nelder-Mead")  # nothing is raised
    assert solution.status == Status.INTERRUPTED
    assert solution.fun == min(map(rosen, calls[:-1]))


KILLED = """
import os, sys, signal, json
import numpy as np, scipy.optimize, nestor
path, calls, most = sys.argv[1], [], int(sys.argv[2])
def fun(p):
    calls.append(1)
    if len(calls) == most:
        os.kill(os.getpid(), signal.SIGKILL)
    x = np.concatenate([p["a"], p["b"]])
    return scipy.optimize.rosen(x), {"a": scipy.optimize.rosen_der(x)[:1], "b": scipy.optimize.rosen_der(x)[1:]}
start = {"a": np.array([-1.2]), "b": np.array([1.0, 0.3])}
checkpoint = None if path == "none" else path
x = nestor.minimize(fun, start, method=sys.argv[3], checkpoint=checkpoint).x
print(json.dumps([len(calls), *x["a"].tolist(), *x["b"].tolist()]))
"""


def killed(path, most, method):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(most), method],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_killed_solve_goes_on_in_the_same_bits(tmp_path):
    import json

    path = tmp_path / "run.journal"
    method = "L-BFGS-B"
    _, plain = killed("none", -1, method)
    assert killed(path, 7, method) == (-signal.SIGKILL, "")
    with open(path, "ab") as file:
        file.write(b"half a record")
    code, resumed = killed(path, -1, method)
    assert code == 0
    whole, rest = json.loads(plain), json.loads(resumed)
    assert rest[1:] == whole[1:]
    assert (
        rest[0] == whole[0] - 6 + 2
    )  # six were answered; the first and the last are asked again, as a check


def test_a_journal_of_another_solve_is_refused(tmp_path):
    path = tmp_path / "deep" / "run.journal"
    first = run(rosen, START, jac=der, checkpoint=path)
    calls = []
    again = run(lambda x: calls.append(1) or rosen(x), START, jac=der, checkpoint=path)
    np.testing.assert_array_equal(first.x, again.x)
    assert len(calls) == 2  # the first and the last answer are checked
    for other in ({"x0": START + 1}, {"fun": lambda x: rosen(x) + 1}, {"tol": 1e-3}, {"method": "CG"}):
        with pytest.raises(nestor.BadArgument, match="checkpoint"):
            run(**({"fun": rosen, "x0": START, "jac": der, "checkpoint": path} | other))
    (tmp_path / "text").write_text("no journal")
    with pytest.raises(nestor.BadArgument, match="no journal"):
        run(rosen, START, jac=der, checkpoint=tmp_path / "text")


def test_blas_has_its_threads_back():
    from threadpoolctl import threadpool_info

    inside = []
    before = [library["num_threads"] for library in threadpool_info()]
    count = lambda x: inside.append([lib["num_threads"] for lib in threadpool_info()]) or rosen(x)  # noqa: E731
    run(count, START, max_evaluations=5)
    assert inside[-1] == before
    assert [library["num_threads"] for library in threadpool_info()] == before


COMPILED = """
import os, sys, signal, json, jax, jax.numpy as jnp, nestor
jax.config.update("jax_enable_x64", True)
def fun(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
def watch(report):
    if report.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
x = nestor.minimize(fun, jnp.array([-1.2, 1.0, 0.3]), checkpoint=sys.argv[1], callback=watch).x
print(json.dumps(x.tolist()))
"""


@pytest.mark.slow
def test_a_killed_compiled_solve_goes_on_in_the_same_bits(tmp_path):
    def go(name, step):
        line = [sys.executable, "-c", COMPILED, str(tmp_path / name), str(step)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    assert go("killed", 20).returncode == -signal.SIGKILL
    assert (tmp_path / "killed").exists()
    assert go("killed", -1).stdout == go("plain", -1).stdout != ""


def test_a_compiled_solve_in_stretches(tmp_path):
    def valley(x):
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    start, path = jnp.array([-1.2, 1.0]), tmp_path / "saved"
    plain = nestor.minimize(valley, start, history=True)
    timed = run(valley, start, max_seconds=1e-9, checkpoint=path)
    assert timed.status == Status.OUT_OF_TIME
    seen = []
    stopped = run(
        valley, start, checkpoint=path, callback=lambda report: seen.append(report.step) or len(seen) > 9
    )
    assert stopped.status == Status.STOPPED
    whole = nestor.minimize(valley, start, checkpoint=tmp_path / "other", history=True, max_seconds=100.0)
    np.testing.assert_array_equal(whole.x, plain.x)
    assert len(whole.history.value) == len(plain.history.value)
    with pytest.raises(nestor.BadArgument, match="checkpoint"):
        run(valley, start + 1, checkpoint=path)
    with pytest.raises(nestor.BadArgument, match="inside jit"):
        jax.jit(lambda x: nestor.minimize(valley, x, max_seconds=1.0).x)(start)
