"""One group of parameters in integers: its words, and what each turn of a run does to them and undoes.

The state of a run is held in fixed point, the gradient is computed in floating point from the decoded position
and rounded before it is added. Every elementary move of the rule is then a bijection of integers (see `_bits`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.loops._bits import Spill, Stack, Width, divide, drop, multiply, restore, spills
from nestor.loops._rules import Forget, Rule, Scale, X, step

Tree = Any
Vectors = dict[str, jax.Array]  # by slot, and "x"


class Tape(NamedTuple):
    """The words of one group of parameters, and the bits that have left them.

    Attributes:
        words: by slot, and "x", integer vectors of shape (n,).
        stack: bits lost by multiplications.
        dropped: by slot, the low halves of words that were forgotten.
    """

    words: Vectors
    stack: Stack
    dropped: dict[str, Stack]

    def blank(self) -> Tape:
        """The same words, and nothing lost yet."""
        return self._replace(stack=trees.zeros_like(self.stack), dropped=trees.zeros_like(self.dropped))

    def unless(self, good: jax.Array, old: Tape) -> Tape:
        """This one, or, after a turn that left the range of integers, the old words; rows are scratch then."""
        words, rest = trees.select(good, (self.words, self.stack.rest), (old.words, old.stack.rest))
        return self._replace(words=words, stack=self.stack._replace(rest=rest))


class Turn(NamedTuple):
    """What one turn does to the words of a group, beside what the gradient says.

    Attributes:
        c: the coefficients, and the floor of squares.
        spills: by slot, and "x", what its multiplication does; places count from the start of the segment.
        number: of the turn in its segment.
    """

    c: dict[str, jax.Array]
    spills: dict[str, Spill]
    number: jax.Array


class Words:
    """How the words of a group move by a rule.

    Args:
        rule: the moves of a turn.
        width: of the integers.
    """

    def __init__(self, rule: Rule, width: Width):
        self.rule, self.width = rule, width
        position = 0 if width.name == "int32" else 1
        self.points = {slot: pair[position] for slot, pair in zip(rule.slots, rule.fractions, strict=True)}
        self.points[X] = width.x
        squares = [self.points[slot] for slot in rule.slots if slot == "square"]
        self.floor = 2.0 ** -squares[0] if squares else 0.0
        self.forgotten = [move.slot for move in rule.kicks if isinstance(move, Forget)]

    # --- all turns ---------------------------------------------------------------------------------

    def plan(self, columns: dict[str, jax.Array]) -> dict[str, Spill]:
        """What each multiplication of each turn does to the one stack of the group."""
        plans = {slot: spills(columns[by]) for slot, by in self.rule.scaled.items()}
        if not plans:
            return {}
        bits = jnp.stack([plan.bits for plan in plans.values()], axis=1)
        ends = jnp.cumsum(bits.reshape(-1)).reshape(bits.shape).astype(jnp.int32)
        places = ends - bits
        return {slot: plan._replace(place=places[:, i]) for i, (slot, plan) in enumerate(plans.items())}

    def in_range(self, columns: dict[str, jax.Array], start: Vectors) -> jax.Array:
        """Whether the start has words, and every multiplication a plan."""
        good = [self.width.fits(vector, self.points[slot]) for slot, vector in start.items()]
        good += [jnp.all((columns[by] >= 2.0**-8) & (columns[by] <= 1)) for by in self.rule.scaled.values()]
        return jnp.all(jnp.stack(good))

    def encoded(self, start: Vectors, turns: int, rows: int) -> Tape:
        """The tape of the start, with room for so many turns and bytes a word."""
        n = start[X].size
        words = {slot: self.width.encode(vector, self.points[slot]) for slot, vector in start.items()}
        dtype = jnp.uint16 if self.width.half == 16 else jnp.uint32
        dropped = {slot: Stack.empty(n, turns, dtype) for slot in self.forgotten}
        return Tape(words, Stack.empty(n, rows), dropped)

    def decoded(self, words: Vectors, slot: str, dtype: Any, unit: Any) -> jax.Array:
        """The floats that the words of a slot stand for."""
        return self.width.decode(words[slot], self.points[slot], dtype, unit)

    # --- one turn ----------------------------------------------------------------------------------

    def turn(
        self, columns: dict[str, jax.Array], plan: dict[str, Spill], t: jax.Array, first: jax.Array
    ) -> Turn:
        """Turn t, of a segment that begins with turn `first`."""
        base = next(iter(plan.values())).place[first] if plan else jnp.int32(0)
        spills = {slot: spill._replace(place=spill.place - base) for slot, spill in _at(plan, t).items()}
        return Turn({**_at(columns, t), "floor": jnp.asarray(self.floor)}, spills, t - first)

    def advance(self, tape: Tape, turn: Turn, g: jax.Array) -> tuple[Tape, jax.Array]:
        """The tape after the turn, and whether everything was in range."""
        words, stack, dropped = dict(tape.words), tape.stack, dict(tape.dropped)
        units = self._units(turn, after=False)
        fits = []

        def add(slot: str, amount: jax.Array) -> None:
            fits.append(self.width.fits(amount, self.points[slot], units[slot]))
            words[slot] = words[slot] + self.width.encode(amount, self.points[slot], units[slot])
            fits.append(jnp.all(jnp.abs(words[slot]) < 2**self.width.room))

        for move in self.rule.kicks:
            if isinstance(move, Scale):
                words[move.slot], stack = multiply(words[move.slot], stack, turn.spills[move.slot])
                units[move.slot] = turn.spills[move.slot].after
            elif isinstance(move, Forget):
                words[move.slot], dropped[move.slot] = drop(words[move.slot], dropped[move.slot], turn.number)
            else:
                add(move.slot, self._amount(move.amount, turn, g, words, units))
        if X in self.rule.scaled:
            words[X], stack = multiply(words[X], stack, turn.spills[X])
            units[X] = turn.spills[X].after
        add(X, self._amount(self._drift, turn, g, words, units))
        return Tape(words, stack, dropped), jnp.all(jnp.stack(fits))

    def undrift(self, tape: Tape, turn: Turn, dtype: Any) -> Tape:
        """The tape as it was before the position moved: what the gradient can be computed from again."""
        words, stack, units = dict(tape.words), tape.stack, self._units(turn, after=True)
        amount = self._amount(self._drift, turn, jnp.zeros((), dtype), words, units)
        words[X] = words[X] - self.width.encode(amount, self.points[X], units[X])
        if X in self.rule.scaled:
            words[X], stack = divide(words[X], stack, turn.spills[X])
        return Tape(words, stack, tape.dropped)

    def unkick(self, tape: Tape, turn: Turn, g: jax.Array) -> Tape:
        """The tape as it was before the slots moved: that before the turn."""
        words, stack, dropped = dict(tape.words), tape.stack, dict(tape.dropped)
        units = self._units(turn, after=True)
        for move in reversed(self.rule.kicks):
            if isinstance(move, Scale):
                words[move.slot], stack = divide(words[move.slot], stack, turn.spills[move.slot])
                units[move.slot] = turn.spills[move.slot].before
            elif isinstance(move, Forget):
                words[move.slot], dropped[move.slot] = restore(
                    words[move.slot], dropped[move.slot], turn.number
                )
            else:
                amount = self._amount(move.amount, turn, g, words, units)
                words[move.slot] = words[move.slot] - self.width.encode(
                    amount, self.points[move.slot], units[move.slot]
                )
        return Tape(words, stack, dropped)

    def pull(
        self, tape: Tape, turn: Turn, g: jax.Array, slopes: Vectors
    ) -> tuple[dict[str, jax.Array], jax.Array, Vectors]:
        """The cotangents of coefficients, gradient and state before a turn, from those after it."""
        units = self._units(turn, after=False)
        state = self._slots(tape.words, units, g.dtype)
        x = self.decoded(tape.words, X, g.dtype, units[X])
        left_over = 2.0**-self.width.half
        made = lambda c, g, x, s: step(self.rule, c, g, x, s, left_over=left_over, floor=self.floor)  # noqa: E731
        _, pull = jax.vjp(made, turn.c, g, x, state)
        ct_c, ct_g, ct_x, ct_slots = pull((slopes[X], {slot: slopes[slot] for slot in self.rule.slots}))
        return ct_c, ct_g, {X: ct_x, **ct_slots}

    # --- parts of a turn ---------------------------------------------------------------------------

    def _drift(self, c: dict[str, jax.Array], _: jax.Array, slots: Vectors) -> jax.Array:
        return self.rule.drift(c, slots)

    def _amount(
        self,
        amount: Callable[..., jax.Array],
        turn: Turn,
        g: jax.Array,
        words: Vectors,
        units: dict[str, Any],
    ) -> jax.Array:
        """What a move adds, computed in the same way in every program.

        The barrier keeps the compiler from sharing parts of it with what stands around it, and so from
        rounding them differently on the way there and on the way back.
        """
        return amount(*apart((turn.c, g, self._slots(words, units, g.dtype))))

    def _units(self, turn: Turn, after: bool) -> dict[str, Any]:
        one = {name: 1.0 for name in self.points}
        return {**one, **{name: s.after if after else s.before for name, s in turn.spills.items()}}

    def _slots(self, words: Vectors, units: dict[str, Any], dtype: Any) -> Vectors:
        return {slot: self.decoded(words, slot, dtype, units[slot]) for slot in self.rule.slots}


def same(goal: list[Vectors], tapes: list[Tape]) -> jax.Array:
    """Whether the words are those, and every bit went back."""
    good = []
    for words, tape in zip(goal, tapes, strict=True):
        good += [jnp.all(words[name] == tape.words[name]) for name in words]
        good += [tape.stack.is_empty(), *(rows.is_empty() for rows in tape.dropped.values())]
    return jnp.all(jnp.stack(good))


def apart(tree: Tree) -> Tree:
    """The same numbers, computed apart from what uses them."""
    return jax.lax.optimization_barrier(tree)


def _at(columns: Tree, t: jax.Array) -> Tree:
    """Row t of every array of a tree."""
    return jax.tree.map(lambda column: column[t], columns)
