"""What happens to somebody who makes a mistake: the first two lines name the argument, the value, the remedy.

A table: a name, the call, the exception, and words of the first line (argument and value), then of the second
(the remedy). A mistake is refused when the call is made, before anything is solved.
"""

import copy
import dataclasses
import math
import pickle
import timeit
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import BadArgument, CannotDifferentiate, SolveFailed, settings
from nestor.solvers import _checks, _drive, _host_solvers, _settings, _untraced

ONES = jnp.ones(2)


def bowl(x):
    return jnp.sum((x - 1.0) ** 2)


def minimize(**options):
    """Minimize the bowl with one option that is wrong."""
    return lambda: nestor.minimize(bowl, ONES, **options)


def argmin(**options):
    return lambda: nestor.argmin(bowl, ONES, **options)


def start(x0):
    return lambda: nestor.minimize(bowl, x0)


def objective(fun, x0=ONES):
    return lambda: nestor.minimize(fun, x0)


class Frame:
    """Stands for a table of another package."""

    __module__ = "pandas"

    def __array__(self, dtype=None, copy=None):
        return np.ones(2, dtype)


@dataclasses.dataclass
class Changeable:
    """An adjoint that is no key: a dataclass that is not frozen compares by value and has no hash."""

    depth: int = 3

    def attach(self, loop, read, condition):
        raise AssertionError("never reached")


class ForeignTensor:
    """Stands for torch: a function that takes nothing but its own arrays."""

    def __new__(cls, x):
        raise TypeError(f"sin(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")


def assigns(x):
    x[0] = 0.0
    return bowl(x)


def returns_nothing(x):
    bowl(x)


class Mistake(NamedTuple):
    """What is called, what is raised, and words of its first and of its second line."""

    call: object
    error: type[Exception]
    first: tuple[str, ...]
    second: tuple[str, ...]


def bad(call, argument, value, remedy):
    """A `BadArgument` that names an argument, shows its value and says what to do."""
    return Mistake(call, BadArgument, (f"argument '{argument}' is", value), ("Do this: ", remedy))


START = {
    "an integer": bad(start(3), "x0", "is 3 (int)", "write 3.0"),
    "a bool": bad(start(True), "x0", "is True (bool)", "write 1.0"),
    "a list of integers": bad(start([1, 2]), "x0[0]", "is 1 (int)", "jnp.asarray(x0, float)"),
    "an integer array": bad(start(jnp.arange(3)), "x0", "dtype int64 and shape (3,)", ".astype(float)"),
    "an integer leaf": bad(start({"a": ONES, "b": 2}), "x0['b']", "is 2 (int)", "write 2.0"),
    "a complex number": bad(start(1j), "x0", "is 1j (complex)", "real and imaginary parts"),
    "a complex array": bad(start(jnp.ones(2, complex)), "x0", "dtype complex128", "real and imaginary parts"),
    "a string": bad(start("zeros"), "x0", "is 'zeros' (str)", "leave it out of x0"),
    "a string leaf": bad(start({"name": "net", "w": ONES}), "x0['name']", "is 'net' (str)", "close over it"),
    "a table": bad(start({"t": Frame()}), "x0['t']", "(Frame)", "jnp.asarray(np.asarray(...), float)"),
    "an array of strings": bad(start(np.array(["1", "2"])), "x0", "dtype <U1", "leave it out of x0"),
    "an array of objects": bad(start(np.array([None])), "x0", "dtype object", "leave it out of x0"),
    "a random key": bad(start(jax.random.key(0)), "x0", "dtype key<fry>", "close over it"),
    "shapes only": bad(start(jax.ShapeDtypeStruct((2,), float)), "x0", "ShapeDtypeStruct", "leave it out"),
    "128 bits": bad(start(np.longdouble(1)), "x0", f"dtype {np.dtype(np.longdouble)}", ".astype(float)"),
    "a traced integer": bad(
        lambda: jax.jit(lambda n: nestor.argmin(bowl, n))(3), "x0", "dtype int64", ".astype(float)"
    ),
    "None": bad(start(None), "x0", "None", "pass the start"),
    "an empty tree": bad(start({}), "x0", "{} (dict)", "pass the start"),
    "no entries": bad(start(jnp.zeros((0, 3))), "x0", "float64[0, 3]", "check the shapes"),
}

