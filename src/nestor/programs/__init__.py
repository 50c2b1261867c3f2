"""Traced functions whose closures have become inputs, interned so that equal programs are one object."""

from nestor.programs._programs import Program, hoist

__all__ = ["Program", "hoist"]
