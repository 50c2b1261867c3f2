"""The argument `prox=` of the front functions: what a user may pass, and what it becomes."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from nestor import proximal, trees
from nestor.errors import BadArgument
from nestor.programs import structure_text
from nestor.settings import shown
from nestor.solvers._bounds import Box

Tree = Any


def pose(where: str, prox: Any, box: Box | None, x: Tree) -> Any:
    """The penalty that a solve is posed with.

    Args:
        where: the public function, for messages.
        prox: None for none, a penalty or a set, or a tree of them and None, a prefix of `x`.
        box: the bounds; without a penalty they are a set like others, and beside one that is a sum over entries
            they clip its operator.
        x: the start, as `check_start` returns it.
    """
    given = prox is not None
    if not given:
        prox = proximal.Free() if box is None else proximal.Box(*box)
    term = _checked(where, prox, x)
    if box is not None and given:
        _check_entrywise(where, term, box)
        term = proximal.Bounded(term, *box)
    dtype = trees.float_dtype(x)  # Python numbers become inputs of the solve: a sweep over them compiles once
    flat, structure = jax.tree.flatten(term)
    flat = [jnp.asarray(leaf, dtype) if type(leaf) in (float, int) else leaf for leaf in flat]
    return jax.tree.unflatten(structure, flat)


def _checked(where: str, prox: Any, x: Tree) -> Any:
    """The penalty itself, checked: it has the verbs, and they make a tree like x."""
    term = prox
    if isinstance(prox, type) or not _is_penalty(prox):
        leaves = jax.tree.leaves(prox, is_leaf=_is_leaf)
        wrong = [
            leaf for leaf in leaves if leaf is not None and (isinstance(leaf, type) or not _is_penalty(leaf))
        ]
        if wrong or not leaves:
            name = wrong[0].__name__ if wrong and isinstance(wrong[0], type) else ""
            raise BadArgument(
                where,
                "prox",
                got=shown(wrong[0] if wrong else prox),
                want="a penalty or a set, or a tree of them like x0",
                do=f"write prox=nestor.proximal.{name}(...)"
                if name in proximal.__all__
                else "pass for example prox=nestor.proximal.Lasso(0.1)",
            )
        term = proximal.Separate(prox)
        _check_prefix(where, term, x)
    made = jax.eval_shape(lambda z: (term.prox(z, jnp.ones((), trees.float_dtype(z))), term.value(z)), x)
    alike = jax.tree.structure(made[0]) == jax.tree.structure(x)
    if not alike or [a.shape for a in jax.tree.leaves(made[0])] != [a.shape for a in jax.tree.leaves(x)]:
        raise BadArgument(
            where,
            "prox",
            got=f"{type(term).__name__}, whose prox returns {jax.tree.map(jnp.shape, made[0])}",
            want=f"a tree like x0, {jax.tree.map(jnp.shape, x)}",
            do="check the shapes of its settings",
        )
    return term


def _is_penalty(thing: Any) -> bool:
    return callable(getattr(thing, "prox", None)) and callable(getattr(thing, "value", None))


def _is_leaf(thing: Any) -> bool:
    return thing is None or isinstance(thing, type) or _is_penalty(thing)


def _check_prefix(where: str, term: proximal.Separate, x: Tree) -> None:
    try:
        term.parts(x)
    except ValueError as error:
        raise BadArgument(
            where,
            "prox",
            got=f"of the structure {structure_text(term.terms, _is_leaf)}",
            want=f"a penalty, or a tree of them like x0, {structure_text(x)}",
            do="give every branch of x0 its penalty, or None",
        ) from error


def _check_entrywise(where: str, term: Any, box: Box) -> None:
    """Bounds go with penalties that are sums over entries, and leave room where these are finite."""
    whole = not isinstance(term, proximal.Separate)
    parts = [term] if whole else jax.tree.leaves(term.terms, is_leaf=_is_penalty)
    mixed = [part for part in parts if not getattr(part, "entrywise", False)]
    if mixed:
        smooth = "pass the bounds alone and a smooth penalty in fun"
        raise BadArgument(
            where,
            "bounds",
            got=f"given beside {type(mixed[0]).__name__}(...), which is no sum over entries",
            want="left out there: what is nearest in both is not what is nearest in one, clipped",
            do="pass bounds alone, and the set as a nestor.Constraint"
            if hasattr(mixed[0], "project")
            else smooth,
        )
    negative = any(
        not isinstance(side, jax.core.Tracer) and bool(jnp.any(side < 0))
        for side in jax.tree.leaves(box.upper)
    )
    if negative and any(getattr(part, "from_zero", False) for part in parts):
        raise BadArgument(
            where,
            "bounds",
            got="an upper bound below zero, beside a penalty of numbers that are not negative",
            want="at least zero there",
            do="check the sign of the bounds",
        )


def check_suits(where: str, solver: Any, term: Any) -> None:
    """A solver for composite problems may need more of the penalty than its prox: a class attribute says what.

    `needs` is the name of a verb (`project`, `lowest`, `project_kl`).
    """
    verb = getattr(solver, "needs", None)
    if verb is None or can(term, verb):
        return
    who = [
        name
        for name in proximal.__all__
        if hasattr(getattr(proximal, name), verb) and name not in ("Set", "Separate")
    ]
    raise BadArgument(
        where,
        "prox",
        got=f"{type(term).__name__}, which has no verb {verb!r}",
        want=f"what {type(solver).__name__} can work with: {', '.join(who)}",
        do="take one of these, or solver=nestor.ProximalGradient()",
    )


def can(term: Any, verb: str) -> bool:
    """Whether a penalty, or every one of its parts, has a verb."""
    if isinstance(term, proximal.Separate):
        return all(can(part, verb) for part in jax.tree.leaves(term.terms, is_leaf=_is_penalty))
    return hasattr(term, verb)


def into(term: Any, x: Tree) -> Tree:
    """The start, moved into the sets among the penalties."""
    if isinstance(term, proximal.Separate):
        parts, join = term.parts(x)
        return join([into(part, branch) for part, branch in parts])
    if isinstance(term, proximal.Bounded):
        return term.inside(x)
    return term.project(x) if hasattr(term, "project") else x
