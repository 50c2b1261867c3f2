"""From what the user says of the levels to a plan and its arrays: losses traced, dependencies found, all checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints import Implicit, Reversible, Unroll, check_adjoint
from nestor.errors import BadArgument
from nestor.levels._checks import check_adjoint_fits, check_fields, refuse_optimizer
from nestor.levels._level import Level
from nestor.levels._plan import GraphPlan, LevelInputs, LevelPlan
from nestor.levels._reading import Reader, check_function, traced
from nestor.programs import Program, is_transformation, signature_that_refuses, trace_function
from nestor.training import (
    Batches,
    check_scalar,
    prepare_batches,
    prepare_clip,
    prepare_data,
    prepare_optimizer,
    trained_part,
    with_room,
)

Tree = Any
WHERE = "Graph"
FEW_STEPS = 10  # up to which `adjoint=None` differentiates the steps
_RUNS = 4  # in which a run backwards is looked at for the bits that it loses: a schedule may still change


class Prepared(NamedTuple):
    """A graph as data.

    Attributes:
        plan: the hashable part.
        inputs: the arrays.
        wholes: by level, from its trained arrays to the user's whole tree.
        reads: by level, the levels whose parameters its loss reads, itself among them.
        feels: by level, the levels above that its answer depends on.
    """

    plan: GraphPlan
    inputs: tuple[LevelInputs, ...]
    wholes: tuple[Callable[[Tree], Tree], ...]
    reads: tuple[frozenset[int], ...]
    feels: tuple[frozenset[int], ...]


class _Part(NamedTuple):
    """One level while it is prepared."""

    name: str
    level: Level
    trained: Tree
    whole: Callable[[Tree], Tree]


def prepare(levels: Any) -> Prepared:
    """Check, trace and connect.

    Raises:
        BadArgument: something cannot be used; says which level and which field.
    """
    parts = _parts(levels)
    trained = {part.name: part.trained for part in parts}
    seen = Reader({part.name: part.whole for part in parts})
    made = [_level(i, part, trained, seen, parts) for i, part in enumerate(parts)]
    reads = tuple(m.reads for m in made)
    needs, feels = _connected(reads, tuple(m.sets for m in made))
    _check_connections(parts, reads, needs, feels)
    plans = tuple(m.plan._replace(needs=needs[i]) for i, m in enumerate(made))
    for i, (part, plan) in enumerate(zip(parts, plans, strict=True)):
        check_adjoint_fits(_of(part.name), plan, top=i == len(parts) - 1)
    return Prepared(
        GraphPlan(plans),
        tuple(m.inputs for m in made),
        tuple(part.whole for part in parts),
        reads,
        feels,
    )


# --- one level -----------------------------------------------------------------------------------------


class _Made(NamedTuple):
    plan: LevelPlan
    inputs: LevelInputs
    reads: frozenset[int]  # by its loss
    sets: frozenset[int]  # by its start, its optimizer, its closed form


def _parts(levels: Any) -> list[_Part]:
    if not isinstance(levels, Mapping) or not levels:
        raise BadArgument(
            WHERE,
            "levels",
            got=levels,
            want="a dictionary from names to levels, lowest first",
            do='write nestor.Graph({"weights": nestor.Level(...), "strengths": nestor.Level(...)})',
        )
    parts = []
    for name, level in levels.items():
        if not isinstance(name, str) or not isinstance(level, Level):
            raise BadArgument(
                WHERE,
                f"levels[{name!r}]",
                got=level if isinstance(name, str) else f"named by {name!r}",
                want="a nestor.Level under a name that is a string",
                do="write nestor.Level(loss, params, optimizer, data=...)",
            )
        trained, whole = trained_part(_of(name), level.params)
        parts.append(_Part(name, level, trained, whole))
    return parts


def _of(name: str) -> str:
    return f'level "{name}"'


def _level(
    i: int,
    part: _Part,
    trained: dict[str, Tree],
    seen: Reader,
    parts: list[_Part],
) -> _Made:
    name, level = part.name, part.level
    where, top = _of(name), i == len(parts) - 1
    names = [p.name for p in parts]
    check_fields(where, level, top)
    rows, source, data, example = prepare_data(where, "data", level.data)
    batches = _batches(where, level, rows, source)
    batch = batches.example(data, jax.random.key(0)) if rows else example
    check_function(where, "loss", level.loss, 3 if level.stochastic else 2, level.stochastic)
    args = (trained, batch, jax.random.key(0))
    plain = _loss(level, seen)
    program, captured = traced(where, "loss", plain, seen, *args)
    check_scalar(where, "loss", program.out_shape)
    read = _read_by(program, names, trained)
    if level.accumulate > 1:  # the loop over the parts hides what is read
        program, captured = traced(where, "loss", _in_parts(plain, level.accumulate), seen, *args)

    above = lambda field, function, *more: _reading_above(  # noqa: E731
        where, field, function, i, names, trained, seen, *more
    )
    arrays, rest, rule, chooses, chosen_by = _optimizer(where, level, part, above)
    start, start_captured, started_by = _of_params(where, "start", level.start, part, above)
    answer, answer_captured, answered_by = _of_params(where, "answer", level.answer, part, above)
    project, project_captured = _projection(where, level, part)
    adjoint = _adjoint(where, level)
    if isinstance(adjoint, Reversible) and rule is not None:
        made = arrays if chooses is None else chooses(arrays, trained)
        adjoint = with_room(adjoint, rule, trees.join(made, rest), level.steps, again=_RUNS)
    restart = level.restart if level.restart is not None else level.start is not None
    plan = LevelPlan(
        name=name,
        loss=program,
        optimizer=rest,
        chooses=chooses,
        rule=rule,
        batches=batches,
        parts=level.accumulate,
        steps=level.steps,
        adjoint=adjoint,
        estimator=level.gradient,
        clip=level.clip is not None,
        project=project,
        start=start,
        restart=int(restart),
        answer=answer,
        needs=(),
    )
    inputs = LevelInputs(
        initial=part.trained,
        captured=captured,
        data=data,
        key=jax.random.key(i),
        optimizer=arrays,
        clip=prepare_clip(where, level.clip, part.trained),
        project=project_captured,
        start=start_captured,
        answer=answer_captured,
    )
    return _Made(plan, inputs, read, chosen_by | started_by | answered_by)


def _loss(level: Level, seen: Reader) -> Callable[..., Any]:
    def plain(params: dict[str, Tree], batch: Tree, key: jax.Array) -> Any:
        extra = (key,) if level.stochastic else ()
        if level.precision is None:
            return level.loss(seen(params), batch, *extra)
        low = jnp.dtype(level.precision)
        value = level.loss(seen(_cast(params, low)), _cast(batch, low), *extra)
        return jnp.asarray(value).astype(trees.float_dtype(params))

    return plain


def _in_parts(plain: Callable[..., Any], m: int) -> Callable[..., Any]:
    """The mean of a loss over m parts of its batch, one after the other."""

    def dealt(leaf: jax.Array) -> jax.Array:
        """(m, n/m, ...): part k has the rows k, k + m, ...; of a batch on many devices each part is, too."""
        return jnp.moveaxis(leaf.reshape(leaf.shape[0] // m, m, *leaf.shape[1:]), 1, 0)

    def in_parts(params: dict[str, Tree], batch: Tree, key: jax.Array) -> Any:
        cut = jax.tree.map(dealt, batch)

        @jax.checkpoint
        def part(params: dict[str, Tree], rows: Tree, number: jax.Array) -> Any:
            return plain(params, rows, jax.random.fold_in(key, number))

        def add(total: jax.Array, rest: Any) -> tuple[jax.Array, None]:
            return total + part(params, *rest) / m, None

        zero = jnp.zeros(
            (), jax.eval_shape(part, params, jax.tree.map(lambda c: c[0], cut), jnp.int32(0)).dtype
        )
        return jax.lax.scan(add, zero, (cut, jnp.arange(m, dtype=jnp.int32)))[0]

    return in_parts


def _cast(tree: Tree, dtype: Any) -> Tree:
    def cast(leaf: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf).astype(dtype) if floating else leaf

    return jax.tree.map(cast, tree)


def _read_by(program: Program, names: list[str], trained: dict[str, Tree], skip: int = 0) -> frozenset[int]:
    """The levels whose parameters a program reads; they are its first argument but `skip`."""
    used = iter(program.reads()[skip:])
    read = {name: any([next(used) for _ in jax.tree.leaves(trained[name])]) for name in sorted(trained)}
    return frozenset(i for i, name in enumerate(names) if read[name])


def _reading_above(
    where: str,
    field: str,
    function: Callable[..., Any],
    i: int,
    names: list[str],
    trained: dict[str, Tree],
    seen: Reader,
    *more: Any,
) -> tuple[Program, list[Any], frozenset[int]]:
    """The program of a function of the parameters above a level, and of what more is passed."""
    call = lambda params, *rest: function(seen(params), *rest)  # noqa: E731
    program, captured = traced(where, field, call, seen, trained, *more)
    read = _read_by(program, names, trained)
    low = [names[k] for k in sorted(read) if k <= i]
    if low:
        raise BadArgument(
            where,
            field,
            got=f"a function that reads {', '.join(map(repr, low))}",
            want="a function of the levels above this one alone: anything else would be a cycle",
            do="put the level that it reads after this one, or do without it",
        )
    return program, captured, read


# --- fields --------------------------------------------------------------------------------------------


def _optimizer(where: str, level: Level, part: _Part, above: Any) -> Any:
    """Arrays, static rest, rule, the program that chooses the arrays, and the levels it reads."""
    optimizer = level.optimizer
    if optimizer is None:  # a closed form, or a method that moves the levels itself
        return [], None, None, None, frozenset()
    if isinstance(optimizer, (str, float, int)):
        refuse_optimizer(where, optimizer)
    if (getattr(optimizer, "__module__", None) or "").split(".")[0] in ("nestor", "optax") and not hasattr(
        optimizer, "update"
    ):
        raise BadArgument(
            where,
            "optimizer",
            got=f"the function {getattr(optimizer, '__name__', optimizer)}",
            want="an optimizer, or a function from p to one",
            do="call it with its rate: nestor.sgd(0.1), optax.adam(1e-3)",
        )
    by_levels = callable(optimizer) and not is_transformation(optimizer) and not hasattr(optimizer, "update")
    if not by_levels:
        made = prepare_optimizer(where, optimizer, part.trained)
        arrays, rest = trees.split(made)
        return arrays, rest, _rule(made), None, frozenset()
    kept: list[Any] = []

    def arrays_of(p: dict[str, Tree]) -> list[Any]:
        made = prepare_optimizer(where, optimizer(p), part.trained)
        arrays, rest = trees.split(made)
        kept[:] = [rest, _rule(made)]
        return [jnp.asarray(a) for a in arrays]

    check_function(where, "optimizer", optimizer, 1)
    program, captured, read = above("optimizer", arrays_of)
    return captured, kept[0], kept[1], program, read


def _rule(optimizer: Any) -> Any:
    fits = hasattr(optimizer, "rule") and not any(
        hasattr(part, "by") for part in optimizer.schedules.values()
    )
    return optimizer.rule if fits else None


def _of_params(where: str, field: str, function: Any, part: _Part, above: Any) -> Any:
    """The program of a function of the levels above that returns parameters of this one."""
    if function is None:
        return None, [], frozenset()
    if field != "start":
        check_function(where, field, function, 1)
        return above(field, lambda p: _as_params(where, field, function(p), part))
    with_key = signature_that_refuses(function, 1) is not None and signature_that_refuses(function, 2) is None
    if not with_key:
        check_function(where, field, function, 1)

    def start(p: dict[str, Tree], key: jax.Array) -> Tree:
        return _as_params(where, field, function(p, key) if with_key else function(p), part)

    return above(field, start, jax.random.key(0))


def _as_params(where: str, field: str, tree: Tree, part: _Part) -> Tree:
    """A tree of the user's as trained arrays of the level."""
    want = jax.tree.structure(part.level.params)
    if jax.tree.structure(tree) != want:
        raise BadArgument(
            where,
            field,
            got=f"a function that returns {jax.tree.structure(tree)}",
            want=f"a function that returns a tree like params, {want}",
            do="return the same structure as params",
        )
    leaves = want.flatten_up_to(tree)
    trained, structure = jax.tree.flatten(part.trained, is_leaf=lambda leaf: leaf is None)
    made = []
    for new, old in zip(leaves, trained, strict=True):
        if old is None:
            made.append(None)
            continue
        new = jnp.asarray(new)
        if new.shape != old.shape:
            raise BadArgument(
                where,
                field,
                got=f"a function that returns shape {new.shape}",
                want=f"a function that returns params' shape {old.shape} there",
                do="return arrays of the same shapes as params",
            )
        made.append(new.astype(old.dtype))
    return jax.tree.unflatten(structure, made)


