"""Traced functions whose closures have become inputs, interned by structure, and what watches them run."""

from nestor.programs._interrupts import Interrupts
from nestor.programs._programs import Program, hoist
from nestor.programs._quick import quick_jit
from nestor.programs._safe import safe_roots
from nestor.programs._tracing import (
    in_trace,
    inside_jit,
    is_one_array,
    is_traced,
    shape_text,
    signature_that_refuses,
    structure_text,
    trace_function,
)
from nestor.programs._transformations import Transformation, hoist_transformation, is_transformation
from nestor.programs._watchers import Watcher, register, registered, show

__all__ = [
    "Interrupts",
    "Program",
    "Transformation",
    "Watcher",
    "hoist",
    "hoist_transformation",
    "in_trace",
    "inside_jit",
    "is_one_array",
    "is_traced",
    "is_transformation",
    "quick_jit",
    "register",
    "registered",
    "safe_roots",
    "shape_text",
    "show",
    "signature_that_refuses",
    "structure_text",
    "trace_function",
]
