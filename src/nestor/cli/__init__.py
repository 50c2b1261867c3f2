"""The `nestor` command."""

from nestor.cli._command import main

__all__ = ["main"]
