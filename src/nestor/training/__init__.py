"""Training runs as differentiable functions of their hyperparameters, start and data."""

from nestor.training._adjoints import with_room
from nestor.training._batches import Batches
from nestor.training._checks import (
    check_arity,
    check_callback,
    check_scalar,
    needs_validation,
    prepare_batches,
    prepare_clip,
    prepare_data,
    prepare_optimizer,
    random_key,
    trained_part,
)
from nestor.training._cost import Cost, CostTable, RunCost, predict_cost
from nestor.training._doctor import Diagnosis, Finding, diagnose
from nestor.training._front import RunHistory, StepReport, Training, train
from nestor.training._optimizers import Optimizer, adagrad, adam, adamw, leapfrog, rmsprop, sgd
from nestor.training._outcome import Bar, Outcome
from nestor.training._resume import load_state, save_state, signature
from nestor.training._run import clipped
from nestor.training._towers import Tuned, advance_optimizer, begin_optimizer, tuned
from nestor.training._watching import with_best, with_status

__all__ = [
    "Bar",
    "Batches",
    "Cost",
    "CostTable",
    "Diagnosis",
    "Finding",
    "Optimizer",
    "Outcome",
    "RunCost",
    "RunHistory",
    "StepReport",
    "Training",
    "Tuned",
    "adagrad",
    "adam",
    "adamw",
    "advance_optimizer",
    "begin_optimizer",
    "check_arity",
    "check_callback",
    "check_scalar",
    "clipped",
    "diagnose",
    "leapfrog",
    "load_state",
    "needs_validation",
    "predict_cost",
    "prepare_batches",
    "prepare_clip",
    "prepare_data",
    "prepare_optimizer",
    "random_key",
    "rmsprop",
    "save_state",
    "sgd",
    "signature",
    "train",
    "trained_part",
    "tuned",
    "with_best",
    "with_room",
    "with_status",
]
