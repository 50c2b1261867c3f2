"""Pictures of solves, of graphs and of arrays (Matplotlib, without a screen), and of studies (plotly)."""

from nestor.plots._curves import adjoint_norms, curves, history
from nestor.plots._graph import graph
from nestor.plots._histograms import histograms
from nestor.plots._images import images
from nestor.plots._studies import (
    importances,
    intermediate_values,
    optimization_history,
    parallel_coordinates,
    pareto_front,
    slices,
    timeline,
)

__all__ = [
    "adjoint_norms",
    "curves",
    "graph",
    "histograms",
    "history",
    "images",
    "importances",
    "intermediate_values",
    "optimization_history",
    "parallel_coordinates",
    "pareto_front",
    "slices",
    "timeline",
]
