"""Training runs as differentiable functions of their hyperparameters, start and data."""

from nestor.training._cost import Cost, CostTable, RunCost, predict_cost
from nestor.training._doctor import Diagnosis, Finding, diagnose
from nestor.training._front import RunHistory, StepReport, Training, train
from nestor.training._optimizers import Optimizer, adagrad, adam, adamw, leapfrog, rmsprop, sgd
from nestor.training._towers import Tuned, tuned

__all__ = [
    "Cost",
    "CostTable",
    "Diagnosis",
    "Finding",
    "Optimizer",
    "RunCost",
    "RunHistory",
    "StepReport",
    "Training",
    "Tuned",
    "adagrad",
    "adam",
    "adamw",
    "diagnose",
    "leapfrog",
    "predict_cost",
    "rmsprop",
    "sgd",
    "train",
    "tuned",
]
