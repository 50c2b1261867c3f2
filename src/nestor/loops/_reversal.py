"""Runs made in integers, which can be made backwards bit for bit.

The state of a run is held in fixed point, the gradient is computed in floating point from the decoded position
and rounded before it is added. Every elementary move of the rule is then a bijection of integers (see `_bits`),
so the run can be undone turn by turn, given that the gradient comes out the same again; and if it does not,
the start does not come back, which is checked. Source: Maclaurin, Duvenaud, Adams 2015, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.loops._bits import Spill, Stack, Width, divide, drop, multiply, restore, spills
from nestor.loops._rules import LEFT_OVER, Forget, Rule, Scale, step

Tree = Any
X = "x"  # the position among the words


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


class Tape(NamedTuple):
    """The words of one group of parameters, and the bits that have left them.

    Attributes:
        words: by slot, and "x", integer vectors of shape (n,).
        stack: bits lost by multiplications.
        dropped: by slot, the low halves of words that were forgotten.
    """

    words: dict[str, jax.Array]
    stack: Stack
    dropped: dict[str, Stack]


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
        self.reversal, self.width, self.bound, self.rows = reversal, width, bound, rows
        self.segments = 1 if snapshots is None else min(snapshots, bound)
        self.length = -(-bound // self.segments)
        self.hybrid = snapshots is not None
        position = 0 if width.name == "int32" else 1
        rule = reversal.rule
        self.points = {slot: pair[position] for slot, pair in zip(rule.slots, rule.fractions, strict=True)}
        self.points[X] = width.x
        squares = [self.points[slot] for slot in rule.slots if slot == "square"]
        self.floor = 2.0 ** -squares[0] if squares else 0.0
        self.scaled = {move.slot: move.by for move in rule.kicks if isinstance(move, Scale)}
        if rule.shrink:
            self.scaled[X] = rule.shrink

    # --- forward -----------------------------------------------------------------------------------

    def forward(self, inputs: Tree) -> tuple[Tree, Tree, Residue]:
        """The last carry, what was recorded, and what the way back needs."""
        reversal = self.reversal
        position, slots = reversal.begin(inputs)
        groups = Groups(position, reversal.table, inputs)
        columns = groups.columns(inputs)
        plans = [self._plan(c) for c in columns]
        tapes = self._encoded(groups, position, slots)
        watch, seen = reversal.watch(inputs)
        recorded = trees.vectors_like(seen, self.bound)
        in_range = self._in_range(columns, groups, position, slots)

        def segment(state: Any, number: jax.Array) -> tuple[Any, Tree]:
            t, tapes, watch, seen, recorded, good = state
            words = [tape.words for tape in tapes] if self.hybrid else ()
            if self.hybrid:
                tapes = [self._blank(tape) for tape in tapes]
            until = jnp.minimum((number + 1) * self.length, self.bound)
            first = number * self.length
            bases = [_stored(plan, first) for plan in plans]

            def more(state: Any) -> jax.Array:
                return (state[0] < until) & reversal.running(state[2])

            def body(state: Any) -> Any:
                t, tapes, watch, _, recorded, good = state
                place = _apart(groups.decoded(tapes, plans, t, self, X))
                loss, grads = _apart(reversal.gradient(inputs, t, place))
                moved = [
                    self._advance(tape, at(c, t), at(plan, t), g, t - first, base)
                    for tape, c, plan, g, base in zip(
                        tapes, columns, plans, groups.vectors(grads), bases, strict=True
                    )
                ]
                good = good & jnp.all(jnp.stack([fit for _, fit in moved]))
                tapes = [_kept(good, new, old) for (new, _), old in zip(moved, tapes, strict=True)]
                place = groups.decoded(tapes, plans, t, self, X, after=good)
                watch, seen = reversal.observe(inputs, t, loss, grads, place, good, watch)
                recorded = jax.tree.map(lambda rows, row: rows.at[t].set(row), recorded, seen)
                return t + 1, tapes, watch, seen, recorded, good

            state = jax.lax.while_loop(more, body, (t, tapes, watch, seen, recorded, good))
            return state, words

        start = (jnp.int32(0), tapes, watch, seen, recorded, in_range)
        numbers = jnp.arange(self.segments, dtype=jnp.int32)
        if self.hybrid:
            state, snapshots = jax.lax.scan(segment, start, numbers)
        else:
            state, snapshots = segment(start, numbers[0])
        t, tapes, watch, seen, recorded, good = state
        last = jnp.maximum(t - 1, 0)
        position = groups.decoded(tapes, plans, last, self, X, after=good)
        slots = {s: groups.decoded(tapes, plans, last, self, s, after=good) for s in reversal.rule.slots}
        carry = reversal.carried(t, position, slots, watch, seen)
        room = [self._enough_rows(plan) for plan in plans]
        return carry, recorded, Residue(tapes, snapshots, t, good & jnp.all(jnp.stack(room)))

    # --- backward ----------------------------------------------------------------------------------

    def backward(
        self, perturbed: list[Any], merge: Callable[[list[Any]], Tree], outcome: Tree, cotangent: Tree
    ) -> tuple[list[Any], jax.Array]:
        """The cotangent of the perturbed inputs, and whether the start came back bit for bit."""
        reversal, inputs = self.reversal, merge(perturbed)
        carry, _, residue = outcome
        best_t = reversal.parts(carry)[3]
        ct_position, ct_slots, ct_best, _ = reversal.parts(cotangent[0])
        ct_loss = reversal.losses(cotangent[1])
        position, slots = reversal.begin(inputs)
        groups = Groups(position, reversal.table, inputs)
        columns = groups.columns(inputs)
        plans = [self._plan(c) for c in columns]
        best = groups.vectors(ct_best) if jax.tree.leaves(ct_best) else None

        def turn_back(first: jax.Array, state: Any) -> Any:
            t, tapes, slopes, total, rows = state
            t = t - 1
            if best is not None:
                slopes = [
                    {**s, X: s[X] + jnp.where(best_t == t + 1, b, jnp.zeros_like(b))}
                    for s, b in zip(slopes, best, strict=True)
                ]
            row = [
                (at(c, t), at(plan, t), _stored(plan, first)) for c, plan in zip(columns, plans, strict=True)
            ]
            tapes = [
                self._undrift(tape, *r, dtype)
                for tape, r, dtype in zip(tapes, row, groups.dtypes, strict=True)
            ]
            place = _apart(groups.decoded(tapes, plans, t, self, X))
            (_, grads), pull = jax.vjp(lambda p, x: reversal.gradient(merge(p), t, x), perturbed, place)
            vectors = groups.vectors(_apart(grads))
            tapes = [
                self._unkick(tape, *r, g, t - first) for tape, r, g in zip(tapes, row, vectors, strict=True)
            ]
            pulled = [
                self._pull_step(tape, r[0], r[1], g, s)
                for tape, r, g, s in zip(tapes, row, vectors, slopes, strict=True)
            ]
            ct_grads = groups.tree([ct_g for _, ct_g, _ in pulled])
            ct_p, ct_place = pull((ct_loss[t], ct_grads))
            slopes = [
                {**s, X: s[X] + extra}
                for (_, _, s), extra in zip(pulled, groups.vectors(ct_place), strict=True)
            ]
            rows = [
                {name: column.at[t].set(ct_c[name].astype(column.dtype)) for name, column in r.items()}
                for r, (ct_c, _, _) in zip(rows, pulled, strict=True)
            ]
            return t, tapes, slopes, jax.tree.map(jnp.add, total, ct_p), rows

        slopes = [
            dict(zip((X, *ct_slots), part, strict=True))
            for part in zip(
                groups.vectors(ct_position), *(groups.vectors(c) for c in ct_slots.values()), strict=True
            )
        ]
        state = (residue.made, residue.tapes, slopes, trees.zeros_like(perturbed), trees.zeros_like(columns))
        goal = self._encoded(groups, position, slots)
        if self.hybrid:
            state, good = self._back_by_segments(inputs, groups, columns, plans, residue, state, turn_back)
        else:
            back = lambda state: turn_back(jnp.int32(0), state)  # noqa: E731
            state = jax.lax.while_loop(lambda state: state[0] > 0, back, state)
            good = self._same([tape.words for tape in goal], state[1])
        _, _, slopes, total, rows = state
        if best is not None:
            slopes = [
                {**s, X: s[X] + jnp.where(best_t == 0, b, jnp.zeros_like(b))}
                for s, b in zip(slopes, best, strict=True)
            ]
        ct_begin = (
            groups.tree([s[X] for s in slopes]),
            {slot: groups.tree([s[slot] for s in slopes]) for slot in ct_slots},
        )
        for function, ct in ((reversal.begin, ct_begin), (groups.columns, rows)):
            _, pull = jax.vjp(lambda p, f=function: f(merge(p)), perturbed)
            total = jax.tree.map(jnp.add, total, pull(ct)[0])
        return total, good & residue.fits

    def _back_by_segments(
        self,
        inputs: Tree,
        groups: Groups,
        columns: list[dict[str, jax.Array]],
        plans: list[dict[str, Spill]],
        residue: Residue,
        state: Any,
        turn_back: Callable[..., Any],
    ) -> tuple[Any, jax.Array]:
        """From the last segment to the first: make it again from its snapshot, with its stack, and unmake it."""
        reversal = self.reversal

        def segment(carry: tuple[Any, jax.Array], numbered: tuple[jax.Array, Tree]) -> tuple[Any, None]:
            (_, _, slopes, total, rows), good = carry
            number, words = numbered
            first = number * self.length
            until = jnp.minimum(first + self.length, residue.made)
            fresh = [
                self._blank(Tape(w, t.stack, t.dropped)) for w, t in zip(words, residue.tapes, strict=True)
            ]

            def body(pair: tuple[jax.Array, list[Tape]]) -> tuple[jax.Array, list[Tape]]:
                t, tapes = pair
                place = _apart(groups.decoded(tapes, plans, t, self, X))
                _, grads = _apart(reversal.gradient(inputs, t, place))
                tapes = [
                    self._advance(tape, at(c, t), at(plan, t), g, t - first, base)[0]
                    for tape, c, plan, g, base in zip(
                        tapes, columns, plans, groups.vectors(grads), bases, strict=True
                    )
                ]
                return t + 1, tapes

            bases = [_stored(plan, first) for plan in plans]
            _, tapes = jax.lax.while_loop(lambda pair: pair[0] < until, body, (first, fresh))
            state = (jnp.maximum(until, first), tapes, slopes, total, rows)
            state = jax.lax.while_loop(lambda s: s[0] > first, lambda s: turn_back(first, s), state)
            return (state, good & self._same(words, state[1])), None

        numbers = jnp.arange(self.segments, dtype=jnp.int32)
        carry = (state, jnp.ones((), bool))
        # A segment that was never reached has the words of the end in its snapshot and nothing to unmake.
        (state, good), _ = jax.lax.scan(segment, carry, (numbers, residue.snapshots), reverse=True)
        return state, good

    # --- one group, one turn -----------------------------------------------------------------------

    def _advance(
        self,
        tape: Tape,
        c: dict[str, jax.Array],
        spill: dict[str, Spill],
        g: jax.Array,
        index: jax.Array,
        base: jax.Array,
    ) -> tuple[Tape, jax.Array]:
        words, stack, dropped = dict(tape.words), tape.stack, dict(tape.dropped)
        units, c = self._units(spill, after=False), {**c, "floor": jnp.asarray(self.floor)}
        fits = []

        def add(slot: str, amount: jax.Array) -> None:
            fits.append(self.width.fits(amount, self.points[slot], units[slot]))
            words[slot] = words[slot] + self.width.encode(amount, self.points[slot], units[slot])
            fits.append(jnp.all(jnp.abs(words[slot]) < 2**self.width.room))

        for move in self.reversal.rule.kicks:
            if isinstance(move, Scale):
                own = _counted(spill[move.slot], base)
                words[move.slot], stack = multiply(words[move.slot], stack, own)
                units[move.slot] = spill[move.slot].after
            elif isinstance(move, Forget):
                words[move.slot], dropped[move.slot] = drop(words[move.slot], dropped[move.slot], index)
            else:
                add(move.slot, self._amount(move.amount, c, g, words, units))
        if X in self.scaled:
            words[X], stack = multiply(words[X], stack, _counted(spill[X], base))
            units[X] = spill[X].after
        add(X, self._amount(_no_gradient(self.reversal.rule.drift), c, g, words, units))
        return Tape(words, stack, dropped), jnp.all(jnp.stack(fits))

    def _amount(
        self,
        amount: Callable[..., jax.Array],
        c: dict[str, jax.Array],
        g: jax.Array,
        words: dict[str, jax.Array],
        units: dict[str, Any],
    ) -> jax.Array:
        """What a move adds, computed in the same way in every program.

        The barrier keeps the compiler from sharing parts of it with what stands around it, and so from
        rounding them differently on the way there and on the way back.
        """
        return amount(*_apart((c, g, self._slots(words, units, g.dtype))))

    def _undrift(
        self, tape: Tape, c: dict[str, jax.Array], spill: dict[str, Spill], base: jax.Array, dtype: Any
    ) -> Tape:
        words, stack = dict(tape.words), tape.stack
        units, c = self._units(spill, after=True), {**c, "floor": jnp.asarray(self.floor)}
        nothing = jnp.zeros((), dtype)
        amount = self._amount(_no_gradient(self.reversal.rule.drift), c, nothing, words, units)
        words[X] = words[X] - self.width.encode(amount, self.points[X], units[X])
        if X in self.scaled:
            words[X], stack = divide(words[X], stack, _counted(spill[X], base))
        return Tape(words, stack, tape.dropped)

    def _unkick(
        self,
        tape: Tape,
        c: dict[str, jax.Array],
        spill: dict[str, Spill],
        base: jax.Array,
        g: jax.Array,
        index: jax.Array,
    ) -> Tape:
        words, stack, dropped = dict(tape.words), tape.stack, dict(tape.dropped)
        units, c = self._units(spill, after=True), {**c, "floor": jnp.asarray(self.floor)}
        for move in reversed(self.reversal.rule.kicks):
            if isinstance(move, Scale):
                own = _counted(spill[move.slot], base)
                words[move.slot], stack = divide(words[move.slot], stack, own)
                units[move.slot] = spill[move.slot].before
            elif isinstance(move, Forget):
                words[move.slot], dropped[move.slot] = restore(words[move.slot], dropped[move.slot], index)
            else:
                amount = self._amount(move.amount, c, g, words, units)
                words[move.slot] = words[move.slot] - self.width.encode(
                    amount, self.points[move.slot], units[move.slot]
                )
        return Tape(words, stack, dropped)

    def _pull_step(
        self,
        tape: Tape,
        c: dict[str, jax.Array],
        spill: dict[str, Spill],
        g: jax.Array,
        slopes: dict[str, jax.Array],
    ) -> tuple[dict[str, jax.Array], jax.Array, dict[str, jax.Array]]:
        """The cotangents of coefficients, gradient and state before a step, from those after it."""
        units = self._units(spill, after=False)
        state = self._slots(tape.words, units, g.dtype)
        x = self.width.decode(tape.words[X], self.points[X], g.dtype, units[X])
        rule = self.reversal.rule
        made = lambda c, g, x, s: step(rule, c, g, x, s, left_over=LEFT_OVER, floor=self.floor)  # noqa: E731
        _, pull = jax.vjp(made, c, g, x, state)
        ct_c, ct_g, ct_x, ct_slots = pull((slopes[X], {slot: slopes[slot] for slot in rule.slots}))
        return ct_c, ct_g, {X: ct_x, **ct_slots}

    # --- words -------------------------------------------------------------------------------------

    def _plan(self, columns: dict[str, jax.Array]) -> dict[str, Spill]:
        """What each multiplication of each turn does to the one stack of a group."""
        plans = {slot: spills(columns[by]) for slot, by in self.scaled.items()}
        if not plans:
            return {}
        bits = jnp.stack([plan.bits for plan in plans.values()], axis=1)
        ends = jnp.cumsum(bits.reshape(-1)).reshape(bits.shape).astype(jnp.int32)
        places = ends - bits
        return {slot: plan._replace(place=places[:, i]) for i, (slot, plan) in enumerate(plans.items())}

    def _enough_rows(self, plan: dict[str, Spill]) -> jax.Array:
        if not plan:
            return jnp.ones((), bool)
        bits = sum(spill.bits for spill in plan.values())
        whole = self.segments * self.length
        each = jnp.pad(bits, (0, whole - self.bound)).reshape(self.segments, self.length).sum(axis=1)
        return jnp.all(each // 8 < self.rows)

    def _encoded(self, groups: Groups, position: Tree, slots: dict[str, Tree]) -> list[Tape]:
        """The tapes of the start."""
        columns = {
            X: groups.vectors(position),
            **{slot: groups.vectors(tree) for slot, tree in slots.items()},
        }
        forgotten = [move.slot for move in self.reversal.rule.kicks if isinstance(move, Forget)]
        tapes = []
        for i, x in enumerate(columns[X]):
            words = {
                name: self.width.encode(column[i], self.points[name]) for name, column in columns.items()
            }
            rows = {slot: Stack.empty(x.size, self.length, jnp.uint16) for slot in forgotten}
            tapes.append(Tape(words, Stack.empty(x.size, self.rows), rows))
        return tapes

    def _blank(self, tape: Tape) -> Tape:
        """The same words, and nothing lost yet."""
        return tape._replace(
            stack=trees.zeros_like(tape.stack), dropped=jax.tree.map(jnp.zeros_like, tape.dropped)
        )

    def _same(self, goal: list[dict[str, jax.Array]], tapes: list[Tape]) -> jax.Array:
        """Whether the words are those, and every bit went back."""
        good = []
        for words, tape in zip(goal, tapes, strict=True):
            good += [jnp.all(words[name] == tape.words[name]) for name in words]
            good += [tape.stack.is_empty(), *(rows.is_empty() for rows in tape.dropped.values())]
        return jnp.all(jnp.stack(good))

    def _in_range(
        self, columns: list[dict[str, jax.Array]], groups: Groups, position: Tree, slots: dict[str, Tree]
    ) -> jax.Array:
        """Whether the start has words, and every multiplication a plan."""
        good = [self.width.fits(x, self.points[X]) for x in groups.vectors(position)]
        for slot, tree in slots.items():
            good += [self.width.fits(x, self.points[slot]) for x in groups.vectors(tree)]
        for c in columns:
            good += [jnp.all((c[by] >= 2.0**-8) & (c[by] <= 1)) for by in self.scaled.values()]
        return jnp.all(jnp.stack(good))

    def _units(self, spill: dict[str, Spill], after: bool) -> dict[str, Any]:
        one = {name: 1.0 for name in self.points}
        return {**one, **{name: s.after if after else s.before for name, s in spill.items()}}

    def _slots(self, words: dict[str, jax.Array], units: dict[str, Any], dtype: Any) -> dict[str, jax.Array]:
        return {
            slot: self.width.decode(words[slot], self.points[slot], dtype, units[slot])
            for slot in self.reversal.rule.slots
        }


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

    def decoded(
        self,
        tapes: list[Tape],
        plans: list[dict[str, Spill]],
        t: jax.Array,
        machine: Machine,
        slot: str,
        after: Any = False,
    ) -> Tree:
        """The tree of floats that the words of a slot stand for before (or after) turn t."""
        vectors = []
        for tape, plan, dtype in zip(tapes, plans, self.dtypes, strict=True):
            unit: Any = 1.0
            if slot in plan:
                unit = jnp.where(after, plan[slot].after[t], plan[slot].before[t])
            vectors.append(machine.width.decode(tape.words[slot], machine.points[slot], dtype, unit))
        return self.tree(vectors)


def at(columns: Tree, t: jax.Array) -> Tree:
    """Row t of every array of a tree."""
    return jax.tree.map(lambda column: column[t], columns)


def _stored(plan: dict[str, Spill], t: jax.Array) -> jax.Array:
    """How many bits of a word are stored before turn t."""
    return next(iter(plan.values())).place[t] if plan else jnp.int32(0)


def _counted(spill: Spill, base: jax.Array) -> Spill:
    """The same spill, with places counted from the start of a segment."""
    return spill._replace(place=spill.place - base)


def _kept(good: jax.Array, new: Tape, old: Tape) -> Tape:
    """The new words, or, of a turn that left the range of integers, the old ones; rows are scratch then."""
    words, rest = trees.select(good, (new.words, new.stack.rest), (old.words, old.stack.rest))
    return new._replace(words=words, stack=new.stack._replace(rest=rest))


def _no_gradient(drift: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return lambda c, _, slots: drift(c, slots)


def _apart(tree: Tree) -> Tree:
    """The same numbers, computed apart from what uses them."""
    return jax.lax.optimization_barrier(tree)
