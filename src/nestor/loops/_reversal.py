"""Runs made in integers, which can be made backwards bit for bit.

Every turn of such a run is a bijection of integers (see `_words`), so it can be undone turn by turn, given that
the gradient comes out the same again; and if it does not, the start does not come back, which is checked.
Source: Maclaurin, Duvenaud, Adams 2015, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.loops._bits import Spill, Width
from nestor.loops._rules import Rule, X
from nestor.loops._words import Tape, Turn, Vectors, Words, apart, same

Tree = Any


class Reversal(NamedTuple):
    """What a run must say of itself so that it can be made in integers and unmade.

    Attributes:
        rule: how a step moves.
        begin: inputs -> (position, slots), trees of floats.
        gradient: (inputs, t, position) -> (loss, gradient).
        table: inputs -> the coefficients of all steps: by name a tree that is a prefix of the position's, each
            leaf with a leading axis of length `bound`.
        watch: inputs -> (watch, recorded) at the start.
        observe: (inputs, t, loss, gradient, position after the step, whether everything is in range, watch) ->
            (watch, recorded).
        running: watch -> whether another turn is wanted.
        carried: (t, position, slots, watch, recorded) -> the carry of the loop.
        parts: carry -> (position, slots, best position, turns made until that one): what is differentiable.
        losses: what was recorded, stacked -> the losses, shape (bound,), which are differentiable too.
    """

    rule: Rule
    begin: Callable[[Tree], tuple[Tree, dict[str, Tree]]]
    gradient: Callable[[Tree, jax.Array, Tree], tuple[jax.Array, Tree]]
    table: Callable[[Tree], dict[str, Tree]]
    watch: Callable[[Tree], tuple[Tree, Tree]]
    observe: Callable[..., tuple[Tree, Tree]]
    running: Callable[[Tree], jax.Array]
    carried: Callable[..., Tree]
    parts: Callable[[Tree], tuple[Tree, dict[str, Tree], Tree, jax.Array]]
    losses: Callable[[Tree], jax.Array]


class Residue(NamedTuple):
    """What a reversed run keeps of its forward run: integers only.

    Attributes:
        tapes: one a group, at the end; of a run with snapshots only the words count.
        snapshots: the words at the seams, with a leading axis; () without snapshots.
        made: the number of turns made.
        fits: whether the stack was large enough, and everything in range.
    """

    tapes: list[Tape]
    snapshots: Tree
    made: jax.Array
    fits: jax.Array


class Course(NamedTuple):
    """What the inputs of a run say of it before its first turn.

    Attributes:
        inputs: the inputs.
        position, slots: the start, as trees.
        groups: the groups of parameters.
        columns: for each group the coefficients of all turns.
        plans: for each group what its multiplications do, in all turns.
    """

    inputs: Tree
    position: Tree
    slots: dict[str, Tree]
    groups: Groups
    columns: list[dict[str, jax.Array]]
    plans: list[dict[str, Spill]]

    def starts(self) -> list[Vectors]:
        """The start of each group."""
        trees_of = {X: self.position, **self.slots}
        vectors = [self.groups.vectors(tree) for tree in trees_of.values()]
        return [dict(zip(trees_of, row, strict=True)) for row in zip(*vectors, strict=True)]


class Machine:
    """One reversal in integers of one width: forward, backward, and the derivative on the way back.

    Args:
        reversal: the run.
        width: of the integers.
        bound: the largest number of turns.
        rows: bytes a word that the stack has room for (of one segment, with snapshots).
        snapshots: how many seams keep their words; None keeps the stack of the whole run instead.
    """

    def __init__(self, reversal: Reversal, width: Width, bound: int, rows: int, snapshots: int | None):
        self.reversal, self.bound, self.rows = reversal, bound, rows
        self.segments = 1 if snapshots is None else min(snapshots, bound)
        self.length = -(-bound // self.segments)
        self.hybrid = snapshots is not None
        self.words = Words(reversal.rule, width)

    # --- forward -----------------------------------------------------------------------------------

    def forward(self, inputs: Tree) -> tuple[Tree, Tree, Residue]:
        """The last carry, what was recorded, and what the way back needs."""
        reversal, course = self.reversal, self._course(inputs)
        watch, seen = reversal.watch(inputs)
        recorded = trees.vectors_like(seen, self.bound)
        in_range = [
            self.words.in_range(c, start) for c, start in zip(course.columns, course.starts(), strict=True)
        ]

        def segment(state: Any, number: jax.Array) -> tuple[Any, Tree]:
            t, tapes, watch, seen, recorded, good = state
            words = [tape.words for tape in tapes] if self.hybrid else ()
            if self.hybrid:
                tapes = [tape.blank() for tape in tapes]
            first = number * self.length
            until = jnp.minimum((number + 1) * self.length, self.bound)

            def more(state: Any) -> jax.Array:
                return (state[0] < until) & reversal.running(state[2])

            def body(state: Any) -> Any:
                t, tapes, watch, _, recorded, good = state
                loss, grads, moved, fits = self._advance(course, tapes, t, first)
                good = good & fits
                tapes = [new.unless(good, old) for new, old in zip(moved, tapes, strict=True)]
                place = self._decoded(course, tapes, t, X, after=good)
                watch, seen = reversal.observe(inputs, t, loss, grads, place, good, watch)
                recorded = jax.tree.map(lambda rows, row: rows.at[t].set(row), recorded, seen)
                return t + 1, tapes, watch, seen, recorded, good

            state = jax.lax.while_loop(more, body, (t, tapes, watch, seen, recorded, good))
            return state, words

        good = jnp.all(jnp.stack(in_range))
        start = (jnp.int32(0), self._encoded(course), watch, seen, recorded, good)
        numbers = jnp.arange(self.segments, dtype=jnp.int32)
        if self.hybrid:
            state, snapshots = jax.lax.scan(segment, start, numbers)
        else:
            state, snapshots = segment(start, numbers[0])
        t, tapes, watch, seen, recorded, good = state
        last = jnp.maximum(t - 1, 0)
        position = self._decoded(course, tapes, last, X, after=good)
        slots = {slot: self._decoded(course, tapes, last, slot, after=good) for slot in reversal.rule.slots}
        carry = reversal.carried(t, position, slots, watch, seen)
        room = [self._enough_rows(plan) for plan in course.plans]
        return carry, recorded, Residue(tapes, snapshots, t, good & jnp.all(jnp.stack(room)))

    # --- backward ----------------------------------------------------------------------------------

    def backward(
        self, perturbed: list[Any], merge: Callable[[list[Any]], Tree], outcome: Tree, cotangent: Tree
    ) -> tuple[list[Any], jax.Array]:
        """The cotangent of the perturbed inputs, and whether the start came back bit for bit."""
        reversal, course = self.reversal, self._course(merge(perturbed))
        groups = course.groups
        carry, _, residue = outcome
        best_t = reversal.parts(carry)[3]
        ct_position, ct_slots, ct_best, _ = reversal.parts(cotangent[0])
        ct_loss = reversal.losses(cotangent[1])
        best = groups.vectors(ct_best) if jax.tree.leaves(ct_best) else None

        def with_best(slopes: list[Vectors], t: jax.Array | int) -> list[Vectors]:
            if best is None:
                return slopes
            return _onto_x(slopes, [jnp.where(best_t == t, b, jnp.zeros_like(b)) for b in best])

        def turn_back(first: jax.Array, state: Any) -> Any:
            t, tapes, slopes, total, rows = state
            slopes, t = with_best(slopes, t), t - 1
            turns = self._turns(course, t, first)
            tapes = [self.words.undrift(*each) for each in zip(tapes, turns, groups.dtypes, strict=True)]
            place = apart(self._decoded(course, tapes, t, X))
            (_, grads), pull = jax.vjp(lambda p, x: reversal.gradient(merge(p), t, x), perturbed, place)
            vectors = groups.vectors(apart(grads))
            tapes = [self.words.unkick(*each) for each in zip(tapes, turns, vectors, strict=True)]
            pulled = [self.words.pull(*each) for each in zip(tapes, turns, vectors, slopes, strict=True)]
            ct_c, ct_grads, slopes = map(list, zip(*pulled, strict=True))
            ct_p, ct_place = pull((ct_loss[t], groups.tree(ct_grads)))
            rows = [
                {name: column.at[t].set(ct[name].astype(column.dtype)) for name, column in r.items()}
                for r, ct in zip(rows, ct_c, strict=True)
            ]
            total = jax.tree.map(jnp.add, total, ct_p)
            return t, tapes, _onto_x(slopes, groups.vectors(ct_place)), total, rows

        slopes = course._replace(position=ct_position, slots=ct_slots).starts()
        state = (
            residue.made,
            residue.tapes,
            slopes,
            trees.zeros_like(perturbed),
            trees.zeros_like(course.columns),
        )
        if self.hybrid:
            state, good = self._back_by_segments(course, residue, state, turn_back)
        else:
            back = lambda state: turn_back(jnp.int32(0), state)  # noqa: E731
            state = jax.lax.while_loop(lambda state: state[0] > 0, back, state)
            good = same([tape.words for tape in self._encoded(course)], state[1])
        _, _, slopes, total, rows = state
        slopes = with_best(slopes, 0)
        ct_begin = (
            groups.tree([s[X] for s in slopes]),
            {slot: groups.tree([s[slot] for s in slopes]) for slot in ct_slots},
        )
        for function, ct in ((reversal.begin, ct_begin), (groups.columns, rows)):
            _, pull = jax.vjp(lambda p, f=function: f(merge(p)), perturbed)
            total = jax.tree.map(jnp.add, total, pull(ct)[0])
        return total, good & residue.fits

    def _back_by_segments(
        self, course: Course, residue: Residue, state: Any, turn_back: Callable[..., Any]
    ) -> tuple[Any, jax.Array]:
        """From the last segment to the first: make it again from its snapshot, with its stack, and unmake it."""

        def segment(carry: tuple[Any, jax.Array], numbered: tuple[jax.Array, Tree]) -> tuple[Any, None]:
            (_, _, slopes, total, rows), good = carry
            number, words = numbered
            first = number * self.length
            until = jnp.minimum(first + self.length, residue.made)
            fresh = [t._replace(words=w).blank() for w, t in zip(words, residue.tapes, strict=True)]

            def body(pair: tuple[jax.Array, list[Tape]]) -> tuple[jax.Array, list[Tape]]:
                t, tapes = pair
                return t + 1, self._advance(course, tapes, t, first)[2]

            _, tapes = jax.lax.while_loop(lambda pair: pair[0] < until, body, (first, fresh))
            state = (jnp.maximum(until, first), tapes, slopes, total, rows)
            state = jax.lax.while_loop(lambda s: s[0] > first, lambda s: turn_back(first, s), state)
            return (state, good & same(words, state[1])), None

        numbers = jnp.arange(self.segments, dtype=jnp.int32)
        carry = (state, jnp.ones((), bool))
        # A segment that was never reached has the words of the end in its snapshot and nothing to unmake.
        (state, good), _ = jax.lax.scan(segment, carry, (numbers, residue.snapshots), reverse=True)
        return state, good

    # --- all groups --------------------------------------------------------------------------------

    def _course(self, inputs: Tree) -> Course:
        position, slots = self.reversal.begin(inputs)
        groups = Groups(position, self.reversal.table, inputs)
        columns = groups.columns(inputs)
        return Course(inputs, position, slots, groups, columns, [self.words.plan(c) for c in columns])

    def _turns(self, course: Course, t: jax.Array, first: jax.Array) -> list[Turn]:
        """Turn t, of a segment that begins with turn `first`."""
        pairs = zip(course.columns, course.plans, strict=True)
        return [self.words.turn(columns, plan, t, first) for columns, plan in pairs]

    def _advance(
        self, course: Course, tapes: list[Tape], t: jax.Array, first: jax.Array
    ) -> tuple[jax.Array, Tree, list[Tape], jax.Array]:
        """Turn t: its loss and gradient, the tapes after it, and whether everything was in range."""
        place = apart(self._decoded(course, tapes, t, X))
        loss, grads = apart(self.reversal.gradient(course.inputs, t, place))
        rows = zip(tapes, self._turns(course, t, first), course.groups.vectors(grads), strict=True)
        moved = [self.words.advance(*row) for row in rows]
        return loss, grads, [tape for tape, _ in moved], jnp.all(jnp.stack([fit for _, fit in moved]))

    def _decoded(
        self, course: Course, tapes: list[Tape], t: jax.Array, slot: str, after: Any = False
    ) -> Tree:
        """The tree of floats that the words of a slot stand for before (or after) turn t."""
        vectors = []
        for tape, plan, dtype in zip(tapes, course.plans, course.groups.dtypes, strict=True):
            unit: Any = 1.0
            if slot in plan:
                unit = jnp.where(after, plan[slot].after[t], plan[slot].before[t])
            vectors.append(self.words.decoded(tape.words, slot, dtype, unit))
        return course.groups.tree(vectors)

    def _encoded(self, course: Course) -> list[Tape]:
        """The tapes of the start."""
        return [self.words.encoded(start, self.length, self.rows) for start in course.starts()]

    def _enough_rows(self, plan: dict[str, Spill]) -> jax.Array:
        if not plan:
            return jnp.ones((), bool)
        bits = sum(spill.bits for spill in plan.values())
        whole = self.segments * self.length
        each = jnp.pad(bits, (0, whole - self.bound)).reshape(self.segments, self.length).sum(axis=1)
        return jnp.all(each // 8 < self.rows)


class Groups:
    """The groups of parameters that share their coefficients, each one flat vector.

    Args:
        position: the tree of parameters.
        table: inputs -> coefficients, by name a number or a tree of groups; all trees must be alike.
        inputs: an example.
    """

    def __init__(self, position: Tree, table: Callable[[Tree], dict[str, Tree]], inputs: Tree):
        self.table = table
        shapes = jax.eval_shape(table, inputs)
        one = jax.tree.structure(0)
        self.structure = one
        for value in shapes.values():
            structure = jax.tree.structure(value)
            self.structure = structure if self.structure == one else self.structure
        self.parts = self.structure.flatten_up_to(position)
        self.back = [trees.ravel(part)[1] for part in self.parts]
        self.dtypes = [trees.float_dtype(part) for part in self.parts]

    def columns(self, inputs: Tree) -> list[dict[str, jax.Array]]:
        """For each group its coefficients, arrays of shape (T,)."""
        table = self.table(inputs)
        one = jax.tree.structure(0)
        leaves = {
            name: [value] * len(self.parts) if jax.tree.structure(value) == one else jax.tree.leaves(value)
            for name, value in table.items()
        }
        return [{name: column[i] for name, column in leaves.items()} for i in range(len(self.parts))]

    def vectors(self, tree: Tree) -> list[jax.Array]:
        """A tree like the parameters as one vector a group."""
        return [trees.ravel(part)[0] for part in self.structure.flatten_up_to(tree)]

    def tree(self, vectors: list[jax.Array]) -> Tree:
        """The way back."""
        parts = [back(vector) for back, vector in zip(self.back, vectors, strict=True)]
        return jax.tree.unflatten(self.structure, parts)


def _onto_x(slopes: list[Vectors], more: list[jax.Array]) -> list[Vectors]:
    """Slopes with something added to those of the position."""
    return [{**s, X: s[X] + m} for s, m in zip(slopes, more, strict=True)]
