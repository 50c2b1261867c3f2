"""Levels of optimization on top of each other: any acyclic graph of problems, each solved given those above it."""

from nestor.levels._estimators import Reinforce, Smoothed
from nestor.levels._graph import Graph, Hypergradient, LevelsHistory, LevelsReport, LevelsRun
from nestor.levels._inner_loops import F2SA, TTSA, AmIGO, StocBiO
from nestor.levels._level import Level
from nestor.levels._loggers import CSVLogger, Logger, TensorBoardLogger
from nestor.levels._meta import anil, fomaml, imaml, maml, meta_loss, reptile
from nestor.levels._recursive import MRBO, VRBO
from nestor.levels._single_loop import SABA, SOBA, SRBA

__all__ = [
    "F2SA",
    "MRBO",
    "SABA",
    "SOBA",
    "SRBA",
    "TTSA",
    "VRBO",
    "AmIGO",
    "CSVLogger",
    "Graph",
    "Hypergradient",
    "Level",
    "LevelsHistory",
    "LevelsReport",
    "LevelsRun",
    "Logger",
    "Reinforce",
    "Smoothed",
    "StocBiO",
    "TensorBoardLogger",
    "anil",
    "fomaml",
    "imaml",
    "maml",
    "meta_loss",
    "reptile",
]