FUNCTION = {
    "arguments swapped": bad(
        lambda: nestor.minimize(ONES, bowl), "fun", "Array([1., 1.]", "minimize(fun, x0)"
    ),
    "its value": bad(lambda: nestor.argmin(bowl(ONES), ONES), "fun", "Array(0.", "not its value"),
    "its name": bad(lambda: nestor.minimize("bowl", ONES), "fun", "'bowl' (str)", "pass the function itself"),
    "two arguments": bad(objective(lambda x, data: bowl(x)), "fun", "fun(x, data)", "lambda x: fun(x, data)"),
    "no arguments": bad(objective(lambda: 0.0), "fun", "fun()", "let it take what it is called with"),
    "not a scalar": bad(objective(lambda x: x**2), "fun", "returns float64[2]", "jnp.sum(...)"),
    "a scalar in a row": bad(objective(lambda x: bowl(x)[None]), "fun", "returns float64[1]", "jnp.sum(...)"),
    "a tuple": bad(
        objective(lambda x: (bowl(x), x)), "fun", "(float64[], float64[2])", "return the value alone"
    ),
    "a dictionary": bad(
        objective(lambda x: {"loss": bowl(x)}), "fun", "{loss: float64[]}", "the value alone"
    ),
    "nothing": bad(objective(returns_nothing), "fun", "returns nothing", "write return"),
    "a string": bad(objective(lambda x: "0.0"), "fun", "returns a str", "jax.numpy"),
    "a complex value": bad(objective(lambda x: bowl(x) + 0j), "fun", "complex128[]", ".real"),
    "an integer value": bad(objective(lambda x: jnp.argmax(x)), "fun", "int64[]", "return a float"),
    "a truth value": bad(objective(lambda x: x[0] > 0), "fun", "bool[]", "return a float"),
    "a root of fewer": bad(
        lambda: nestor.find_root(lambda z: z[:1], ONES),
        "fun",
        "float64[2] to float64[1]",
        "one entry for each",
    ),
    "a root of more": bad(
        lambda: nestor.find_root(lambda z: jnp.outer(z, z), ONES), "fun", "to float64[2, 2]", "least_squares"
    ),
    "a root elsewhere": bad(
        lambda: nestor.find_root(lambda z: z["a"], {"a": ONES}),
        "fun",
        "{a: float64[2]} to float64[2]",
        "structure",
    ),
    "a map to float32": bad(
        lambda: nestor.fixed_point(lambda z: jnp.cos(z).astype(jnp.float32), ONES),
        "fun",
        "float64[2] to float32[2]",
        ".astype(x.dtype)",
    ),
    "a constant map": bad(lambda: nestor.fixed_point(lambda z: 1, 0.0), "fun", "to int", ".astype(x.dtype)"),
    "integer residuals": bad(
        lambda: nestor.least_squares(lambda w: jnp.round(w).astype(int), ONES),
        "fun",
        "int64[2]",
        "float arrays",
    ),
    "complex residuals": bad(
        lambda: nestor.least_squares(lambda w: w * 1j, ONES), "fun", "complex128[2]", "real and imaginary"
    ),
    "no residuals": bad(lambda: nestor.least_squares(returns_nothing, ONES), "fun", "nothing", "residuals"),
}

TRACING = {
    "a branch": bad(
        objective(lambda x: bowl(x) if x[0] > 0 else 0.0), "fun", "branches on the value", "jnp.where"
    ),
    "the larger": bad(objective(lambda x: max(x[0], x[1])), "fun", "branches", "jnp.maximum for max"),
    "numpy": bad(objective(lambda x: np.linalg.norm(x)), "fun", "NumPy array", "use jax.numpy"),
    "math": bad(objective(lambda x: math.sin(x[0])), "fun", "Python number", "jnp.sin for math.sin"),
    "float": bad(objective(lambda x: float(x[0]) ** 2), "fun", "Python number", "leave it an array"),
    "item": bad(objective(lambda x: x[0].item()), "fun", "Python number", "leave it an array"),
    "an index": bad(
        objective(lambda x: [1.0, 2.0][x[0].astype(int)]), "fun", "Python integer", "index an array"
    ),
    "a mask": bad(objective(lambda x: jnp.sum(x[x > 0])), "fun", "traced mask", "jnp.where(mask, x, 0.0)"),
    "in place": bad(objective(assigns), "fun", "in place", "x.at[i].set(value)"),
    "another package": bad(objective(lambda x: ForeignTensor(x)), "fun", "torch", "pure_callback"),
    "formatting": bad(objective(lambda x: bowl(x) + len(f"{x[0]:.3f}")), "fun", "formatting", "debug.print"),
    "inside another": bad(
        lambda: nestor.argmin(lambda y: nestor.minimum(lambda z: float(z) * y, 0.0), 1.0),
        "fun",
        "minimum: ",
        "leave it an array",
    ),
}

