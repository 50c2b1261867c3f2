"""What every adjoint promises, as tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import CannotDifferentiate
from nestor.solvers import argmin, minimum
from nestor.testing._promises import made, require
from nestor.testing._questions import NEWTON, QUESTIONS, cast, solve

Tree = Any

_SEE = "nestor.adjoints.Adjoint (the contract) and how-to/choose-an-adjoint"
_TOL = 1e-11
_MINIMIZER = NEWTON["minimization"]


class AdjointChecks:
    """Tests of everything that an adjoint promises; subclass it in a test file and name the adjoint.

    All derivatives are held against closed forms, in float64, at answers that Newton's method on the condition
    (undamped, one dense solve a step) finds to 1e-11; so one step or more of it carries the exact derivative.

    Args:
        make: a callable without arguments that makes the adjoint.
        forward: whether it has forward-mode derivatives; if not, asking must raise `CannotDifferentiate`.
        reverse: the same for reverse mode.
        second_order: whether second derivatives are exact; if not, they are not looked at.
        accuracy: error allowed in a first derivative; a hundred times that in a second.

    >>> import nestor
    >>> from nestor.testing import AdjointChecks
    >>> class TestImplicit(AdjointChecks):
    ...     make = nestor.Implicit
    >>> TestImplicit().test_is_frozen_and_compares_by_value()
    """

    make: ClassVar[Any]
    forward: ClassVar[bool] = True
    reverse: ClassVar[bool] = True
    second_order: ClassVar[bool] = True
    accuracy: ClassVar[float] = 1e-6

    # --- what it is -------------------------------------------------------------------------------

    def test_is_frozen_and_compares_by_value(self) -> None:
        """An adjoint is hashable, holds no arrays, and has the one verb `attach`."""
        adjoint, twin = made(self), made(self)
        self._require(
            callable(getattr(adjoint, "attach", None)),
            "An adjoint has the verb attach(loop, read, condition).",
            f"attach = {getattr(adjoint, 'attach', 'missing')!r}",
        )
        promise = (
            "An adjoint is hashable, compares by value and holds plain numbers only: what is compiled for it "
            "is found again by its value."
        )
        try:
            same = adjoint == twin and hash(adjoint) == hash(twin)
        except (TypeError, ValueError) as error:
            self._require(False, promise, str(error))
            return
        self._require(same, promise, f"two of them, made alike, differ: {adjoint!r} and {twin!r}")
        self._require(not trees.split(adjoint)[0], promise, f"arrays in {adjoint!r}")

    # --- what it gives ----------------------------------------------------------------------------

    def test_derivative_of_a_minimizer(self) -> None:
        """First derivatives of an argmin, against the closed form."""
        self._check_kind("minimization")

    def test_derivative_of_a_root(self) -> None:
        """First derivatives of a root, against the closed form."""
        self._check_kind("root finding")

    def test_derivative_of_a_fixed_point(self) -> None:
        """First derivatives of a fixed point, against the closed form."""
        self._check_kind("fixed point")

    def test_derivative_of_least_squares(self) -> None:
        """First derivatives of a least-squares fit, against the closed form."""
        self._check_kind("least squares")

    def test_says_so_where_it_cannot(self) -> None:
        """A mode that it does not have is refused with `CannotDifferentiate` while tracing."""
        with jax.enable_x64(True):
            t = jnp.asarray(0.8, jnp.float64)
            modes = (
                ("forward mode (jvp)", self.forward, jax.jacfwd(self._sine)),
                ("reverse mode (grad)", self.reverse, jax.grad(self._sine)),
            )
            for name, supported, derivative in modes:
                if not supported:
                    self._check_refusal(name, derivative, t)

    def test_second_derivatives(self) -> None:
        """Second derivatives, in the modes that it has."""
        if not self.second_order:
            return
        with jax.enable_x64(True):
            t = jnp.asarray(0.8, jnp.float64)
            wanted = -jnp.sin(t)
            inner_name, inner = self._modes()[-1]
            for outer_name, outer in self._modes():
                found = jax.jit(outer(inner(self._sine)))(t)
                self._require(
                    abs(float(found - wanted)) <= 100 * self.accuracy,
                    "Second derivatives are exact where second_order is True: the rule of an adjoint is "
                    "itself differentiable, and the answer in it is differentiated by the same rule.",
                    f"{outer_name} over {inner_name}: {float(found):.9g}; it is {float(wanted):.9g}",
                )

    def test_obeys_the_envelope_theorem(self) -> None:
        """First and second derivatives of `minimum`, whatever the adjoint does for the first."""
        with jax.enable_x64(True):
            t = jnp.asarray(0.7, jnp.float64)

            def value(t: Any) -> jax.Array:
                return minimum(
                    lambda y: (1 + t**2) * y**2 / 2 - jnp.sin(t) * y,
                    jnp.zeros((), jnp.float64),
                    solver=_MINIMIZER,
                    adjoint=made(self),
                    tol=_TOL,
                    max_steps=100,
                )

            closed = lambda t: -(jnp.sin(t) ** 2) / (2 * (1 + t**2))  # noqa: E731
            found, wanted = jax.jit(jax.grad(value))(t), jax.grad(closed)(t)
            self._require(
                abs(float(found - wanted)) <= self.accuracy,
                "The first derivative of nestor.minimum is the partial derivative of the objective at the answer.",
                f"{float(found):.9g}; it is {float(wanted):.9g}",
            )
            if self.second_order and self.forward:
                found = jax.jit(jax.jacfwd(jax.grad(value)))(t)
                wanted = jax.grad(jax.grad(closed))(t)
                self._require(
                    abs(float(found - wanted)) <= 100 * self.accuracy,
                    "The second derivative of nestor.minimum goes through the adjoint, and is exact.",
                    f"{float(found):.9g}; it is {float(wanted):.9g}",
                )

    # --- what it composes with ----------------------------------------------------------------------

    def test_batches_and_keeps_lanes_apart(self) -> None:
        """`jit` of `vmap` of a derivative is the derivative lane by lane; a NaN lane poisons no other."""
        with jax.enable_x64(True):
            ts = jnp.asarray([0.3, jnp.nan, 0.9, -1.2], jnp.float64)
            wanted = np.cos(np.asarray(ts))
            for name, found in jax.jit(jax.vmap(self._derivatives(self._sine)))(ts).items():
                off = np.abs(np.asarray(found) - wanted)[[0, 2, 3]]
                self._require(
                    np.all(off <= self.accuracy) and np.isnan(found[1]),
                    "Derivatives work under jit and vmap; a lane without an answer has a NaN derivative, and "
                    "the others do not notice.",
                    f"{name}: {found} for parameters {np.asarray(ts)}; they are {wanted}",
                )

    def test_failure_is_nan(self) -> None:
        """The derivative of a solve that did not converge is NaN under the default policy of a trace."""
        with jax.enable_x64(True):
            t = jnp.asarray(0.8, jnp.float64)
            for name, found in jax.jit(self._derivatives(lambda t: self._sine(t, max_steps=1)))(t).items():
                self._require(
                    np.isnan(found),
                    "Inside a trace an answer without convergence is NaN, and so is its derivative "
                    '(on_failure="nan"): a wrong gradient never looks like a right one.',
                    f"{name}: {found}",
                )

    def test_integers_and_random_keys(self) -> None:
        """What the objective closes over may be integers and random keys, traced ones too."""
        with jax.enable_x64(True):
            base = jnp.asarray([0.5, -1.0, 2.0], jnp.float64)

            def total(t: Any, places: jax.Array, key: jax.Array) -> jax.Array:
                def objective(x: jax.Array) -> jax.Array:
                    noise = jax.random.normal(key, (2,), jnp.float64)
                    return jnp.sum((x - t * base[places] - noise) ** 2)

                start = jnp.zeros(2, jnp.float64)
                x = argmin(objective, start, solver=_MINIMIZER, adjoint=made(self), tol=_TOL, max_steps=100)
                return jnp.vdot(x, jnp.asarray([1.0, 3.0], jnp.float64))

            t, places, key = jnp.asarray(1.5, jnp.float64), jnp.asarray([2, 0], jnp.int32), jax.random.key(0)
            for name, found in jax.jit(self._derivatives(total))(t, places, key).items():
                self._require(
                    abs(float(found) - 3.5) <= 10 * self.accuracy,
                    "Integers and random keys among the inputs have no derivative and do no harm.",
                    f"{name}: {found}; it is 3.5",
                )

    # --- inside -------------------------------------------------------------------------------------

    def _require(self, kept: Any, promise: str, found: str) -> None:
        __tracebackhide__ = True
        require(kept, f"{type(self).__name__}: {promise}", found, _SEE)

    def _modes(self) -> list[tuple[str, Callable[..., Any]]]:
        forward = [("forward mode", jax.jacfwd)] if self.forward else []
        return forward + ([("reverse mode", jax.grad)] if self.reverse else [])

    def _derivatives(self, function: Callable[..., jax.Array]) -> Callable[..., dict[str, jax.Array]]:
        """The derivative of a scalar function in its first argument, in every mode; compiled once for both."""

        def derivatives(t: Any, *others: Any) -> dict[str, jax.Array]:
            if not (self.forward and self.reverse):
                return {name: mode(function)(t, *others) for name, mode in self._modes()}
            out, push = jax.linearize(lambda t: function(t, *others), t)
            (pulled,) = jax.linear_transpose(push, t)(jnp.ones_like(out))
            return {"forward mode": push(jnp.ones_like(t)), "reverse mode": pulled}

        return derivatives

    def _sine(self, t: Any, max_steps: int = 100) -> jax.Array:
        """The argmin of a quartic: sin(t), with derivatives of every order."""
        s = jnp.sin(t)
        start = jnp.full((), 3.0, jnp.float64)
        fun = lambda y: y**2 / 2 + y**4 / 4 - (s + s**3) * y  # noqa: E731
        return argmin(fun, start, solver=_MINIMIZER, adjoint=made(self), tol=_TOL, max_steps=max_steps)

    def _check_kind(self, kind: str) -> None:
        question = QUESTIONS[kind][1]
        with jax.enable_x64(True):
            t = jnp.asarray(0.8, jnp.float64)

            def total(t: Any) -> jax.Array:
                fun = lambda x: question.fun(t, x)  # noqa: E731
                options = {"solver": NEWTON[kind], "adjoint": made(self), "tol": _TOL, "max_steps": 100}
                return _total(solve(kind, fun, cast(question.start, t.dtype), **options).x)

            wanted = jax.grad(lambda t: _total(question.answer(t)))(t)
            for name, found in jax.jit(self._derivatives(total))(t).items():
                self._require(
                    abs(float(found - wanted)) <= self.accuracy,
                    "The derivative of a converged answer is that of the answer.",
                    f"{question.name} ({kind}), {name}: {float(found):.9g}; it is {float(wanted):.9g}",
                )

    def _check_refusal(self, name: str, derivative: Callable[..., Any], t: Any) -> None:
        promise = (
            f"An adjoint without {name} raises CannotDifferentiate, while tracing, when it is asked for."
        )
        try:
            jax.make_jaxpr(derivative)(t)
        except CannotDifferentiate:
            return
        except Exception as error:  # anything else is a wrong refusal
            self._require(False, promise, f"{type(error).__name__}: {error}")
        self._require(False, promise, f"no error; if {name} works, say so in the class body")


def _total(x: Tree) -> jax.Array:
    return sum((jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(x)), jnp.zeros((), jnp.float64))
