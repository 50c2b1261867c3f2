"""Learning to learn: ways to adapt to a task from common parameters, and the loss of those parameters.

Every way is a function (params, support) -> adapted params, differentiable in params, once its loss and settings are
given (`functools.partial`). `meta_loss` averages over tasks what an adaptation achieves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints import Implicit
from nestor.errors import BadArgument
from nestor.linear import CG
from nestor.training import train, trained_part

Tree = Any
Loss = Callable[[Tree, Tree], Any]  # (params, examples) -> scalar


def maml(loss: Loss, params: Tree, support: Tree, *, optimizer: Any, steps: int, adjoint: Any = None) -> Tree:
    """Adapt to a task by some steps of training; derivatives go through the steps.

    phi_0 = theta,  phi_{k+1} = phi_k - rate grad L(phi_k, support)  with sgd(rate);  phi_steps is returned.

    Args:
        loss: ``loss(params, examples) -> scalar``.
        params: theta, any tree.
        support: the examples of one task, any tree.
        optimizer: of the steps, as in `nestor.train`; its numbers may be traced, and so be learned (Meta-SGD).
        steps: how many.
        adjoint: as in `nestor.train`; None chooses by size.

    Returns:
        phi, a tree like params.

    Cost: `steps` gradients; a derivative takes about three times as much, and with `Unroll` the memory of all steps.
    Source: Finn, Abbeel, Levine 2017, equation 1; Li et al. 2017 for learned rates.

    >>> import jax, nestor
    >>> from nestor import levels
    >>> loss = lambda x, target: (x - target) ** 2 / 2
    >>> after = lambda x: loss(levels.maml(loss, x, 1.0, optimizer=nestor.sgd(0.5), steps=2), 3.0)
    >>> float(jax.grad(after)(0.0))  # phi = 1 - (1 - x) / 4, so (phi - 3) / 4
    -0.5625
    """
    return train(
        lambda x, _: loss(x, support), params, None, optimizer=optimizer, steps=steps, adjoint=adjoint
    ).params


def fomaml(loss: Loss, params: Tree, support: Tree, *, optimizer: Any, steps: int) -> Tree:
    """`maml` as if the steps were a constant move: the gradient with respect to params is the one at the answer.

    d phi / d theta is taken to be the identity: no second derivatives, and a bias of the order of rate times steps.

    Args:
        loss, params, support, optimizer, steps: as in `maml`.

    Returns:
        phi, a tree like params.

    Cost: `steps` gradients; a derivative takes none more. Memory: of one step.
    Source: Finn, Abbeel, Levine 2017, section 5.2.

    >>> import jax, nestor
    >>> from nestor import levels
    >>> loss = lambda x, target: (x - target) ** 2 / 2
    >>> after = lambda x: loss(levels.fomaml(loss, x, 1.0, optimizer=nestor.sgd(0.5), steps=2), 3.0)
    >>> float(jax.grad(after)(0.0))  # phi - 3
    -2.25
    """
    theta, whole = trained_part("fomaml", params)
    return whole(trees.graft(_arrived(loss, params, support, optimizer, steps), theta))


def _arrived(loss: Loss, params: Tree, support: Tree, optimizer: Any, steps: int) -> Tree:
    """The trained arrays after the steps, as constants."""
    theta, whole = trained_part("maml", params)
    start = whole(trees.stop_gradient(theta))
    phi = maml(loss, start, trees.stop_gradient(support), optimizer=optimizer, steps=steps)
    return trees.stop_gradient(trained_part("maml", phi)[0])


def imaml(
    loss: Loss,
    params: Tree,
    support: Tree,
    *,
    strength: Any,
    optimizer: Any,
    steps: int,
    adjoint: Any = None,
) -> Tree:
    """Adapt to a task without going far; the derivative is that of the minimizer, whatever the steps.

    phi = argmin L(phi, support) + strength / 2 |phi - theta|²,  so  d phi / d theta = (I + H / strength)^-1  with H
    the Hessian of L at phi.

    Args:
        loss, params, support, optimizer, steps: as in `maml`; enough steps to be near the minimizer.
        strength: lambda > 0 of the pull to theta, a number. It may be traced, and so be learned.
        adjoint: None is ``Implicit(CG())``, which is NaN where I + H / strength is not positive: raise `strength`
            then, or take ``Implicit(GMRES())``; ``Implicit(CG(tol=0.0, max_steps=5))`` is the paper's.

    Returns:
        phi, a tree like params.

    Cost: `steps` gradients; a derivative takes one linear solve, a few products with H. Memory: of one step.
    Source: Rajeswaran, Finn, Kakade, Levine 2019, equations 3 and 6.

    >>> import jax, nestor
    >>> from nestor import levels
    >>> loss = lambda x, target: (x - target) ** 2 / 2
    >>> phi = lambda x: levels.imaml(loss, x, 1.0, strength=3.0, optimizer=nestor.sgd(0.25), steps=10)
    >>> round(float(phi(0.0)), 4), round(float(jax.grad(phi)(0.0)), 4)  # (1 + 3 x) / 4
    (0.25, 0.75)
    """
    theta, _ = trained_part("imaml", params)

    def pulled(x: Tree, examples: Tree) -> Any:
        apart = trees.subtract(trained_part("imaml", x)[0], theta)
        return loss(x, examples) + strength / 2 * trees.squared_norm(apart)

    adjoint = Implicit(CG()) if adjoint is None else adjoint
    return maml(pulled, params, support, optimizer=optimizer, steps=steps, adjoint=adjoint)


def anil(
    loss: Loss,
    params: Tree,
    support: Tree,
    *,
    moves: Tree,
    optimizer: Any,
    steps: int,
    adjoint: Any = None,
) -> Tree:
    """`maml` in which only a part moves, as a rule the last layer; the rest is learned above, and stays.

    Args:
        loss, params, support, optimizer, steps, adjoint: as in `maml`.
        moves: which parts move: booleans in a tree like the top of params, ``{"body": False, "head": True}``.

    Returns:
        phi, a tree like params; where `moves` is False, params themselves.

    Raises:
        BadArgument: `moves` does not fit params, or nothing moves.

    Cost: as of `maml`, for the part alone: a gradient that ends at the head does not reach the body.
    Source: Raghu, Raghu, Bengio, Vinyals 2020, section 4.1.

    >>> import nestor
    >>> from nestor import levels
    >>> loss = lambda p, target: (p["body"] * p["head"] - target) ** 2
    >>> levels.anil(loss, {"body": 1.0, "head": 0.0}, 3.0, moves={"body": False, "head": True},
    ...             optimizer=nestor.sgd(0.5), steps=1)
    {'body': 1.0, 'head': Array(3., dtype=float32)}
    """
    try:
        chosen = jax.tree.broadcast(moves, params)
    except ValueError as error:
        raise BadArgument(
            "anil",
            "moves",
            got=moves,
            want="booleans in a tree like params, or like the top of it",
            do='write moves={"body": False, "head": True} for such a params',
        ) from error
    if not any(jax.tree.leaves(chosen)):
        raise BadArgument("anil", "moves", got=moves, want="True for some part", do="name the head")
    moving = jax.tree.map(lambda yes, leaf: leaf if yes else None, chosen, params)

    def whole(part: Tree) -> Tree:
        return jax.tree.map(
            lambda new, old: old if new is None else new, part, params, is_leaf=lambda leaf: leaf is None
        )

    ahead = maml(
        lambda part, examples: loss(whole(part), examples),
        moving,
        support,
        optimizer=optimizer,
        steps=steps,
        adjoint=adjoint,
    )
    return whole(ahead)


def meta_loss(
    loss: Loss, params: Tree, tasks: tuple[Tree, Tree], adapt: Callable[[Tree, Tree], Tree]
) -> jax.Array:
    """What adapted parameters lose on new examples of their tasks: the loss of the parameters they start from.

    mean over tasks of  L(adapt(theta, support), query).  It is the loss of a `Level`, or of `nestor.train`.

    Args:
        loss: ``loss(params, examples) -> scalar``.
        params: theta, any tree.
        tasks: (support, query), trees of arrays with the tasks along their first axis.
        adapt: ``adapt(params, support) -> params`` for one task, for example
            ``functools.partial(levels.maml, loss, optimizer=nestor.sgd(0.01), steps=5)``.

    Cost: of all adaptations, made side by side (`jax.vmap`).
    Source: Finn, Abbeel, Levine 2017, algorithm 2.

    >>> import functools, jax, jax.numpy as jnp, nestor
    >>> from nestor import levels
    >>> loss = lambda x, target: (x - target) ** 2 / 2
    >>> adapt = functools.partial(levels.maml, loss, optimizer=nestor.sgd(0.5), steps=1)
    >>> targets = jnp.array([-1.0, 1.0])
    >>> float(levels.meta_loss(loss, 0.0, (targets, targets), adapt))  # each goes half the way
    0.125
    """
    support, query = tasks
    return jnp.mean(jax.vmap(lambda s, q: loss(adapt(params, s), q))(support, query))


def reptile(loss: Loss, params: Tree, supports: Tree, *, optimizer: Any, steps: int) -> jax.Array:
    """A loss whose gradient points from where the tasks lead: theta minus the mean of the adapted parameters.

    mean over tasks of  |theta - stop(phi)|² / 2,  with the gradient  theta - mean(phi).  Followed by sgd(eps), it moves
    theta to (1 - eps) theta + eps mean(phi). It is the loss of a `Level`, or of `nestor.train`.

    Args:
        loss, params, optimizer, steps: as in `maml`; with one step it is plain training on all tasks.
        supports: examples, a tree of arrays with the tasks along their first axis.

    Cost: `steps` gradients a task, side by side (`jax.vmap`); a derivative takes none more.
    Source: Nichol, Achiam, Schulman 2018, algorithm 2.

    >>> import jax, jax.numpy as jnp, nestor
    >>> from nestor import levels
    >>> loss = lambda x, target: (x - target) ** 2 / 2
    >>> follow = lambda x: levels.reptile(loss, x, jnp.array([1.0, 2.0]), optimizer=nestor.sgd(0.5), steps=2)
    >>> float(jax.grad(follow)(0.0))  # each goes 3/4 of the way
    -1.125
    """
    theta, _ = trained_part("reptile", params)

    def distance(support: Tree) -> jax.Array:
        phi = _arrived(loss, params, support, optimizer, steps)
        return trees.squared_norm(trees.subtract(theta, phi)) / 2

    return jnp.mean(jax.vmap(distance)(supports))