SOLVER = {
    "a class": bad(minimize(solver=nestor.BFGS), "solver", "the class BFGS", "write solver=nestor.BFGS()"),
    "a class of another kind": bad(minimize(solver=nestor.Picard), "solver", "the class Picard", "BFGS()"),
    "bfgs": bad(minimize(solver="bfgs"), "solver", "'bfgs' (str)", "solver=nestor.BFGS()"),
    "L-BFGS": bad(minimize(solver="L-BFGS"), "solver", "'L-BFGS' (str)", "solver=nestor.LBFGS()"),
    "L-BFGS-B": bad(minimize(solver="L-BFGS-B"), "solver", "'L-BFGS-B'", "solver=nestor.LBFGS()"),
    "a misspelling": bad(minimize(solver="newtoncq"), "solver", "'newtoncq'", "solver=nestor.NewtonCG()"),
    "cg": bad(minimize(solver="cg"), "solver", "'cg'", "solver=nestor.NonlinearCG()"),
    "adam": bad(minimize(solver="adam"), "solver", "'adam' (str)", "solver=optax.adam(1e-2)"),
    "Nelder": bad(minimize(solver="Nelder-Mead"), "solver", "'Nelder-Mead'", "pass one of BFGS()"),
    "lm": bad(
        lambda: nestor.least_squares(bowl, ONES, solver="lm"), "solver", "'lm'", "LevenbergMarquardt()"
    ),
    "a learning rate": bad(minimize(solver=0.1), "solver", "0.1 (float)", "FixedStep(0.1)"),
    "a schedule": bad(
        minimize(solver=optax.exponential_decay(0.1, 10, 0.5)),
        "solver",
        "function schedule",
        "optax.sgd(schedule)",
    ),
    "optax.adam, not called": bad(
        minimize(solver=optax.adam), "solver", "the function adam", "optax.adam(1e-2)"
    ),
    "optax.lbfgs": bad(minimize(solver=optax.lbfgs()), "solver", "cannot be traced", "nestor.LBFGS()"),
    "optax for a root": bad(
        lambda: nestor.find_root(jnp.sin, 1.0, solver=optax.sgd(0.1)), "solver", "optax", "NewtonRoot()"
    ),
    "a linear solver": bad(minimize(solver=nestor.CG()), "solver", "CG(", "NonlinearCG()"),
    "a search": bad(minimize(solver=nestor.StrongWolfe()), "solver", "StrongWolfe(", "solver=nestor.BFGS("),
    "an adjoint": bad(minimize(solver=nestor.Unroll()), "solver", "Unroll()", "adjoint=Unroll()"),
    "a dictionary": bad(
        minimize(solver={"name": "BFGS"}), "solver", "(dict)", "init, step, status and solves"
    ),
    "a root finder to minimize": bad(
        minimize(solver=nestor.Broyden()), "solver", "Broyden, a solver for root finding", "nestor.find_root"
    ),
    "a minimizer to find_root": bad(
        lambda: nestor.find_root(jnp.sin, 1.0, solver=nestor.BFGS()),
        "solver",
        "BFGS, a solver",
        "NewtonRoot()",
    ),
    "a minimizer to fixed_point": bad(
        lambda: nestor.fixed_point(jnp.cos, 1.0, solver=nestor.Newton()),
        "solver",
        "Newton, a solver",
        "Anderson()",
    ),
    "a minimizer to least_squares": bad(
        lambda: nestor.least_squares(bowl, 1.0, solver=nestor.LBFGS()), "solver", "LBFGS", "GaussNewton()"
    ),
    "a fixed-point solver to argmin": bad(
        argmin(solver=nestor.Anderson()), "solver", "Anderson", "fixed_point"
    ),
    "least squares to minimum": bad(
        lambda: nestor.minimum(bowl, ONES, solver=nestor.Dogleg()), "solver", "Dogleg", "nestor.least_squares"
    ),
}


def descent(search):
    return minimize(solver=nestor.GradientDescent(search))


