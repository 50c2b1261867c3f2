"""Checks of the arguments of a run, and the plan and inputs that they make.

`where` is the public function that messages name; rooms above check their runs by the same functions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor import trees
from nestor.errors import BadArgument
from nestor.programs import Program, is_transformation, shape_text, signature_that_refuses, trace_function
from nestor.settings import as_optional_count
from nestor.training._batches import Batches
from nestor.training._optimizers import Optimizer
from nestor.training._run import Inputs, Plan
from nestor.training._towers import Tuned, begin_optimizer
from nestor.training._transformation import as_transformation

Tree = Any

_ARITY = "close over the rest; for a third argument, a key, pass stochastic=True"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The keyword arguments of `train`."""

    optimizer: Any
    steps: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    shuffle: bool = True
    key: Any = None
    stochastic: bool = False
    adjoint: Any = None
    clip: Any = None
    validation: Any = None
    validate_every: int | None = None
    patience: int | None = None
    stagnation: int | None = None
    callback: Any = None
    report_every: int | None = None
    progress: bool = False
    checkpoint: Any = None
    checkpoint_every: int | None = None
    raise_on_failure: bool = True


def prepare(
    where: str, loss: Any, params: Tree, data: Any, settings: Settings
) -> tuple[Plan, Inputs, Callable[[Tree], Tree]]:
    """The plan and the inputs of a run, and the function from trained arrays to the user's whole tree."""
    if not callable(loss):
        raise BadArgument(
            where,
            "loss",
            got=loss,
            want="a function (params, batch) -> scalar",
            do=f"pass the function first: nestor.{where}(loss, params, data, ...)",
        )
    trained, whole = trained_part(where, params)
    rows, source, captured_data, example = prepare_data(where, "data", data)
    size = as_optional_count(where, "batch_size", settings.batch_size)
    batches = prepare_batches(where, size, settings.shuffle, rows, source)
    steps = _steps(where, settings, batches)
    key = random_key(where, settings.key)
    batch = batches.example(captured_data, key) if rows else example
    program, captured = _loss_program(where, loss, trained, whole, batch, key, settings.stochastic)
    validation, validation_captured = _validation(where, settings, loss, trained, whole, key)
    optimizer = prepare_optimizer(where, settings.optimizer, trained)
    arrays, rest = trees.split(optimizer)
    reversible = isinstance(optimizer, Optimizer) and not any(
        isinstance(part, Tuned) for part in optimizer.schedules.values()
    )
    every = as_optional_count(where, "validate_every", settings.validate_every)
    plan = Plan(
        loss=program,
        optimizer=rest,
        rule=optimizer.rule if reversible else None,
        batches=batches,
        steps=steps,
        adjoint=None,
        clip=settings.clip is not None,
        validation=validation,
        every=every or max(batches.per_epoch if rows else 1, math.ceil(steps / 100)),
        patience=needs_validation(where, "patience", settings.patience, settings.validation),
        stagnation=as_optional_count(where, "stagnation", settings.stagnation),
        reports=_reports(where, settings, steps),
    )
    inputs = Inputs(
        captured,
        trained,
        captured_data,
        key,
        arrays,
        prepare_clip(where, settings.clip, trained),
        validation_captured,
        jnp.int32(0),
    )
    return plan, inputs, whole


def refuse_traced(traced: bool, checkpoint: Any) -> None:
    """A run inside a trace has no times at which it could be saved."""
    if traced:
        raise BadArgument(
            "train",
            "checkpoint",
            got=str(checkpoint),
            want="None where the run is traced (inside jit, grad or vmap)",
            do="save outside the traced function, or leave checkpoint away",
        )


# --- parts ---------------------------------------------------------------------------------------------


def trained_part(where: str, params: Tree) -> tuple[Tree, Callable[[Tree], Tree]]:
    """The floating-point arrays of a tree, None in place of the rest, and the way back to the whole tree.

    Args:
        where: the public function, for messages.
        params: what was passed as parameters; numbers are parameters where there are no arrays.
    """
    leaves, structure = jax.tree.flatten(params)
    is_array = [isinstance(leaf, (jax.Array, np.ndarray, np.generic)) for leaf in leaves]
    if not any(is_array):  # numbers are parameters where there is nothing else
        is_array = [isinstance(leaf, float) for leaf in leaves]
    moves = [
        yes and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        for leaf, yes in zip(leaves, is_array, strict=True)
    ]
    if not any(moves):
        raise BadArgument(
            where,
            "params",
            got=params,
            want="a tree with at least one floating-point array",
            do="pass the parameters to start from; convert integers with .astype(float)",
        )
    arrays = [trees.as_array(leaf) if yes else None for leaf, yes in zip(leaves, moves, strict=True)]
    arrays = [a if a is None else jax.lax.convert_element_type(a, a.dtype) for a in arrays]

    def whole(trained: Tree) -> Tree:
        rows = zip(structure.flatten_up_to(trained), leaves, moves, strict=True)
        return jax.tree.unflatten(structure, [new if yes else old for new, old, yes in rows])

    return jax.tree.unflatten(structure, arrays), whole


