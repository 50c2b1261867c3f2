"""The bridge to Optuna: ours inside its studies, its own inside ours, and whole studies both ways."""

from nestor.optuna._exchange import export_study, import_study
from nestor.optuna._front import Pruner, Sampler, Storage
from nestor.optuna._theirs import OptunaPruner, OptunaSampler

__all__ = [
    "OptunaPruner",
    "OptunaSampler",
    "Pruner",
    "Sampler",
    "Storage",
    "export_study",
    "import_study",
]