SETTINGS = {
    "LBFGS(memory=0)": bad(
        minimize(solver=nestor.LBFGS(memory=0)), "solver.memory", "0 (int)", "nestor.LBFGS(memory=10)"
    ),
    "LBFGS(memory=2.5)": bad(minimize(solver=nestor.LBFGS(memory=2.5)), "solver.memory", "2.5", "memory=10"),
    "LBFGS(memory=np.int64)": bad(
        minimize(solver=nestor.LBFGS(memory=np.int64(5))), "solver.memory", "np.int64(5)", "memory=10"
    ),
    "LBFGS(memory=traced)": bad(
        lambda: jax.jit(lambda s: nestor.argmin(bowl, ONES, solver=s))(nestor.LBFGS()),
        "solver.memory",
        "traced value",
        "memory=10",
    ),
    "FixedStep(-0.1)": bad(
        descent(nestor.FixedStep(-0.1)), "solver.search.length", "-0.1", "FixedStep(length=0.1)"
    ),
    "FixedStep('0.1')": bad(
        descent(nestor.FixedStep("0.1")), "solver.search.length", "'0.1' (str)", "length=0.1"
    ),
    "FixedStep(nan)": bad(descent(nestor.FixedStep(math.nan)), "solver.search.length", "nan", "length=0.1"),
    "FixedStep(array)": bad(
        descent(nestor.FixedStep(ONES)), "solver.search.length", "Array([1.", "length=0.1"
    ),
    "Backtracking(shrink=2)": bad(
        descent(nestor.Backtracking(shrink=2)), "solver.search.shrink", "2 (int)", "Backtracking(shrink=0.5)"
    ),
    "Backtracking(max_tries=0)": bad(
        descent(nestor.Backtracking(max_tries=0)), "solver.search.max_tries", "0", "max_tries=40"
    ),
    "StrongWolfe(0.9, 0.1)": bad(
        minimize(solver=nestor.BFGS(nestor.StrongWolfe(decrease=0.9, curvature=0.1))),
        "solver.search.decrease",
        "0.9 (float)",
        "StrongWolfe(decrease=1e-4)",
    ),
    "StrongWolfe(curvature=1)": bad(
        minimize(solver=nestor.BFGS(nestor.StrongWolfe(curvature=1.0))),
        "solver.search.curvature",
        "1.0",
        "0.9",
    ),
    "StrongWolfe(curvature=array)": bad(
        minimize(solver=nestor.BFGS(nestor.StrongWolfe(curvature=np.float64(0.5)))),
        "solver.search.curvature",
        "np.float64(0.5)",
        "0.9",
    ),
    "BFGS(0.1)": bad(
        minimize(solver=nestor.BFGS(0.1)), "solver.search", "0.1 (float)", "nestor.StrongWolfe()"
    ),
    "BFGS(StrongWolfe)": bad(
        minimize(solver=nestor.BFGS(nestor.StrongWolfe)),
        "solver.search",
        "the class StrongWolfe",
        "StrongWolfe()",
    ),
    "NonlinearCG('polak')": bad(
        minimize(solver=nestor.NonlinearCG("Polak-Ribiere")),
        "solver.direction",
        "'Polak-Ribiere' (str)",
        'direction="polak-ribiere+"',
    ),
    "Newton(radius=-1)": bad(minimize(solver=nestor.Newton(radius=-1)), "solver.radius", "-1", "radius=0.1"),
    "NewtonCG(max_products=0)": bad(
        minimize(solver=nestor.NewtonCG(max_products=0)), "solver.max_products", "0", "max_products=100"
    ),
    "Broyden('approx')": bad(
        lambda: nestor.find_root(jnp.sin, 1.0, solver=nestor.Broyden(jacobian="approx")),
        "solver.jacobian",
        "'approx' (str)",
        'jacobian="exact"',
    ),
    "NewtonRoot('gmres')": bad(
        lambda: nestor.find_root(jnp.sin, 1.0, solver=nestor.NewtonRoot("gmres")),
        "solver.linear_solver",
        "'gmres' (str)",
        "nestor.CG()",
    ),
    "Anderson(memory=-1)": bad(
        lambda: nestor.fixed_point(jnp.cos, 1.0, solver=nestor.Anderson(memory=-1)),
        "solver.memory",
        "-1",
        "nestor.Anderson(memory=5)",
    ),
    "Picard(damping=0)": bad(
        lambda: nestor.fixed_point(jnp.cos, 1.0, solver=nestor.Picard(damping=0)),
        "solver.damping",
        "0 (int)",
        "damping=0.5",
    ),
    "LevenbergMarquardt(damping=-1)": bad(
        lambda: nestor.least_squares(jnp.sin, 1.0, solver=nestor.LevenbergMarquardt(damping=-1.0)),
        "solver.damping",
        "-1.0",
        "damping=1e-3",
    ),
}


