"""Bounded loops that run, and loops whose turns can be differentiated in several ways."""

from nestor.loops._loops import Loop, every_turn, last_turns, rematerialised, to_the_end

__all__ = ["Loop", "every_turn", "last_turns", "rematerialised", "to_the_end"]
