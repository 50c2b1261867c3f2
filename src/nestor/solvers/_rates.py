"""Steps that are given and not searched for: learning rates that change, or that every coordinate has its own of."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from nestor import schedules, trees
from nestor.errors import BadArgument
from nestor.programs import structure_text

Tree = Any


@runtime_checkable
class Rate(Protocol):
    """A step that is taken as it is: what a method with a `search` can be given in place of one.

    No move is judged, so the objective may rise; there is no evaluation but that of the new point.
    """

    def begin(self, x: Tree) -> Any:
        """The memory before the first move."""
        ...

    def scale(self, memory: Any, grad: Tree, direction: Tree) -> tuple[Tree, Any]:
        """The move from a point with that gradient along that direction, and the memory after it."""
        ...


def _schedule(owner: Any, name: str) -> None:
    """Make a schedule of that field; `object()` is what JAX fills a tree with to look at its structure."""
    value = getattr(owner, name)
    if type(value) is not object:
        object.__setattr__(owner, name, schedules.as_schedule(value, type(owner).__name__, name))


def _check_groups(owner: Any, schedule: Any, x: Tree) -> None:
    """The values of a schedule must be a prefix of the unknowns."""
    values = jax.eval_shape(schedule, jnp.int32(0))
    try:
        jax.tree.map(lambda value, part: None, values, x)
    except ValueError as error:
        raise BadArgument(
            type(owner).__name__,
            "schedule",
            got=f"one for the groups {structure_text(values)}",
            want=f"for groups of the unknowns, {structure_text(x)}",
            do="give the schedules the structure of x0, or of its upper branches",
        ) from error


def _times(values: Tree, direction: Tree) -> Tree:
    """Each group of the direction times its value."""
    return jax.tree.map(trees.scale, values, direction)


@trees.record
class ScheduledStep:
    """A step length from a schedule: x <- x + a_t d, the first with t = 0.

    Args:
        schedule: of `nestor.schedules`, or what `nestor.schedules.as_schedule` makes one of: a number, an array
            with one length for each step, a function of the step, a tree of these for groups of the unknowns.
            `Unroll`, `Checkpoint` and `Forward` differentiate its numbers.

    No step is judged. A schedule counts moves, not solves.

    >>> import nestor
    >>> decay = nestor.schedules.InverseTime(0.4, 0.1)
    >>> solver = nestor.GradientDescent(nestor.ScheduledStep(decay))
    >>> nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0, solver=solver).success
    True
    """

    schedule: Any

    def __post_init__(self) -> None:
        """Make a schedule of what can be one."""
        _schedule(self, "schedule")

    def begin(self, x: Tree) -> jax.Array:
        """The moves so far."""
        _check_groups(self, self.schedule, x)
        return jnp.int32(0)

    def scale(self, memory: jax.Array, grad: Tree, direction: Tree) -> tuple[Tree, jax.Array]:
        """See `Rate.scale`."""
        return _times(self.schedule(memory), direction), memory + 1


class _Squares(NamedTuple):
    moves: jax.Array
    squares: Tree


@trees.record
class AdaGradStep:
    """A step length for every coordinate, from all gradients so far: a / sqrt(g_0² + ... + g_t² + eps).

    Args:
        rate: the numerator a, anything that `ScheduledStep` takes.
        eps: under the root, so that a first gradient of zero does no harm.

    The direction is that of the method: with `GradientDescent` this is AdaGrad itself. No step is judged.
    Source: Duchi, Hazan and Singer 2011, figure 1, the diagonal case.

    >>> import nestor
    >>> solver = nestor.GradientDescent(nestor.AdaGradStep(1.0))
    >>> nestor.minimize(lambda x: (x - 2.0) ** 2, 0.0, solver=solver).success
    True
    """

    rate: Any
    eps: Any = 1e-8

    def __post_init__(self) -> None:
        """Make a schedule of the rate."""
        _schedule(self, "rate")

    def begin(self, x: Tree) -> _Squares:
        """No gradients yet."""
        _check_groups(self, self.rate, x)
        return _Squares(jnp.int32(0), trees.zeros_like(x))

    def scale(self, memory: _Squares, grad: Tree, direction: Tree) -> tuple[Tree, _Squares]:
        """See `Rate.scale`."""
        squares = jax.tree.map(lambda s, g: s + g * g, memory.squares, grad)
        scaled = _over_roots(direction, squares, self.eps)
        return _times(self.rate(memory.moves), scaled), _Squares(memory.moves + 1, squares)


@trees.record
class RMSPropStep:
    """A step length for every coordinate, from the recent gradients: a / sqrt(r_t + eps).

    r_t = decay r_(t-1) + (1 - decay) g_t², from r = 0.

    Args:
        rate: the numerator a, anything that `ScheduledStep` takes.
        decay: how much of r is kept, from 0 to 1.
        eps: under the root.

    The direction is that of the method: with `GradientDescent` this is RMSProp itself. No step is judged, and
    at a constant rate the steps do not become small: let the rate fall. Source: Tieleman and Hinton 2012.

    >>> import nestor
    >>> rate = nestor.schedules.Exponential(0.1, 0.95)
    >>> solver = nestor.GradientDescent(nestor.RMSPropStep(rate))
    >>> nestor.minimize(lambda x: (x - 1.0) ** 2, 0.0, solver=solver, tol=1e-3).success
    True
    """

    rate: Any
    decay: Any = 0.9
    eps: Any = 1e-6

    def __post_init__(self) -> None:
        """Make a schedule of the rate."""
        _schedule(self, "rate")

    def begin(self, x: Tree) -> _Squares:
        """No gradients yet."""
        _check_groups(self, self.rate, x)
        return _Squares(jnp.int32(0), trees.zeros_like(x))

    def scale(self, memory: _Squares, grad: Tree, direction: Tree) -> tuple[Tree, _Squares]:
        """See `Rate.scale`."""

        def mix(old: jax.Array, g: jax.Array) -> jax.Array:
            decay = jnp.asarray(self.decay).astype(g.dtype)
            return decay * old + (1 - decay) * g * g

        squares = jax.tree.map(mix, memory.squares, grad)
        scaled = _over_roots(direction, squares, self.eps)
        return _times(self.rate(memory.moves), scaled), _Squares(memory.moves + 1, squares)


def _over_roots(direction: Tree, squares: Tree, eps: Any) -> Tree:
    return jax.tree.map(
        lambda d, s: d * jax.lax.rsqrt(s + jnp.asarray(eps).astype(s.dtype)), direction, squares
    )