@dataclasses.dataclass(eq=True)
class Unhashable:
    """A solver that is no key."""

    solves = nestor.BFGS.solves
    init = step = status = None


NUMBERS = {
    "an unhashable solver": bad(minimize(solver=Unhashable()), "solver", "Unhashable()", "frozen dataclass"),
    "a negative tolerance": bad(minimize(tol=-1e-6), "tol", "-1e-06 (float)", "tol=1e-6"),
    "a NaN tolerance": bad(minimize(tol=math.nan), "tol", "nan (float)", "tol=1e-6"),
    "an infinite tolerance": bad(minimize(tol=math.inf), "tol", "inf (float)", "tol=1e-6"),
    "a tolerance in quotes": bad(minimize(tol="1e-6"), "tol", "'1e-6' (str)", "tol=1e-6"),
    "a true tolerance": bad(minimize(tol=True), "tol", "True (bool)", "tol=1e-6"),
    "two tolerances": bad(minimize(tol=[1e-6, 1e-6]), "tol", "[1e-06, 1e-06] (list)", "tol=1e-6"),
    "a traced tolerance": bad(
        lambda: jax.jit(lambda tol: nestor.argmin(bowl, ONES, tol=tol))(1e-6),
        "tol",
        "traced value",
        "pass a float",
    ),
    "a tolerance in lanes": bad(
        lambda: jax.vmap(lambda tol: nestor.argmin(bowl, ONES, tol=tol))(ONES),
        "tol",
        "traced value",
        "batched",
    ),
    "negative steps": bad(minimize(max_steps=-1), "max_steps", "-1 (int)", "max_steps=1000"),
    "half a step": bad(minimize(max_steps=99.5), "max_steps", "99.5 (float)", "max_steps=100"),
    "1e3 steps": bad(minimize(max_steps=1e3), "max_steps", "1000.0 (float)", "max_steps=1000"),
    "true steps": bad(minimize(max_steps=True), "max_steps", "True (bool)", "max_steps=1000"),
    "no steps": bad(argmin(max_steps=None), "max_steps", "None", "max_steps=1000"),
    "too many steps": bad(minimize(max_steps=2**31), "max_steps", "2147483648", "max_steps=1000"),
    "steps in an array": bad(minimize(max_steps=jnp.int32(5)), "max_steps", "Array(5", "max_steps=1000"),
    "a callback that is none": bad(minimize(callback=True), "callback", "True (bool)", "lambda report"),
    "a callback of nothing": bad(
        minimize(callback=lambda: None), "callback", "signature ()", "lambda report"
    ),
    "ignore": bad(argmin(on_failure="ignore"), "on_failure", "'ignore' (str)", '"keep"'),
    "NaN": bad(argmin(on_failure="NaN"), "on_failure", "'NaN' (str)", 'on_failure="nan"'),
    "False": bad(argmin(on_failure=False), "on_failure", "False (bool)", '"keep"'),
}

