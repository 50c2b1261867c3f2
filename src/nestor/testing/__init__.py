"""Conformance kits for people who extend Nestor: subclass one, say what to make, and run it with pytest."""

from nestor.testing._adjoint_checks import AdjointChecks
from nestor.testing._solver_checks import SolverChecks

__all__ = ["AdjointChecks", "SolverChecks"]
