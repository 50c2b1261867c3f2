"""Mirror descent: steps in a geometry that fits the set."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.solvers import _proximal_gradient as _proximal
from nestor.solvers._contract import Composite, Problem

Tree = Any


@trees.record
class Entropy:
    """The mirror map of relative entropy, log x: steps multiply, x <- x exp(-a grad), and are then normalised.

    For sets with `project_kl`: `Simplex`, `NonNegative`, `Transport`, `Birkhoff`. Your own mirror map is any
    object with these two verbs. Source: Beck and Teboulle 2003, section 5.

    >>> import nestor
    >>> nestor.MirrorDescent(nestor.Entropy()).mirror
    Entropy()
    """

    def dual(self, x: Tree) -> Tree:
        """log x; of zero, that of the least positive number."""
        return jax.tree.map(lambda leaf: jnp.log(jnp.maximum(leaf, float(jnp.finfo(leaf.dtype).tiny))), x)

    def primal(self, z: Tree, term: Any) -> Tree:
        """The point of the set nearest to exp z in relative entropy."""
        return term.project_kl(z)


class _Mirrored:
    """Steps through the mirror: the squared distance is the symmetric Bregman divergence."""

    def __init__(self, mirror: Any) -> None:
        self.mirror = mirror

    def move(self, term: Any, x: Tree, grad: Tree, length: jax.Array) -> Tree:
        return self.mirror.primal(trees.add_scaled(self.mirror.dual(x), -length, grad), term)

    def square(self, x: Tree, base: Tree) -> jax.Array:
        turned = trees.subtract(self.mirror.dual(x), self.mirror.dual(base))
        return trees.dot(turned, trees.subtract(x, base))


@trees.record
class MirrorDescent:
    """Mirror descent: dual(x) <- dual(x) - a grad fun(x), and back into the set.

    With `Entropy` on a simplex: exponentiated gradient, x <- x exp(-a grad) / sum. The length a is found from the
    curvature met, relative to that of the mirror map. Entries that are zero at the solution fall geometrically
    and are never exactly zero; an entry that starts at zero counts as the least positive number.

    Args:
        mirror: a mirror map: `Entropy()` (the default), or an object with ``dual(x)`` and ``primal(z, set)``.
        first: the length of the first step; None is 1 / |grad|, at most 1.

    Cost: one gradient, one step through the mirror and one projection (for the optimality) a step.
    Source: Nemirovski and Yudin 1983; Beck and Teboulle 2003; Bauschke, Bolte, Teboulle 2017 for the length.

    >>> import jax.numpy as jnp, nestor
    >>> fun = lambda x: jnp.sum((x - jnp.array([0.6, 0.1])) ** 2) / 2
    >>> start, solver = jnp.array([0.5, 0.5]), nestor.MirrorDescent()
    >>> nestor.minimize(fun, start, prox=nestor.proximal.Simplex(), solver=solver).x.round(2).tolist()
    [0.75, 0.25]
    """

    mirror: Any = dataclasses.field(default_factory=Entropy)
    first: Any = None
    solves: ClassVar[type[Problem]] = Composite

    @property
    def needs(self) -> str:
        """The verb that the set must have."""
        return "project_kl" if isinstance(self.mirror, Entropy) else "project"

    def init(self, problem: Composite, x: Tree) -> _proximal.ProximalState:
        """See `Solver.init`."""
        return _proximal.init(x)

    def step(
        self, problem: Composite, x: Tree, state: _proximal.ProximalState
    ) -> tuple[Tree, _proximal.ProximalState]:
        """See `Solver.step`."""
        return _proximal.step(problem, x, state, "none", self.first, _Mirrored(self.mirror))

    def status(self, problem: Composite, x: Tree, state: _proximal.ProximalState) -> jax.Array:
        """See `Solver.status`."""
        return _proximal.status(problem, state)