ADJOINT = {
    "a name": bad(minimize(adjoint="implicit"), "adjoint", "'implicit' (str)", "adjoint=nestor.Implicit()"),
    "an unknown name": bad(minimize(adjoint="ift"), "adjoint", "'ift' (str)", "Implicit(), Unroll()"),
    "a class": bad(minimize(adjoint=nestor.Implicit), "adjoint", "the class Implicit", "nestor.Implicit()"),
    "a class with settings": bad(
        minimize(adjoint=nestor.Truncate), "adjoint", "Truncate", "Truncate(last=10)"
    ),
    "another class": bad(minimize(adjoint=nestor.BFGS), "adjoint", "the class BFGS", "Implicit()"),
    "a flag": bad(minimize(adjoint=True), "adjoint", "True (bool)", "Implicit()"),
    "a linear solver": bad(minimize(adjoint=nestor.LU()), "adjoint", "LU()", "adjoint=nestor.Implicit(LU())"),
    "a solver": bad(minimize(adjoint=nestor.BFGS()), "adjoint", "BFGS(", "solver=BFGS("),
    "Implicit('cg')": bad(
        minimize(adjoint=nestor.Implicit("cg")), "adjoint.linear_solver", "'cg' (str)", "nestor.Implicit("
    ),
    "Implicit(CG)": bad(
        minimize(adjoint=nestor.Implicit(nestor.CG)), "adjoint.linear_solver", "the class CG", "nestor.CG()"
    ),
    "CG(tol=-1)": bad(
        minimize(adjoint=nestor.Implicit(nestor.CG(tol=-1))),
        "adjoint.linear_solver.tol",
        "-1",
        "CG(tol=1e-6)",
    ),
    "Neumann(terms=0)": bad(
        minimize(adjoint=nestor.Implicit(nestor.Neumann(0))), "adjoint.linear_solver.terms", "0", "terms=20"
    ),
    "Nystrom(rank=1.5)": bad(
        minimize(adjoint=nestor.Implicit(nestor.Nystrom(1.5))), "adjoint.linear_solver.rank", "1.5", "rank=10"
    ),
    "Truncate(last=0)": bad(minimize(adjoint=nestor.Truncate(last=0)), "adjoint.last", "0 (int)", "last=10"),
    "Truncate(last=True)": bad(minimize(adjoint=nestor.Truncate(True)), "adjoint.last", "True", "last=10"),
    "Checkpoint(levels=0)": bad(
        minimize(adjoint=nestor.Checkpoint(levels=0)), "adjoint.levels", "0", "levels=2"
    ),
    "Checkpoint(slots=0)": bad(
        minimize(adjoint=nestor.Checkpoint(slots=0)), "adjoint.slots", "0", "slots=10"
    ),
    "Checkpoint(levels=2, slots=5)": bad(
        minimize(adjoint=nestor.Checkpoint(levels=2, slots=5)), "adjoint.slots", "5", "Checkpoint(slots=10)"
    ),
    "FiniteDifference(step=0)": bad(
        minimize(adjoint=nestor.FiniteDifference(step=0.0)), "adjoint.step", "0.0", "step=1e-3"
    ),
    "FiniteDifference(batch=0)": bad(
        minimize(adjoint=nestor.FiniteDifference(batch=0)), "adjoint.batch", "0", "batch=16"
    ),
    "Evolution(sigma=0)": bad(
        minimize(adjoint=nestor.Evolution(sigma=0.0)), "adjoint.sigma", "0.0", "sigma=0.1"
    ),
    "Evolution(sigma=-0.1)": bad(
        minimize(adjoint=nestor.Evolution(-0.1)),
        "adjoint.sigma",
        "-0.1 (float)",
        "nestor.Evolution(sigma=0.1)",
    ),
    "Evolution(pairs=0)": bad(minimize(adjoint=nestor.Evolution(pairs=0)), "adjoint.pairs", "0", "pairs=64"),
    "Evolution(seed=0.5)": bad(minimize(adjoint=nestor.Evolution(seed=0.5)), "adjoint.seed", "0.5", "seed=0"),
    "Evolution(segment=0)": bad(
        minimize(adjoint=nestor.Evolution(segment=0)), "adjoint.segment", "0 (int)", "segment=10"
    ),
    "Evolution(batch=0)": bad(minimize(adjoint=nestor.Evolution(batch=0)), "adjoint.batch", "0", "batch=16"),
    "an unhashable one": bad(
        minimize(adjoint=Changeable()), "adjoint", "Changeable(depth=3)", "frozen dataclass"
    ),
}

TABLE = {
    f"{about}: {name}": mistake
    for about, mistakes in {
        "start": START,
        "function": FUNCTION,
        "tracing": TRACING,
        "solver": SOLVER,
        "settings": SETTINGS,
        "option": NUMBERS,
        "adjoint": ADJOINT,
    }.items()
    for name, mistake in mistakes.items()
}


@pytest.fixture
def nothing_is_solved(monkeypatch):
    """Building or running a solve fails the test: a mistake is refused before."""

    def refuse(*_):
        pytest.fail("the solve was built")

    monkeypatch.setattr(_drive, "solution_map", refuse)
    monkeypatch.setattr(_drive, "value_map", refuse)
    monkeypatch.setattr(_untraced, "solve", refuse)


def complaint(mistake):
    """The message of what a mistake raises."""
    with jax.numpy_dtype_promotion("standard"), pytest.raises(mistake.error) as raised:
        mistake.call()
    assert type(raised.value) is mistake.error
    return str(raised.value)


def check_lines(message, mistake):
    first, second, *rest = [*message.splitlines(), "", ""]
    for word in mistake.first:
        assert word in first, message
    for word in mistake.second:
        assert word in second, message
    assert not any(rest), message
    assert max(map(len, message.splitlines())) < 300, message


