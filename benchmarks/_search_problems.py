"""Problems for the benchmarks of samplers: with their minima, and where they are smooth with their gradients."""

import math

import numpy as np

HARTMANN = (
    np.array([1.0, 1.2, 3.0, 3.2]),
    np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    ),
    1e-4
    * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    ),
)


def branin(point):
    x, y = point
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    u = y - b * x * x + c * x - 6
    value = u * u + 10 * (1 - t) * math.cos(x) + 10
    return value, np.array([2 * u * (c - 2 * b * x) - 10 * (1 - t) * math.sin(x), 2 * u])


def hartmann(point):
    weights, curvatures, centres = HARTMANN
    away = np.asarray(point) - centres
    terms = weights * np.exp(-(curvatures * away * away).sum(axis=1))
    return -terms.sum(), 2.0 * (terms[:, None] * curvatures * away).sum(axis=0)


def rosenbrock(point):
    x = np.asarray(point)
    rise, rest = x[1:] - x[:-1] ** 2, 1.0 - x[:-1]
    slope = np.zeros_like(x)
    slope[:-1] = -400.0 * rise * x[:-1] - 2.0 * rest
    slope[1:] += 200.0 * rise
    return float((100.0 * rise * rise + rest * rest).sum()), slope


def ellipsoid(point):
    away, weights = np.asarray(point) - 0.3, np.logspace(0, 3, 10)
    return float((weights * away * away).sum()), 2.0 * weights * away


SMOOTH = {
    "Branin": (branin, [(-5.0, 10.0), (0.0, 15.0)], 0.39788735772973816),
    "Hartmann-6": (hartmann, [(0.0, 1.0)] * 6, -3.322368011415515),
    "Rosenbrock-5": (rosenbrock, [(-2.0, 2.0)] * 5, 0.0),
    "Ellipsoid-10": (ellipsoid, [(-1.0, 1.0)] * 10, 0.0),
}


def conditional(trial):
    """Three kinds of model with parameters of their own; the best is a net, at 0."""
    kind = trial.suggest_categorical("kind", ["linear", "forest", "net"])
    if kind == "linear":
        return 0.30 + 0.02 * abs(math.log10(trial.suggest_float("strength", 1e-5, 10.0, log=True)) + 2)
    if kind == "forest":
        depth, share = trial.suggest_int("depth", 1, 20), trial.suggest_float("share", 0.1, 1.0)
        return 0.15 + 0.01 * abs(depth - 9) + 0.5 * (share - 0.4) ** 2
    rate = math.log10(trial.suggest_float("rate", 1e-5, 1.0, log=True))
    width, layers = trial.suggest_int("width", 8, 512, log=True), trial.suggest_int("layers", 1, 4)
    loss = {"relu": 0.02, "tanh": 0.05, "gelu": 0.0}[
        trial.suggest_categorical("activation", ["relu", "tanh", "gelu"])
    ]
    loss += 0.12 * min((rate + 2.5 + 0.3 * (layers - 2)) ** 2, 4.0) + 0.0125 * math.log2(width / 100) ** 2
    return loss + 0.03 * abs(layers - 3) + 0.4 * (trial.suggest_float("dropout", 0.0, 0.6) - 0.2) ** 2


def suggest(trial, box):
    """A point of a box, coordinate by coordinate."""
    return [trial.suggest_float(f"x{place}", *ends) for place, ends in enumerate(box)]


def regret(name):
    """An objective for a study of ours or of Optuna's: the value less the minimum."""
    if name == "conditional":
        return conditional
    function, box, least = SMOOTH[name]
    return lambda trial: float(function(suggest(trial, box))[0] - least)
