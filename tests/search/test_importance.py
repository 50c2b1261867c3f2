"""PED-ANOVA against SciPy's truncated normals, against closed forms, and against Optuna on the same trials."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from nestor import search
from nestor.errors import BadArgument, NestorError


def mixed(trial: search.Trial) -> float:
    """Every kind of domain; a conditional parameter, and one whose range depends on another."""
    x = trial.suggest_float("x", -5, 5)
    rate = trial.suggest_float("rate", 1e-5, 1, log=True)
    many = trial.suggest_int("many", 1, 200)
    wide = trial.suggest_int("wide", 1, 1000, log=True)
    trial.suggest_float("grid", 0, 1, step=0.25)
    trial.suggest_float("one", 1, 1)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    value = (x - 1) ** 2 + abs(math.log10(rate) + 3) + many / 100 + 0.3 * math.log(wide)
    if kind == "b":
        value += 3 * (1 - trial.suggest_float("only", 0, 1))
    return value + trial.suggest_float("moves", 0, 1 if kind == "a" else 2)


@pytest.fixture(scope="module")
def study() -> search.Study:
    study = search.create_study(sampler=search.RandomSampler(seed=1))
    study.optimize(mixed, n_trials=300)
    return study


def test_what_matters_comes_first_and_shares_add_up(study):
    found = search.importance(study)
    assert next(iter(found)) == "x"
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1)
    assert found["one"] == 0


@pytest.mark.parametrize(("quantile", "region"), [(0.1, 1.0), (0.05, 0.5)])
def test_it_is_optunas_on_the_same_trials(study, quantile, region):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna = pytest.importorskip("optuna")
        made = optuna.create_study()
        kinds = optuna.distributions
        for trial in study.trials:
            domains = {}
            for name, domain in trial.domains.items():
                if isinstance(domain, search.Float):
                    made_of = kinds.FloatDistribution(
                        domain.low, domain.high, log=domain.log, step=domain.step
                    )
                elif isinstance(domain, search.Int):
                    made_of = kinds.IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
                else:
                    made_of = kinds.CategoricalDistribution(domain.choices)
                domains[name] = made_of
            params = dict(trial.params)
            made.add_trial(optuna.trial.create_trial(params=params, distributions=domains, value=trial.value))
        judge = optuna.importance.PedAnovaImportanceEvaluator(
            target_quantile=quantile, region_quantile=region
        )
        wanted = optuna.importance.get_param_importances(made, evaluator=judge)
    found = search.importance(study, quantile=quantile, region=region)
    assert found == pytest.approx(wanted, abs=1e-12)


def density(cells: np.ndarray, count: int = 50) -> np.ndarray:
    """The Parzen estimate on a grid by SciPy: one truncated normal an occupied cell, a wide one besides."""
    centres, weights = np.unique(cells, return_counts=True)
    every = np.repeat(centres, weights)
    deviation = np.std(every, ddof=1) if len(every) > 1 else 0.0
    lower = centres[np.searchsorted(np.cumsum(weights), len(every) // 4)]
    place = np.searchsorted(np.cumsum(weights), len(every) * 3 // 4, side="right")
    upper = centres[min(place, len(centres) - 1)]
    width = max(1.059 * min((upper - lower) / 1.34, deviation) * len(every) ** -0.2, 0.5 / 1.64)
    edges = np.arange(count + 1) - 0.5
    total = np.zeros(count)
    for centre, scale, weight in [
        *((c, width, w) for c, w in zip(centres, weights, strict=True)),
        ((count - 1) / 2, count, 1),
    ]:
        bounds = (edges[0] - centre) / scale, (edges[-1] - centre) / scale
        total += weight * np.diff(stats.truncnorm.cdf(edges, *bounds, loc=centre, scale=scale))
    return total / (len(every) + 1)


def test_the_shares_are_divergences_of_densities():
    study = search.create_study(direction="maximize", sampler=search.RandomSampler(seed=5))
    study.optimize(
        lambda trial: trial.suggest_float("a", -1, 1) + 0.5 * trial.suggest_float("b", 0, 1) ** 2,
        n_trials=120,
    )
    values = np.array([trial.value for trial in study.trials])
    best = values >= np.sort(values)[-12]
    wanted = {}
    for name, low, high in (("a", -1, 1), ("b", 0, 1)):
        cells = np.round((np.array([t.params[name] for t in study.trials]) - low) / (high - low) * 49).astype(
            int
        )
        p, q = density(cells[best]), density(cells)
        wanted[name] = np.sum(q * (p / q - 1) ** 2)
    total = sum(wanted.values())
    found = search.importance(study)
    assert found == pytest.approx({name: value / total for name, value in wanted.items()}, rel=1e-6)


def test_choices_in_closed_form():
    """Of 40 trials the best 20 have: one choice alone, three quarters of one, as many of both."""
    study = search.create_study()
    domain = search.Categorical(("a", "b"))
    names = ("all", "most", "even")
    for k in range(40):
        best = k < 20
        choices = ("ab"[not best], "ab"[k % 4 == 0 if best else k % 4 != 0], "ab"[k % 2])
        params = dict(zip(names, choices, strict=True))
        ended = (0, search.TrialState.COMPLETE, (float(k),), params, dict.fromkeys(names, domain))
        study.add_trial(search.FrozenTrial(*ended, {}, {}, None, None, None, 1.0, 2.0, 1))
    # A kernel on one of c choices that occur weighs it (1 + f) : f, with f = 1 / (c + 1); a flat one is added.
    alone = (20 * 0.75 + 0.5) / 21
    most = (15 * 0.8 + 5 * 0.2 + 0.5) / 21
    divergences = [(2 * alone - 1) ** 2, (2 * most - 1) ** 2, 0.0]
    wanted = dict(zip(names, np.array(divergences) / sum(divergences), strict=True))
    assert search.importance(study, quantile=0.5) == pytest.approx(wanted, abs=1e-12)


def test_an_array_counts_as_the_mean_of_its_entries():
    arrays, floats = (search.create_study(sampler=search.RandomSampler(seed=2)) for _ in range(2))
    for _ in range(60):
        trial = arrays.ask()
        y, w = trial.suggest_float("y", -1, 1), trial.suggest_array("w", (2,), -1, 1)
        arrays.tell(trial, w[0] ** 2 + 0.5 * y**2)
        same = search.Float(-1, 1)
        other = floats.ask()
        floats.add_trial(
            search.FrozenTrial(
                *(0, search.TrialState.COMPLETE, (w[0] ** 2 + 0.5 * y**2,)),
                *({"y": y, "u": w[0], "v": w[1]}, {"y": same, "u": same, "v": same}),
                *({}, {}, None, None, None, 1.0, 2.0, 1),
            )
        )
        floats.tell(other, state=search.TrialState.FAILED)
    whole, parts = search.importance(arrays), search.importance(floats)
    assert whole["w"] / whole["y"] == pytest.approx((parts["u"] + parts["v"]) / 2 / parts["y"])


def test_several_objectives():
    study = search.create_study(directions=["minimize", "maximize"], sampler=search.RandomSampler(seed=0))
    study.optimize(
        lambda trial: (trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0, 1)), n_trials=200
    )
    assert search.importance(study, objective=0)["a"] > 0.9
    assert search.importance(study, objective=1)["b"] > 0.9
    both = search.importance(study)
    assert 0.2 < both["a"] < 0.8


def test_what_cannot_be_compared_is_refused(study):
    with pytest.raises(NestorError, match="0 complete trials"):
        search.importance(search.create_study())
    for wrong in ({"quantile": 0.0}, {"quantile": 0.5, "region": 0.5}, {"region": 1.5}, {"objective": 1}):
        with pytest.raises(BadArgument):
            search.importance(study, **wrong)
    flat = search.create_study()
    flat.optimize(lambda trial: 0.0 * trial.suggest_float("x", 0, 1), n_trials=5)
    assert search.importance(flat) == {"x": 0.0}
