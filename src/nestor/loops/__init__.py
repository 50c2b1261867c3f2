"""Bounded loops that run, and loops whose turns can be differentiated in several ways."""

from nestor.loops._binomial import binomial_schedule, reverse_binomially
from nestor.loops._bits import (
    INT32,
    INT64,
    Spill,
    Stack,
    Width,
    divide,
    drop,
    multiply,
    restore,
    rows_needed,
    spills,
)
from nestor.loops._loops import Loop, begun, every_turn, last_turns, onward, rematerialised, to_the_end
from nestor.loops._reversal import Groups, Machine, Residue, Reversal
from nestor.loops._rules import Add, Forget, Rule, Scale, step
from nestor.loops._segments import in_segments
from nestor.loops._words import Tape

__all__ = [
    "INT32",
    "INT64",
    "Add",
    "Forget",
    "Groups",
    "Loop",
    "Machine",
    "Residue",
    "Reversal",
    "Rule",
    "Scale",
    "Spill",
    "Stack",
    "Tape",
    "Width",
    "begun",
    "binomial_schedule",
    "divide",
    "drop",
    "every_turn",
    "in_segments",
    "last_turns",
    "multiply",
    "onward",
    "rematerialised",
    "restore",
    "reverse_binomially",
    "rows_needed",
    "spills",
    "step",
    "to_the_end",
]
