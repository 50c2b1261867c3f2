"""Sets and penalties as objects: what projects on them, their proximal operators, all differentiable."""

from nestor.proximal._balls import L1Ball, L1Sphere, L2Ball, L2Sphere, LInfBall
from nestor.proximal._cones import NonNegative, PositiveSemidefinite, SecondOrderCone
from nestor.proximal._contract import Free, Penalty, Separate, Set
from nestor.proximal._flats import Affine, Bounded, Box, BoxSection, Halfspace, Hyperplane
from nestor.proximal._monotone import Monotone
from nestor.proximal._penalties import (
    ElasticNet,
    GroupLasso,
    Huber,
    Lasso,
    Logarithm,
    NonNegativeLasso,
    NonNegativeRidge,
    Quantile,
    Ridge,
)
from nestor.proximal._simplex import Simplex, SparseSimplex
from nestor.proximal._spectral import NuclearBall, NuclearNorm
from nestor.proximal._transport import Birkhoff, Transport

__all__ = [
    "Affine",
    "Birkhoff",
    "Bounded",
    "Box",
    "BoxSection",
    "ElasticNet",
    "Free",
    "GroupLasso",
    "Halfspace",
    "Huber",
    "Hyperplane",
    "L1Ball",
    "L1Sphere",
    "L2Ball",
    "L2Sphere",
    "LInfBall",
    "Lasso",
    "Logarithm",
    "Monotone",
    "NonNegative",
    "NonNegativeLasso",
    "NonNegativeRidge",
    "NuclearBall",
    "NuclearNorm",
    "Penalty",
    "PositiveSemidefinite",
    "Quantile",
    "Ridge",
    "SecondOrderCone",
    "Separate",
    "Set",
    "Simplex",
    "SparseSimplex",
    "Transport",
]
