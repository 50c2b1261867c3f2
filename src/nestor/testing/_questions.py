"""The kit's own problems: a handful of each kind with answers in closed form, and some without any answer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.solution import Solution
from nestor.solvers import (
    FixedPointFinding,
    Info,
    LeastSquares,
    Minimization,
    Problem,
    RootFinding,
    find_root,
    fixed_point,
    info_at,
    judge,
    least_squares,
    minimize,
    no_info,
)

Tree = Any


class Question(NamedTuple):
    """A problem with a scalar parameter t and a known answer.

    Attributes:
        name: for messages.
        fun: (t, x) -> what the user's function returns.
        start: the start, NumPy leaves.
        answer: t -> the answer, differentiable.
    """

    name: str
    fun: Callable[[Any, Tree], Any]
    start: Tree
    answer: Callable[[Any], Tree]


class Riddle(NamedTuple):
    """A problem that nobody can solve from `start`; converged would be a lie."""

    name: str
    fun: Callable[[Tree], Any]
    start: Any


def cast(tree: Tree, dtype: Any) -> Tree:
    """The tree as JAX arrays of one dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def solve(kind: str, fun: Callable[[Tree], Any], x0: Tree, **options: Any) -> Solution:
    """The front function of that kind of problem, without raising."""
    return FRONTS[kind](fun, x0, raise_on_failure=False, **options)


FRONTS: dict[str, Callable[..., Solution]] = {
    "minimization": minimize,
    "root finding": find_root,
    "fixed point": fixed_point,
    "least squares": least_squares,
}
ASKED_AS = {"composite minimization": "minimization"}  # with no penalty they are the same problems

_SPD = np.array([[1.2, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.8]])  # eigenvalues 0.6 to 1.5
_TURN = np.array([[1.0, 0.5, 0.0], [-0.5, 1.2, 0.2], [0.0, 0.1, 0.9]])
_SHRINK = np.array([[0.4, 0.2, 0.0], [-0.2, 0.3, 0.1], [0.0, 0.1, 0.5]])  # norm below 0.6
_TALL = np.array([[1.0, 0.2, 0.0], [0.1, 1.1, 0.3], [0.0, -0.3, 0.9], [0.4, 0.0, 0.2]])
_RIGHT = np.array([1.0, -0.5, 0.8])
_RIGHT_TALL = np.array([1.0, -0.5, 0.8, 0.3])
_SLOPE = np.array([0.5, -0.7])
_ZEROS = np.zeros(3)
_TREE_START = {"a": np.zeros(()), "b": np.zeros(2)}


def _times(matrix: Any, x: jax.Array) -> jax.Array:
    return jnp.matmul(jnp.asarray(matrix, x.dtype), x, precision="highest")


def _like(array: Any, x: jax.Array) -> jax.Array:
    return jnp.asarray(array, x.dtype)


def _line(vector: np.ndarray) -> Callable[[Any], Tree]:
    return lambda t: t * jnp.asarray(vector, jnp.result_type(t))


def _tree_answer(t: Any) -> Tree:
    return {"a": t, "b": t * jnp.asarray(_SLOPE, jnp.result_type(t))}


def _gap(x: Tree) -> jax.Array:
    return x["b"] - x["a"] * _like(_SLOPE, x["b"])


def _quadratic(t: Any, x: jax.Array) -> jax.Array:
    return jnp.vdot(x, _times(_SPD, x)) / 2 - t * jnp.vdot(_like(_RIGHT, x), x)


def _bowl(t: Any, x: Tree) -> jax.Array:
    return (x["a"] - t) ** 2 / 2 + jnp.sum(jnp.cosh(_gap(x)) - 1)


def _linear_system(t: Any, x: jax.Array) -> jax.Array:
    return _times(_TURN, x) - t * _like(_RIGHT, x)


def _curved_system(t: Any, x: Tree) -> Tree:
    a, gap = x["a"], _gap(x)
    return {"a": a + a**3 / 10 - t - t**3 / 10, "b": gap + jnp.sin(gap) / 10}


def _linear_map(t: Any, x: jax.Array) -> jax.Array:
    return _times(_SHRINK, x) + t * _like(_RIGHT, x)


def _curved_map(t: Any, x: Tree) -> Tree:
    gap = _gap(x)
    return {"a": x["a"] / 2 + t / 2, "b": x["b"] - gap * 0.6 + jnp.sin(gap) / 10}


def _linear_residuals(t: Any, x: jax.Array) -> jax.Array:
    return _times(_TALL, x) - t * _like(_RIGHT_TALL, x)


def _curved_residuals(t: Any, x: Tree) -> Tree:
    off = x["a"] - t
    return {"level": off + off**3 / 10, "spread": jnp.sinh(_gap(x))}


