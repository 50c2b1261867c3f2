"""Pictures of solves, of graphs and of arrays, as Matplotlib figures that need no screen."""

from nestor.plots._curves import adjoint_norms, curves, history
from nestor.plots._graph import graph
from nestor.plots._histograms import histograms
from nestor.plots._images import images

__all__ = ["adjoint_norms", "curves", "graph", "histograms", "history", "images"]