def test_there_are_many():
    assert len(TABLE) >= 30


@pytest.mark.parametrize("name", TABLE)
def test_a_mistake_is_refused_with_a_remedy(name, nothing_is_solved):
    check_lines(complaint(TABLE[name]), TABLE[name])


# --- mistakes that only the solve can find -------------------------------------------------------------

UNLUCKY = {
    "NaN in the start": Mistake(
        lambda: nestor.minimize(bowl, jnp.array([jnp.nan, 0.0])),
        SolveFailed,
        ("NaN or infinite",),
        ("NOT_FINITE",),
    ),
    "infinity in the start": Mistake(
        lambda: nestor.minimize(bowl, jnp.array([0.0, jnp.inf])),
        SolveFailed,
        ("Start elsewhere",),
        ("value inf",),
    ),
    "NaN from the objective": Mistake(
        lambda: nestor.minimize(lambda x: bowl(jnp.log(-x)), ONES),
        SolveFailed,
        ("guard logs, roots",),
        ("raise_on_failure=False",),
    ),
    "no lower bound": Mistake(
        lambda: nestor.minimize(lambda x: -bowl(x), ONES + 1.0),
        SolveFailed,
        ("Check its sign",),
        ("UNBOUNDED",),
    ),
    "too few steps": Mistake(
        lambda: nestor.minimize(bowl, ONES * 3, max_steps=0),
        SolveFailed,
        ("Raise max_steps",),
        ("max_steps=0",),
    ),
    "no root": Mistake(
        lambda: nestor.find_root(lambda z: z**2 + 1.0, 1.0), SolveFailed, ("find_root: ",), ("optimality",)
    ),
    "backwards through Forward": Mistake(
        lambda: jax.grad(lambda a: nestor.argmin(lambda x: (x - a) ** 2, 0.0, adjoint=nestor.Forward()))(1.0),
        CannotDifferentiate,
        ("Forward()", "reverse mode"),
        ("Do this: ", "adjoint=nestor.Implicit()"),
    ),
}


@pytest.mark.parametrize("name", UNLUCKY)
def test_what_the_solve_finds_has_a_remedy_too(name):
    check_lines(complaint(UNLUCKY[name]), UNLUCKY[name])


# --- what belongs to the user passes through -----------------------------------------------------------


class Mine(Exception):
    """An exception of the user's own."""


@pytest.mark.parametrize(
    "own",
    [ValueError("mine"), TypeError("mine"), KeyError("mine"), Mine("mine"), RuntimeError("mine")],
    ids=repr,
)
@pytest.mark.parametrize("depth", [1, 2])
def test_an_exception_of_the_function_passes_through(own, depth):
    error = copy.copy(own)

    def fun(x):
        raise error

    nested = (lambda y: nestor.argmin(lambda x: fun(x) * y, 1.0)) if depth == 2 else fun
    with pytest.raises(type(own)) as raised:
        nestor.minimize(nested, jnp.asarray(2.0))
    assert raised.value is error
    assert raised.value.args == ("mine",)
    assert raised.value.__cause__ is None
    notes = [note for note in error.__notes__ if note.startswith("nestor.")]
    assert notes == [
        f"nestor.{'argmin' if depth == 2 else 'minimize'} was tracing fun(x) with x like x0: float64[]."
    ]


def test_a_list_as_start_is_explained_where_the_function_wants_an_array():
    with pytest.raises(TypeError) as raised:
        nestor.minimize(lambda x: jnp.sum(x**2), [1.0, 2.0])
    assert any(
        "[float64[], float64[]]" in n and "pass x0 = jnp.asarray(x0)" in n for n in raised.value.__notes__
    )


def test_a_wrong_shape_is_shown_next_to_the_error():
    with pytest.raises(TypeError, match="dot_general") as raised:
        nestor.minimize(lambda x: jnp.sum(jnp.ones((3, 3)) @ x), ONES)
    assert any("with x like x0: float64[2]" in note for note in raised.value.__notes__)


def test_the_error_of_jax_is_kept_as_the_cause():
    with pytest.raises(BadArgument) as raised:
        nestor.minimize(lambda x: bowl(x) if x[0] > 0 else 0.0, ONES)
    assert isinstance(raised.value.__cause__, jax.errors.TracerBoolConversionError)


# --- the error itself ----------------------------------------------------------------------------------


