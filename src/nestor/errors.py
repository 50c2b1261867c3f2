"""What Nestor raises, as a tree.

NestorError
├── BadArgument          an argument cannot be used: which, what it was, what to do (a ValueError and a TypeError)
├── SolveFailed          a solve ended without converging; `.solution` holds what there is (a RuntimeError)
├── ReversalFailed       a run made backwards did not come back to its start (a RuntimeError)
├── CannotDifferentiate  this adjoint cannot take that derivative, said while tracing (a TypeError)
└── MissingExtra         an optional package is not installed; names the pip line (an ImportError)
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = [
    "BadArgument",
    "CannotDifferentiate",
    "MissingExtra",
    "NestorError",
    "ReversalFailed",
    "SolveFailed",
]


class NestorError(Exception):
    """The root of every error that Nestor raises on purpose.

    >>> import nestor
    >>> try:
    ...     nestor.minimize(lambda x: x, 3)
    ... except nestor.NestorError as error:
    ...     print(type(error).__name__)
    BadArgument
    """


class BadArgument(NestorError, ValueError, TypeError):
    """An argument cannot be used; the first two lines name it, its value and the remedy.

    Args:
        where: the public function that was called, for example ``"minimize"``.
        argument: the name of the argument.
        got: the value, or a short description of it (a string is printed as it is).
        want: what the argument must be.
        do: what to do instead.

    >>> import nestor
    >>> print(nestor.BadArgument("minimize", "tol", got="-1.0", want="positive", do="pass 1e-6"))
    minimize: argument 'tol' is -1.0; it must be positive.
    Do this: pass 1e-6.
    """

    def __init__(self, where: str, argument: str, *, got: Any, want: str, do: str):
        self.where, self.argument, self.got, self.want, self.do = where, argument, got, want, do
        room = _LONGEST - len(f"{where}: argument '{argument}' is ; it must be {want}.")
        self.shown = _one_line(got if isinstance(got, str) else _short(got), room)
        remedy = _one_line(do, _LONGEST - len("Do this: ."))
        super().__init__(
            f"{where}: argument '{argument}' is {self.shown}; it must be {want}.\nDo this: {remedy}."
        )

    def __reduce__(self) -> Any:
        """Pickled with the value as text: it may be a function, or traced."""
        make = functools.partial(
            type(self), self.where, self.argument, got=self.shown, want=self.want, do=self.do
        )
        return make, ()


class SolveFailed(NestorError, RuntimeError):
    """A solve ended without converging.

    Args:
        message: why, and what to do; the status's message comes first.
        solution: the unfinished `Solution`: the best point seen, its value, status and counts.

    >>> import nestor
    >>> try:
    ...     nestor.minimize(lambda x: -x, 0.0, max_steps=3)
    ... except nestor.SolveFailed as error:
    ...     print(error.solution.success)
    False
    """

    def __init__(self, message: str, solution: Any = None):
        self.solution = solution
        super().__init__(message)

    @classmethod
    def of(cls, where: str, solution: Any, facts: str) -> SolveFailed:
        """The error of a solution: its status, what is known of it, and what to do.

        Args:
            where: the public function.
            solution: the unfinished `Solution`.
            facts: goes on after "Status NAME after N evaluations".
        """
        return cls(
            f"{where}: {solution.status.message}\nStatus {solution.status.name} after "
            f"{int(solution.stats.evaluations)} evaluations{facts}. The unfinished solution is in the exception's "
            ".solution; raise_on_failure=False returns it. See how-to/it-does-not-converge.",
            solution,
        )


class ReversalFailed(NestorError, RuntimeError):
    """A run that was made backwards did not come back to its start bit for bit; see `nestor.Reversible`.

    Raised by a compiled program, so JAX shows it inside an error of its own.

    >>> import nestor
    >>> issubclass(nestor.ReversalFailed, RuntimeError)
    True
    """


class CannotDifferentiate(NestorError, TypeError):
    """An adjoint was asked for a derivative that it cannot give; raised while tracing.

    >>> import jax, nestor
    >>> def y(x):
    ...     return nestor.argmin(lambda z: (z - x) ** 2, 0.0, adjoint=nestor.Forward())
    >>> try:
    ...     jax.grad(y)(1.0)
    ... except nestor.CannotDifferentiate as error:
    ...     print(str(error).splitlines()[0])
    Forward() only has forward-mode derivatives, and reverse mode (grad, vjp, jacrev) was asked for.
    """


class MissingExtra(NestorError, ImportError):
    """An optional package is missing; the message names the line that installs it.

    Args:
        package: the module that could not be imported.
        extra: the extra of Nestor that brings it.
        purpose: what it is needed for.

    >>> import nestor
    >>> print(nestor.MissingExtra("matplotlib", "plots", "drawing a history"))
    drawing a history needs matplotlib, which is not installed.
    Do this: pip install 'nestor[plots]'
    """

    def __init__(self, package: str, extra: str, purpose: str):
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(
            f"{purpose} needs {package}, which is not installed.\nDo this: pip install 'nestor[{extra}]'"
        )

    def __reduce__(self) -> Any:
        """Pickled as what it was made of."""
        return type(self), (self.package, self.extra, self.purpose)


_LONGEST = 290  # characters of a line of a message


def _short(value: Any) -> str:
    try:
        text = _one_line(repr(value), 80)
    except Exception:  # a message about a bad argument must not fail on a bad repr
        return f"an object of type {type(value).__name__}"
    if type(value).__name__.endswith("Tracer"):
        return f"the traced value {text}"
    return f"{text} ({type(value).__name__})"


def _one_line(text: str, longest: int) -> str:
    text = " ".join(text.split())
    longest = max(longest, 40)
    return text if len(text) <= longest else text[: longest - 3] + "..."
