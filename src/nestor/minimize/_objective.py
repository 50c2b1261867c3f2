"""The user's functions as a host solver sees them: from float64 vectors to numbers, vectors and matrices."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nestor.errors import BadArgument
from nestor.minimize import _differences
from nestor.minimize._box import HostBox
from nestor.minimize._frameworks import NotFollowed, is_complex, numbers
from nestor.minimize._layout import Layout
from nestor.minimize._stop import Stop
from nestor.solution import Status

Vector = np.ndarray


class Called:
    """A user's function of a tree, as a function of the list of leaves; frameworks keep what they made of it."""

    def __init__(self, fun: Callable[..., Any], layout: Layout, args: tuple[Any, ...]):
        self.fun, self.layout, self.args = fun, layout, args

    def __call__(self, leaves: list[Any]) -> Any:
        """The function at a tree with these leaves."""
        return self.fun(self.layout.tree(leaves), *self.args)


class Objective:
    """Values, gradients and second derivatives of the objective.

    Attributes:
        exact: whether gradients are the framework's or the user's, not finite differences.
        calls, most: how often the user's function was called for a value or a gradient, and how often it may be.
        until: when time is up; the first call may always be made.
        followed: whether derivatives of higher order are the framework's.
    """

    def __init__(
        self, where: str, layout: Layout, fun: Any, args: tuple[Any, ...], jac: Any, hess: Any, hessp: Any
    ):
        self.where, self.layout, self.framework = where, layout, layout.framework
        self.call, self.args = Called(fun, layout, args), args
        self.jac, self.hess, self.hessp = jac, hess, hessp
        self.followed = layout.framework.differentiates and jac is None
        self.differenced = isinstance(jac, str)
        framework = layout.framework.differentiates and not self.differenced
        self.exact = framework or callable(jac) or jac is True
        self.central = jac == "3-point"
        self.box = HostBox.free(layout.size)
        self.calls = 0
        self.most: int | None = None
        self.until: float | None = None
        self._seen_pair = jac is True

    def spend(self, calls: int) -> None:
        """Count calls that are about to be made; none may be when there are none left."""
        if self.most is not None and self.calls >= self.most:
            raise Stop(Status.OUT_OF_EVALUATIONS)
        if self.until is not None and self.calls and time.monotonic() >= self.until:
            raise Stop(Status.OUT_OF_TIME)
        self.calls += calls

    def value(self, x: Vector) -> tuple[float, Vector | None]:
        """The objective; its gradient too where the user's function returns both."""
        self.spend(1)
        result, grad = self._parted(self.framework.value(self.call, self.layout.leaves(x)))
        return self._scalar(result), grad

    def value_and_grad(self, x: Vector) -> tuple[float, Vector]:
        """Both, from the framework, the user, or finite differences."""
        if callable(self.jac):
            value, _ = self.value(x)
            tree = self.jac(self.layout.tree(self.layout.leaves(x)), *self.args)
            return value, self.layout.flat("jac", tree)
        if not self.framework.differentiates or self._seen_pair or self.differenced:
            value, grad = self.value(x)
            return value, self._differences(x, value) if grad is None else grad
        self.spend(1)
        result, grads = self.framework.value_and_grad(self.call, self.layout.leaves(x))
        if grads is None:
            result, grad = self._parted(result)
            assert grad is not None
            return self._scalar(result), grad
        return self._scalar(result), self.layout.vector(grads)

    def _differences(self, x: Vector, value: float) -> Vector:
        if not np.isfinite(value):
            return np.full_like(x, np.nan)
        try:
            return self.differences(x, value)
        except Stop as stop:
            stop.value = value
            raise

    def differences(self, x: Vector, value: float, central: bool | None = None) -> Vector:
        """The gradient by finite differences that stay inside the bounds."""
        both = self.central if central is None else central
        return _differences.gradient(self._plain, x, value, self.box, self._steps(both), both)

    def exact_gradient(self, x: Vector, value: float) -> Vector:
        """The best gradient there is, for the verdict."""
        try:
            if self.exact:
                return self.value_and_grad(x)[1]
        except NotFollowed:  # a method without gradients has come here with a function that has none
            self.exact = False
        return self.differences(x, value, central=True)

    def hessian(self, x: Vector) -> np.ndarray:
        """The dense Hessian, (n, n)."""
        n = self.layout.size
        if callable(self.hess):
            return self._matrix(self.hess(self.layout.tree(self.layout.leaves(x)), *self.args))
        if callable(self.hessp):
            return _symmetric(np.stack([self.product(x, unit) for unit in np.eye(n)]))
        if self.followed:
            rows = self.framework.hessian(self.call, self.layout.leaves(x))
            return _symmetric(np.concatenate([np.concatenate(row, axis=1) for row in rows]))
        slope = lambda z: self.value_and_grad(z)[1]  # noqa: E731
        columns = _differences.jacobian(slope, x, slope(x), self.box, self._steps(False))
        return _symmetric(columns)

    def product(self, x: Vector, p: Vector) -> Vector:
        """The Hessian times p."""
        layout = self.layout
        if callable(self.hessp):
            tree = self.hessp(layout.tree(layout.leaves(x)), layout.tree(layout.leaves(p)), *self.args)
            return layout.flat("hessp", tree)
        if callable(self.hess):
            return self.hessian(x) @ p
        if self.followed:
            return layout.vector(self.framework.product(self.call, layout.leaves(x), layout.leaves(p)))
        slope = lambda z: self.value_and_grad(z)[1]  # noqa: E731
        return _differences.along(slope, x, p, self.box, self.layout.eps**0.5)

    def _plain(self, x: Vector) -> float:
        return self.value(x)[0]

    def _steps(self, central: bool) -> Vector:
        """Relative steps of a difference: by the precision of each leaf."""
        power = 1 / 3 if central else 1 / 2
        return np.concatenate([np.full(spec.size, spec.eps**power) for spec in self.layout.specs])

    def _parted(self, result: Any) -> tuple[Any, Vector | None]:
        """A value, or a value and the user's gradient."""
        pair = isinstance(result, (tuple, list))
        if not pair and self.jac is True:
            raise BadArgument(
                self.where,
                "fun",
                got=f"a function that returns a {type(result).__name__}",
                want="one that returns a pair, for jac=True says so",
                do="return (value, gradient), or leave jac=True out",
            )
        if not pair:
            return result, None
        if len(result) != 2 or self.jac is False or self.differenced or callable(self.jac):
            raise BadArgument(
                self.where,
                "fun",
                got=f"a function that returns {len(result)} things",
                want="one that returns the value, or the pair (value, gradient)",
                do="return the value alone" if len(result) == 2 else "return value, or value, gradient",
            )
        self._seen_pair = self.exact = True
        return result[0], self.layout.flat("the gradient of fun", result[1])

    def _scalar(self, value: Any) -> float:
        if value is None:
            raise BadArgument(
                self.where,
                "fun",
                got="a function that returns None",
                want="one that returns a real number",
                do="return the objective",
            )
        imaginary = is_complex(value)
        try:
            array = np.zeros(np.shape(value)) if imaginary else numbers(value)
        except (TypeError, ValueError) as error:
            raise BadArgument(
                self.where,
                "fun",
                got=f"a function that returns a {type(value).__name__}",
                want="one that returns a real number",
                do="return the objective, a scalar; from a complex one its real part or its size",
            ) from error
        if array.size != 1 or imaginary:
            what = "a complex number" if imaginary else f"an array of shape {array.shape}"
            raise BadArgument(
                self.where,
                "fun",
                got=f"a function that returns {what}",
                want="scalar-valued",
                do="sum or average the result; a real scalar can be minimized",
            )
        return float(array.reshape(-1)[0])

    def _matrix(self, result: Any) -> np.ndarray:
        """A Hessian, (n, n) in the order of the leaves, or a tree of trees of blocks."""
        n = self.layout.size
        if hasattr(result, "matmat"):  # a linear operator of SciPy's
            result = result.matmat(np.eye(n))
        try:
            return self._blocks(result)
        except (TypeError, ValueError) as error:
            if isinstance(error, BadArgument):
                raise
            raise BadArgument(
                self.where,
                "hess",
                got=f"a function that returns no Hessian ({error})",
                want=f"one to a matrix of {n} x {n}, or a tree of trees of blocks",
                do="order rows and columns as the leaves of x0, or leave hess out",
            ) from error

    def _blocks(self, result: Any) -> np.ndarray:
        n = self.layout.size
        array = result if hasattr(result, "shape") or hasattr(result, "todense") else None
        if array is not None and int(np.prod(array.shape)) == n * n:
            dense = array.todense() if hasattr(array, "todense") else array
            return _symmetric(numbers(dense).reshape(n, n))
        if array is not None:
            raise BadArgument(
                self.where,
                "hess",
                got=f"a function that returns an array of shape {tuple(array.shape)}",
                want=f"one that returns the Hessian, of shape {(n, n)}",
                do="give it a row and a column for every unknown, in the order of the leaves of x0",
            )
        specs = self.layout.specs
        rows = []
        for spec, row in zip(specs, self.layout.parts("hess", result), strict=True):
            blocks = self.layout.parts("hess", row)
            rows.append(
                np.concatenate(
                    [numbers(b).reshape(spec.size, o.size) for b, o in zip(blocks, specs, strict=True)],
                    axis=1,
                )
            )
        return _symmetric(np.concatenate(rows))


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
