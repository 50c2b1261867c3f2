"""Black-box search: studies of trials, define-by-run, in columns, repeatable, without JAX."""

from nestor.search._cma import CMASampler
from nestor.search._front import (
    copy_study,
    create_study,
    delete_study,
    import_study,
    load_study,
    study_names,
)
from nestor.search._gp import GPSampler
from nestor.search._population import PopulationBasedTraining
from nestor.search._portfolio import PortfolioSampler
from nestor.search._pruners import (
    HyperbandPruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    Pruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from nestor.search._records import Direction, FrozenTrial, TrialPruned, TrialState
from nestor.search._samplers import GridSampler, QuasiRandomSampler, RandomSampler, Sampler
from nestor.search._spaces import Array, Categorical, Float, Int
from nestor.search._storages import FileStorage, MemoryStorage, Storage
from nestor.search._study import Study
from nestor.search._tpe import TPESampler
from nestor.search._trial import Trial
from nestor.search._view import Trials

__all__ = [
    "Array",
    "CMASampler",
    "Categorical",
    "Direction",
    "FileStorage",
    "Float",
    "FrozenTrial",
    "GPSampler",
    "GridSampler",
    "HyperbandPruner",
    "Int",
    "MedianPruner",
    "MemoryStorage",
    "PatientPruner",
    "PercentilePruner",
    "PopulationBasedTraining",
    "PortfolioSampler",
    "Pruner",
    "QuasiRandomSampler",
    "RandomSampler",
    "Sampler",
    "Storage",
    "Study",
    "SuccessiveHalvingPruner",
    "TPESampler",
    "ThresholdPruner",
    "Trial",
    "TrialPruned",
    "TrialState",
    "Trials",
    "copy_study",
    "create_study",
    "delete_study",
    "import_study",
    "load_study",
    "study_names",
]