def test_a_bad_argument_is_caught_as_a_value_error_and_as_a_type_error():
    for kind in (ValueError, TypeError, nestor.NestorError):
        with pytest.raises(kind, match="argument 'tol' is -1"):
            nestor.minimize(bowl, ONES, tol=-1)


class Verbose:
    """A value with a representation that no message can hold."""

    def __repr__(self):
        return "line\n" * 1000


class Silent:
    """A value that cannot even be shown."""

    def __repr__(self):
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    "value", [Verbose(), Silent(), np.eye(50), list(range(10_000)), "x" * 5000, lambda x: x]
)
@pytest.mark.parametrize("option", ["solver", "adjoint", "tol", "max_steps"])
def test_any_value_gives_two_lines(option, value, nothing_is_solved):
    with pytest.raises(BadArgument) as raised:
        nestor.minimize(bowl, ONES, **{option: value})
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) < 300
    assert lines[1].startswith("Do this: ")


def test_errors_travel_between_processes():
    with pytest.raises(BadArgument) as raised:
        nestor.minimize(bowl, ONES, solver=lambda x: x)
    unfinished = nestor.minimize(bowl, ONES * 3, max_steps=0, raise_on_failure=False)
    for error in (
        raised.value,
        CannotDifferentiate("no"),
        nestor.MissingExtra("matplotlib", "plots", "drawing"),
        SolveFailed("no", unfinished.status),
    ):
        other = pickle.loads(pickle.dumps(error))
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert getattr(other, "solution", None) == getattr(error, "solution", None)
        assert str(copy.copy(error)) == str(error)


# --- the table of settings -----------------------------------------------------------------------------

RULES = {**_settings.TABLE, **_host_solvers.RULES}
FREE = {("Nystrom", "seed")}  # any integer
MADE = {"FixedStep": lambda: nestor.FixedStep(0.1), "Truncate": lambda: nestor.Truncate(3)}
VERBS = ("step", "advance", "run", "attach")
PARTS = [
    cls
    for name in nestor.__all__
    if dataclasses.is_dataclass(cls := getattr(nestor, name)) and any(hasattr(cls, verb) for verb in VERBS)
    if cls is not nestor.Optax  # made by Nestor
]


@pytest.mark.parametrize("cls", PARTS, ids=lambda cls: cls.__name__)
def test_every_setting_has_a_rule_whose_example_is_good(cls):
    part = MADE.get(cls.__name__, cls)()
    rules = RULES.get(cls, {})
    fields = {field.name for field in dataclasses.fields(cls)}
    assert set(rules) == {field for field in fields if (cls.__name__, field) not in FREE}
    settings.check_settings("minimize", "solver", part, RULES)
    for field, rule in rules.items():
        value = eval(rule.example, {"nestor": nestor})
        settings.check_settings("minimize", "solver", dataclasses.replace(part, **{field: value}), RULES)
        for name in rule.names:
            settings.check_settings("minimize", "solver", dataclasses.replace(part, **{field: name}), RULES)


def test_checks_take_microseconds():
    """Generous by a factor of ten: what is meant is that nothing is traced, waited for or allocated."""
    solver, adjoint = nestor.LBFGS(), nestor.Implicit(nestor.CG())

    def checks():
        _checks.check_solver("minimize", solver, nestor.LBFGS.solves, {}, "minimization")
        _checks.check_adjoint("minimize", adjoint)
        _checks.check_tol("minimize", 1e-6, jnp.float64)
        _checks.check_max_steps("minimize", 100)

    assert min(timeit.repeat(checks, number=200, repeat=5)) / 200 < 300e-6


# --- no mistakes ---------------------------------------------------------------------------------------


def test_what_only_looks_like_a_mistake():
    """Half precision, a tree with None, NumPy numbers as settings, one residual."""
    half = nestor.argmin(bowl, np.float16(0.0), solver=None, adjoint=None)
    assert half.dtype == jnp.float16
    assert abs(float(half) - 1.0) < 0.05
    solver = nestor.GradientDescent(nestor.FixedStep(np.float64(0.5)))
    tree = {"w": 0.0, "unused": None}
    answer = nestor.argmin(
        lambda x: bowl(x["w"]), tree, solver=solver, tol=np.float64(1e-8), max_steps=np.int64(9)
    )
    assert float(answer["w"]) == 1.0
    fit = nestor.least_squares(lambda w: w - 2.0, 0.0)
    np.testing.assert_allclose(fit.x, 2.0)