def prepare_data(where: str, name: str, data: Any) -> tuple[int, Program | None, Tree, Tree]:
    """Rows, the program of data that is a function, its arrays, and an example of a batch.

    Args:
        where, name: the public function and its argument, for messages.
        data: a tree of arrays, a function of the step, or None.
    """
    if callable(data):
        program, captured, _ = trace_function(
            where, name, data, jnp.int32(0), takes="the step number, an int32"
        )
        example = Batches(0, 0, False, program).example(captured, None)
        return 0, program, captured, example
    if data is None:
        return 0, None, None, None
    leaves = jax.tree.leaves(data)
    for leaf in leaves:
        if not isinstance(leaf, (jax.Array, np.ndarray)) or leaf.ndim == 0:
            raise BadArgument(
                where,
                name,
                got=leaf,
                want="a tree of arrays with a common leading axis, a function of the step, or None",
                do="pass arrays, for example (inputs, labels)",
            )
    rows = {leaf.shape[0] for leaf in leaves}
    if len(rows) != 1 or 0 in rows:
        raise BadArgument(
            where,
            name,
            got=shape_text(jax.tree.map(jnp.asarray, data)),
            want="a tree of arrays whose leading axes have one length, the number of examples",
            do="check the shapes; one row must be one example in every array",
        )
    arrays = jax.tree.map(trees.as_array, data)
    return rows.pop(), None, arrays, arrays


def prepare_batches(
    where: str, size: int | None, shuffle: bool, rows: int, source: Program | None
) -> Batches:
    """The batches of data with so many rows, or of data that is a function.

    Args:
        where: the public function, for messages.
        size, shuffle: as they were passed; a size is a count, or None for all rows.
        rows, source: what `prepare_data` found.
    """
    if size is not None and not rows:
        raise BadArgument(
            where,
            "batch_size",
            got=size,
            want="None where the data is a function or None",
            do="let the function return batches of the size you want",
        )
    if size is not None and size > rows:
        raise BadArgument(
            where,
            "batch_size",
            got=size,
            want=f"at most the number of examples, {rows}",
            do=f"pass {rows} or None",
        )
    return Batches(rows, size or rows, bool(shuffle), source)


def _steps(where: str, settings: Settings, batches: Batches) -> int:
    steps, epochs = (
        as_optional_count(where, "steps", settings.steps),
        as_optional_count(where, "epochs", settings.epochs),
    )
    if (steps is None) == (epochs is None):
        raise BadArgument(
            where,
            "steps",
            got="given together with epochs" if steps else "missing, and so is epochs",
            want="one of the two",
            do="pass steps=1000 or epochs=10",
        )
    if epochs is not None and not batches.rows:
        raise BadArgument(
            where, "epochs", got=epochs, want="None where the data has no rows", do="pass steps=... instead"
        )
    return steps if steps is not None else epochs * batches.per_epoch  # type: ignore[operator]


def needs_validation(where: str, name: str, value: Any, validation: Any) -> int | None:
    """A number of validations, or None; none where nothing validates."""
    value = as_optional_count(where, name, value)
    if value is not None and validation is None:
        raise BadArgument(
            where, name, got=value, want="None where nothing validates", do="pass validation=... as well"
        )
    return value


def random_key(where: str, key: Any) -> jax.Array:
    """One random key of the new kind, from a key of either kind or from None."""
    if key is None:
        return jax.random.key(0)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return key
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == jnp.uint32 and key.ndim == 1:
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise BadArgument(
        where,
        "key",
        got=key,
        want="a random key",
        do="pass jax.random.key(0), one key and not a batch of them",
    )


def _loss_program(
    where: str, loss: Any, trained: Tree, whole: Any, batch: Tree, key: jax.Array, stochastic: bool
) -> tuple[Program, list[Any]]:
    def called(trained: Tree, batch: Tree, key: jax.Array) -> Any:
        extra = (key,) if stochastic else ()
        return loss(whole(trained), batch, *extra)

    called.__name__ = getattr(loss, "__name__", "loss")
    takes = "(params, batch, key)" if stochastic else "(params, batch)"
    check_arity(where, "loss", loss, 3 if stochastic else 2, takes)
    program, captured, shape = trace_function(where, "loss", called, trained, batch, key, takes=takes)
    check_scalar(where, "loss", shape)
    return program, captured


