"""Pictures of solves and of arrays, as Matplotlib figures that need no screen."""

from nestor.plots._curves import curves, history
from nestor.plots._images import images

__all__ = ["curves", "history", "images"]