def _projection(where: str, level: Level, part: _Part) -> tuple[Program | None, list[Any]]:
    if level.project is None:
        return None, []
    project = level.project
    check_function(where, "project", project, 1)
    return trace_function(
        where,
        "project",
        lambda trained: _as_params(where, "project", project(part.whole(trained)), part),
        part.trained,
    )[:2]


def _adjoint(where: str, level: Level) -> Any:
    adjoint = level.adjoint
    if adjoint is None:
        return Unroll() if level.steps <= FEW_STEPS else Implicit()
    check_adjoint(where, adjoint)
    return adjoint


def _batches(where: str, level: Level, rows: int, source: Program | None) -> Batches:
    batches = prepare_batches(where, level.batch_size, level.shuffle, rows, source)
    if level.accumulate > 1 and (not rows or batches.size % level.accumulate):
        raise BadArgument(
            where,
            "accumulate",
            got=level.accumulate,
            want=f"a divisor of the batch size, {batches.size}" if rows else "1 where the data has no rows",
            do="choose a batch_size that it divides",
        )
    return batches


# --- who depends on whom -------------------------------------------------------------------------------


def _connected(
    reads: tuple[frozenset[int], ...], sets: tuple[frozenset[int], ...]
) -> tuple[list[tuple[int, ...]], tuple[frozenset[int], ...]]:
    """For each level the levels below whose answers it needs (highest first), and those above it feels."""
    needs: list[tuple[int, ...]] = []
    feels: list[frozenset[int]] = []
    for i, read in enumerate(reads):
        wanted = {j for j in read if j < i}
        while True:
            more = {k for j in wanted for k in feels[j] if k < i} - wanted
            if not more:
                break
            wanted |= more
        needs.append(tuple(sorted(wanted, reverse=True)))
        through = {k for j in wanted for k in feels[j]}
        feels.append(frozenset(k for k in read | sets[i] | through if k > i))
    return needs, tuple(feels)


def _check_connections(
    parts: list[_Part],
    reads: tuple[frozenset[int], ...],
    needs: list[tuple[int, ...]],
    feels: tuple[frozenset[int], ...],
) -> None:
    order = ", ".join(part.name for part in parts)
    for i, part in enumerate(parts):
        if part.level.answer is None and i not in reads[i] and not any(i in feels[j] for j in needs[i]):
            raise BadArgument(
                _of(part.name),
                "loss",
                got="a loss that its own parameters do not reach",
                want=f"a loss that reads p[{part.name!r}], or the answer of a level below that does",
                do=f"check the loss, and that the levels are in order, lowest first ({order})",
            )
        if i < len(parts) - 1 and not any(i in needs[k] for k in range(i + 1, len(parts))):
            raise BadArgument(
                _of(part.name),
                "loss",
                got="a level whose answer no level above it reads",
                want=f"a level above whose loss reads p[{part.name!r}]",
                do=f"leave this level out, or check the order, lowest first ({order})",
            )
