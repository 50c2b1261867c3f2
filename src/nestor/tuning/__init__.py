"""Where search meets gradients: trials that carry exact hypergradients, descend, and run many at a time."""

from nestor.tuning._front import tune
from nestor.tuning._sampler import DescentSampler
from nestor.tuning._trials import FAILURES, Batched, Differentiated

__all__ = ["FAILURES", "Batched", "DescentSampler", "Differentiated", "tune"]
