"""Optuna, when it is needed and not before."""

from __future__ import annotations

import importlib
from typing import Any

from nestor.errors import MissingExtra


def need(purpose: str) -> Any:
    """The package Optuna."""
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise MissingExtra("optuna", "optuna", purpose) from error


def inside(file: str, purpose: str) -> Any:
    """A file of this room that cannot be imported without Optuna, because its classes are Optuna's children."""
    need(purpose)
    return importlib.import_module(f"nestor.optuna.{file}")
