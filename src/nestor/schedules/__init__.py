"""Numbers that change from step to step, as trees in which every number can be differentiated."""

from nestor.schedules._any import Called, Grouped, as_schedule
from nestor.schedules._record import Schedule
from nestor.schedules._shapes import Constant, Cosine, Exponential, InverseTime, Warmup
from nestor.schedules._tables import PerBlock, PerStep, PiecewiseLinear

__all__ = [
    "Called",
    "Constant",
    "Cosine",
    "Exponential",
    "Grouped",
    "InverseTime",
    "PerBlock",
    "PerStep",
    "PiecewiseLinear",
    "Schedule",
    "Warmup",
    "as_schedule",
]
