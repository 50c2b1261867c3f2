"""What Nestor raises, as a tree.

NestorError
├── BadArgument          an argument cannot be used: which, what it was, what to do (a ValueError and a TypeError)
├── SolveFailed          a solve ended without converging; `.solution` holds what there is (a RuntimeError)
├── CannotDifferentiate  this adjoint cannot take that derivative, said while tracing (a TypeError)
└── MissingExtra         an optional package is not installed; names the pip line (an ImportError)
"""

from __future__ import annotations

from typing import Any

__all__ = ["BadArgument", "CannotDifferentiate", "MissingExtra", "NestorError", "SolveFailed"]


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
        shown = got if isinstance(got, str) else _short(got)
        super().__init__(f"{where}: argument '{argument}' is {shown}; it must be {want}.\nDo this: {do}.")


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
        super().__init__(
            f"{purpose} needs {package}, which is not installed.\nDo this: pip install 'nestor[{extra}]'"
        )


def _short(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return f"{text} ({type(value).__name__})"
