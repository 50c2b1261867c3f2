"""Linear operators that know facts about themselves, and linear solves with derivatives of any order."""

from nestor.linear._auto import Auto
from nestor.linear._direct import LU, Cholesky, LeastNorm
from nestor.linear._iterative import CG, GMRES, BiCGStab
from nestor.linear._operators import LinearSolver, Operator
from nestor.linear._series import Neumann, Nystrom
from nestor.linear._solve import solve

__all__ = [
    "CG",
    "GMRES",
    "LU",
    "Auto",
    "BiCGStab",
    "Cholesky",
    "LeastNorm",
    "LinearSolver",
    "Neumann",
    "Nystrom",
    "Operator",
    "solve",
]
