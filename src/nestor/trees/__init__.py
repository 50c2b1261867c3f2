"""Arithmetic, inner products, norms and selection on whole trees of arrays."""

from nestor.trees._arithmetic import (
    add,
    add_scaled,
    all_finite,
    dot,
    max_norm,
    negative,
    norm,
    root,
    scale,
    select,
    size,
    squared_norm,
    subtract,
    zeros_like,
)
from nestor.trees._floats import as_array, floats, is_float, tangent_like, with_floats
from nestor.trees._linear import linear_map
from nestor.trees._records import graft, join, record, split, stop_gradient
from nestor.trees._tangents import custom_jvp_on_perturbed, guarded
from nestor.trees._vectors import float_dtype, ravel, vectors_like

__all__ = [
    "add",
    "add_scaled",
    "all_finite",
    "as_array",
    "custom_jvp_on_perturbed",
    "dot",
    "float_dtype",
    "floats",
    "graft",
    "guarded",
    "is_float",
    "join",
    "linear_map",
    "max_norm",
    "negative",
    "norm",
    "ravel",
    "record",
    "root",
    "scale",
    "select",
    "size",
    "split",
    "squared_norm",
    "stop_gradient",
    "subtract",
    "tangent_like",
    "vectors_like",
    "with_floats",
    "zeros_like",
]
