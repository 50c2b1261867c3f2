"""What a level may hold, field by field."""

from __future__ import annotations

from typing import Any, NoReturn

import jax.numpy as jnp

from nestor.adjoints import Implicit, Reversible
from nestor.errors import BadArgument
from nestor.levels._level import Level
from nestor.levels._plan import GraphPlan, LevelPlan
from nestor.settings import check_setting, count, optional


def check_fields(where: str, level: Level, top: bool) -> None:
    """What can be said of the fields by themselves; `top` of the highest level."""
    for field in ("batch_size", "steps", "accumulate"):
        setting = optional(count(10)) if field == "batch_size" else count(10)
        check_setting(where, field, getattr(level, field), setting)
    if top and level.steps != 1:
        raise BadArgument(
            where,
            "steps",
            got=level.steps,
            want="1 for the highest level: nothing above it waits for it",
            do="pass the number of its steps to run(steps=...)",
        )
    _check_roles(where, level, top)
    restart = level.restart
    if not (restart is None or isinstance(restart, bool) or (type(restart) is int and restart >= 1)):
        raise BadArgument(
            where, "restart", got=restart, want="True, False, or k >= 1", do="write restart=True"
        )
    if level.start is not None and restart is False:
        raise BadArgument(
            where, "restart", got=False, want="True or k >= 1 where there is a start", do="leave it away"
        )
    if level.precision is not None:
        try:
            good = jnp.issubdtype(jnp.dtype(level.precision), jnp.floating)
        except TypeError:
            good = False
        if not good:
            raise BadArgument(
                where,
                "precision",
                got=level.precision,
                want="a floating-point dtype",
                do='write precision="bfloat16"',
            )
    estimator = level.gradient
    if estimator is not None and (isinstance(estimator, type) or not hasattr(estimator, "estimate")):
        raise BadArgument(
            where,
            "gradient",
            got=f"the class {estimator.__name__}" if isinstance(estimator, type) else estimator,
            want="None, nestor.levels.Smoothed(...) or nestor.levels.Reinforce(...)",
            do="leave it away for a loss that has a derivative",
        )


def _check_roles(where: str, level: Level, top: bool) -> None:
    """Whether a field would be ignored: of the highest level, or of one with a closed form."""
    if top:
        for field, said in (
            ("answer", level.answer),
            ("start", level.start),
            ("restart", level.restart or None),
        ):
            if said is not None:
                raise BadArgument(
                    where,
                    field,
                    got=said,
                    want="left away for the highest level: it goes from its params, move after move",
                    do=f"leave {field} away" + (" and pass an optimizer" if field == "answer" else ""),
                )
    elif level.answer is not None:
        for field in ("optimizer", "start", "project", "gradient", "clip", "adjoint"):
            said = getattr(level, field)
            if said is not None:
                raise BadArgument(
                    where,
                    field,
                    got=said,
                    want="left away where the answer has a closed form: nothing moves there",
                    do=f"leave {field} away, or answer",
                )


def check_moves(plan: GraphPlan) -> None:
    """Whether every level has something that moves it, where no method does."""
    for level in plan.levels:
        if level.answer is None and level.optimizer is None:
            refuse_optimizer(f'level "{level.name}"', "missing")


def refuse_optimizer(where: str, got: Any) -> NoReturn:
    """Say what an optimizer is."""
    raise BadArgument(
        where,
        "optimizer",
        got=got,
        want="how its parameters move",
        do="pass nestor.sgd(0.1), nestor.adam(1e-3), optax.adam(1e-3) ..., or answer=... in closed form",
    )


def check_adjoint_fits(where: str, plan: LevelPlan, *, top: bool) -> None:
    """Whether the level's adjoint fits how the level moves."""
    if top or plan.optimizer is None:
        return
    if isinstance(plan.adjoint, Implicit) and plan.rule is not None and plan.rule.shrink:
        raise BadArgument(
            where,
            "adjoint",
            got="Implicit() for an optimizer with decoupled decay, which does not rest where the gradient is zero",
            want="another adjoint",
            do="put the decay into the loss and use nestor.adam, or use nestor.Unroll() or nestor.SAMA()",
        )
    if not isinstance(plan.adjoint, Reversible):
        return
    if plan.rule is None or plan.needs or plan.project is not None:
        why = (
            "an optimizer that cannot be run backwards"
            if plan.rule is None
            else "a level that waits for levels below"
            if plan.needs
            else "a level with a projection"
        )
        raise BadArgument(
            where,
            "adjoint",
            got=f"Reversible() for {why}",
            want="another adjoint",
            do="use nestor.Checkpoint(), nestor.Unroll() or nestor.Implicit()",
        )
