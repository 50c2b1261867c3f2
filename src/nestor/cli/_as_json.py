"""JSON that every program reads."""

from __future__ import annotations

import json
import math
from typing import Any


def as_json(found: Any, indent: int | None = None) -> str:
    """JSON has no NaN and no infinity: null where a number is one."""
    return json.dumps(_finite(found), indent=indent, allow_nan=False)


def _finite(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _finite(value) for name, value in found.items()}
    if isinstance(found, list):
        return [_finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