def check_arity(where: str, name: str, loss: Any, count: int, takes: str, do: str = _ARITY) -> None:
    """Whether a function can be called with that many arguments, which `takes` says in words."""
    signature = signature_that_refuses(loss, count)
    if signature is not None:
        raise BadArgument(
            where,
            name,
            got=f"a function with signature {getattr(loss, '__name__', 'loss')}{signature}",
            want=f"callable with {takes}",
            do=do,
        )


def check_scalar(where: str, name: str, shape: Any, *, floating: bool = True) -> None:
    """Whether a function returns one number, a floating-point one if it must be."""
    one = isinstance(shape, jax.ShapeDtypeStruct) and shape.shape == ()
    if not (one and (not floating or jnp.issubdtype(shape.dtype, jnp.floating))):
        raise BadArgument(
            where,
            name,
            got=f"a function that returns {shape_text(shape)}",
            want=f"a function that returns a scalar, one {'floating-point ' if floating else ''}number",
            do="reduce it, for example with jnp.mean(...)",
        )


def _validation(
    where: str, settings: Settings, loss: Any, trained: Tree, whole: Any, key: jax.Array
) -> tuple[Program | None, list[Any]]:
    validation = settings.validation
    if validation is None:
        return None, []
    if callable(validation):
        check_arity(where, "validation", validation, 1, "the params alone", "close over the rest")
        program, captured, shape = trace_function(
            where,
            "validation",
            lambda trained: validation(whole(trained)),
            trained,
            takes="one argument, the params",
        )
    else:
        _, _, arrays, _ = prepare_data(where, "validation", validation)
        extra = (key,) if settings.stochastic else ()
        program, captured, shape = trace_function(
            where, "validation", lambda trained: loss(whole(trained), arrays, *extra), trained
        )
    check_scalar(where, "validation", shape)
    return program, captured


def prepare_optimizer(where: str, optimizer: Any, params: Tree) -> Any:
    """An optimizer with `init`, `values`, `update` and `schedules` for these parameters, from what was passed.

    Args:
        where: the public function, for messages.
        optimizer: one of Nestor's, whose groups must fit the parameters, or an optax transformation.
        params: the trained arrays.
    """
    if is_transformation(optimizer):
        return as_transformation(where, optimizer, params)
    if hasattr(optimizer, "update") and hasattr(optimizer, "schedules"):
        _check_groups(where, optimizer, params)
        return optimizer
    raise BadArgument(
        where,
        "optimizer",
        got=optimizer,
        want="nestor.sgd, adagrad, rmsprop, adam, adamw or leapfrog, or an optax transformation",
        do="call it with its rate: optimizer=nestor.sgd(0.1, momentum=0.9)",
    )


def _check_groups(where: str, optimizer: Any, params: Tree) -> None:
    values = {name: part for name, part in optimizer.schedules.items() if not isinstance(part, Tuned)}
    for name, part in values.items():
        shape = jax.eval_shape(part, jnp.int32(0))
        try:
            jax.tree.map(lambda _, group: group, shape, params)
        except (ValueError, TypeError) as error:
            raise BadArgument(
                where,
                f"optimizer.{name}",
                got=f"groups {jax.tree.structure(shape)}",
                want="a number, a schedule, or a tree that is a prefix of params",
                do="use the same keys as in params, down to the level where groups begin",
            ) from error
    jax.eval_shape(lambda p: begin_optimizer(optimizer, p), params)


def prepare_clip(where: str, clip: Any, params: Tree) -> jax.Array:
    """The largest norm of a gradient as an array of the parameters' dtype; infinite for None."""
    dtype = trees.float_dtype(params)
    if clip is None:
        return jnp.full((), jnp.inf, dtype)
    array = isinstance(clip, (jax.Array, np.ndarray)) and clip.ndim == 0
    if not (array or (isinstance(clip, (int, float, np.number)) and clip > 0)):
        raise BadArgument(where, "clip", got=clip, want="a number > 0, or None", do="write clip=1.0")
    return jnp.asarray(clip).astype(dtype)


def _reports(where: str, settings: Settings, steps: int) -> int:
    every = as_optional_count(where, "report_every", settings.report_every)
    check_callback(where, settings.callback)
    if settings.callback is None and not settings.progress:
        return 0
    return every or max(1, steps // 100)


def check_callback(where: str, callback: Any) -> None:
    """Whether a callback can be called, if there is one."""
    if callback is not None and not callable(callback):
        raise BadArgument(
            where, "callback", got=callback, want="a function of one report", do="pass a function"
        )