QUESTIONS: dict[str, tuple[Question, Question]] = {
    "minimization": (
        Question("a quadratic", _quadratic, _ZEROS, _line(np.linalg.solve(_SPD, _RIGHT))),
        Question("a bowl over a tree", _bowl, _TREE_START, _tree_answer),
    ),
    "root finding": (
        Question("a linear system", _linear_system, _ZEROS, _line(np.linalg.solve(_TURN, _RIGHT))),
        Question("a curved system over a tree", _curved_system, _TREE_START, _tree_answer),
    ),
    "fixed point": (
        Question(
            "a linear contraction",
            _linear_map,
            _ZEROS,
            _line(np.linalg.solve(np.eye(3) - _SHRINK, _RIGHT)),
        ),
        Question("a curved contraction over a tree", _curved_map, _TREE_START, _tree_answer),
    ),
    "least squares": (
        Question(
            "a linear regression",
            _linear_residuals,
            _ZEROS,
            _line(np.linalg.lstsq(_TALL, _RIGHT_TALL, rcond=None)[0]),
        ),
        Question("curved residuals over a tree", _curved_residuals, _TREE_START, _tree_answer),
    ),
}

_ONES = np.ones(2)

RIDDLES: dict[str, tuple[Riddle, ...]] = {
    "minimization": (
        Riddle("a start where the objective is NaN", lambda x: jnp.sum(jnp.log(x) ** 2), -_ONES),
        Riddle("a linear objective, without a minimum", lambda x: -jnp.sum(x), _ONES),
        Riddle("sum(sqrt(x)), which ends where x turns negative", lambda x: jnp.sum(jnp.sqrt(x)), _ONES),
    ),
    "root finding": (
        Riddle("a start where the function is NaN", lambda x: jnp.log(x) + 1, -_ONES),
        Riddle("z^2 + 1, without a real root", lambda x: x**2 + 1, _ONES),
    ),
    "fixed point": (
        Riddle("a start where the map is NaN", lambda x: jnp.log(x), -_ONES),
        Riddle("z^2 + 1, an expanding map without a real fixed point", lambda x: x**2 + 1, _ONES),
        Riddle("z + 1, a map without a fixed point", lambda x: x + 1, _ONES),
    ),
    "least squares": (
        Riddle("a start where the residuals are NaN", lambda x: jnp.log(x) + 1, -_ONES),
        Riddle("residuals sqrt(w), which end where w turns negative", lambda x: jnp.sqrt(x), _ONES),
    ),
}


def measured(kind: str, fun: Callable[[Tree], Any], x: Tree) -> tuple[float, float]:
    """The objective and the optimality at x, computed here and not by the solver."""
    residual: Tree = fun(x)
    if kind == "minimization":
        value, residual = jax.value_and_grad(fun)(x)
        return float(value), _largest(residual)
    if kind == "least squares":
        out, pull = jax.vjp(fun, x)
        return _length(out) ** 2 / 2, _largest(pull(out)[0])
    if kind == "fixed point":
        residual = jax.tree.map(jnp.subtract, residual, x)
    return _length(residual), _largest(residual)


def _largest(tree: Tree) -> float:
    return max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree))


def _length(tree: Tree) -> float:
    return math.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(tree)))


class _Found(NamedTuple):
    info: Info


def _condition(problem: Any) -> Callable[[Tree], Tree]:
    if problem.kind == Minimization.kind:
        return jax.grad(problem.fun)
    if problem.kind == LeastSquares.kind:
        return jax.grad(lambda x: trees.squared_norm(problem.fun(x)) / 2)
    if problem.kind == FixedPointFinding.kind:
        return lambda x: trees.subtract(x, problem.fun(x))
    return problem.fun


@dataclasses.dataclass(frozen=True)
class FullNewton:
    """Newton's method on the condition itself, undamped: the kit's own solver for differentiating.

    One step at the answer has the derivative of the answer, whatever the kind of the problem; so every adjoint
    that goes through one step or more is exact with it to first order.
    """

    solves: type[Problem]

    def init(self, problem: Any, x: Tree) -> _Found:
        """See `Solver.init`."""
        return _Found(no_info(x))

    def step(self, problem: Any, x: Tree, state: _Found) -> tuple[Tree, _Found]:
        """See `Solver.step`."""
        vector, back = trees.ravel(x)
        flat = lambda v: trees.ravel(_condition(problem)(back(v)))[0]  # noqa: E731
        residual, jacobian = flat(vector), jax.jacfwd(flat)(vector)
        value = problem.fun(x) if problem.kind == Minimization.kind else trees.norm(residual)
        following = back(vector - jnp.linalg.solve(jacobian, residual))
        return following, _Found(info_at(value, residual))

    def status(self, problem: Any, x: Tree, state: _Found) -> jax.Array:
        """See `Solver.status`."""
        return judge(problem, state.info)


NEWTON: dict[str, FullNewton] = {
    problem.kind: FullNewton(problem)
    for problem in (Minimization, RootFinding, FixedPointFinding, LeastSquares)
}
