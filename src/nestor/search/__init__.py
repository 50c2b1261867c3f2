"""Black-box search: studies of trials, define-by-run, in columns, repeatable, without JAX."""

from nestor.search._callbacks import MaxTrialsCallback
from nestor.search._cma import CMASampler
from nestor.search._executors import DaskExecutor, Executor, RayExecutor
from nestor.search._following import FollowedStudy, Follower
from nestor.search._front import (
    copy_study,
    create_study,
    delete_study,
    fixed_trial,
    import_study,
    load_study,
    study_names,
)
from nestor.search._given import create_trial
from nestor.search._gp import GPSampler
from nestor.search._halving import HyperbandPruner, SuccessiveHalvingPruner
from nestor.search._importance import importance
from nestor.search._ledger import History, Ledger
from nestor.search._population import PopulationBasedTraining
from nestor.search._portfolio import PortfolioSampler
from nestor.search._pruners import (
    Curves,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    Pruner,
    ThresholdPruner,
)
from nestor.search._records import Direction, FrozenTrial, TrialPruned, TrialState
from nestor.search._register import Register
from nestor.search._samplers import Asked, GridSampler, QuasiRandomSampler, RandomSampler, Sampler
from nestor.search._spaces import Array, Categorical, Float, Int
from nestor.search._sql import SQLStorage
from nestor.search._storages import FileStorage, MemoryStorage, Storage
from nestor.search._study import Study
from nestor.search._tpe import TPESampler
from nestor.search._trial import Trial
from nestor.search._view import Trials

__all__ = [
    "Array",
    "Asked",
    "CMASampler",
    "Categorical",
    "Curves",
    "DaskExecutor",
    "Direction",
    "Executor",
    "FileStorage",
    "Float",
    "FollowedStudy",
    "Follower",
    "FrozenTrial",
    "GPSampler",
    "GridSampler",
    "History",
    "HyperbandPruner",
    "Int",
    "Ledger",
    "MaxTrialsCallback",
    "MedianPruner",
    "MemoryStorage",
    "PatientPruner",
    "PercentilePruner",
    "PopulationBasedTraining",
    "PortfolioSampler",
    "Pruner",
    "QuasiRandomSampler",
    "RandomSampler",
    "RayExecutor",
    "Register",
    "SQLStorage",
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
    "create_trial",
    "delete_study",
    "fixed_trial",
    "import_study",
    "importance",
    "load_study",
    "study_names",
]
