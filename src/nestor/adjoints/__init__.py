"""Ways to differentiate a solve: each takes a loop, the condition that holds at its answer, and the inputs."""

from nestor.adjoints._check import DerivativeReport, check_derivatives
from nestor.adjoints._contract import Adjoint, Answer, Condition, Read, envelope
from nestor.adjoints._evolution import Evolution
from nestor.adjoints._finite_difference import FiniteDifference
from nestor.adjoints._first_order import DARTS, SAMA
from nestor.adjoints._forward import Forward
from nestor.adjoints._implicit import Implicit
from nestor.adjoints._reversible import Reversible
from nestor.adjoints._settings import SETTINGS, check_adjoint
from nestor.adjoints._unrolled import Checkpoint, OneStep, Truncate, Unroll

__all__ = [
    "DARTS",
    "SAMA",
    "SETTINGS",
    "Adjoint",
    "Answer",
    "Checkpoint",
    "Condition",
    "DerivativeReport",
    "Evolution",
    "FiniteDifference",
    "Forward",
    "Implicit",
    "OneStep",
    "Read",
    "Reversible",
    "Truncate",
    "Unroll",
    "check_adjoint",
    "check_derivatives",
    "envelope",
]
