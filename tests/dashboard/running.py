"""A study that runs while a page looks on: `python running.py FILE TRIALS`; it ends when its standard input does."""

import sys

from nestor import search

NAME = "running <b>bold</b>"


def objective(trial: search.Trial) -> float:
    """A bowl with a conditional parameter, an array, reports, failures and pruned trials."""
    x = trial.suggest_float("x", -2, 2)
    rate = trial.suggest_float("rate", 1e-4, 1, log=True)
    kind = trial.suggest_categorical("kind", ["bowl", "ridge"])
    tilt = trial.suggest_float("tilt", 0, 1) if kind == "ridge" else 0.0
    trial.suggest_array("start", (2,), -1, 1)
    trial.set_user_attr("note", "<script>window.broken = 1</script>")
    for step in range(5):
        trial.report(x * x + 1 / (step + 1), step)
    if trial.number % 10 == 7:
        raise ValueError("<img src=x onerror='window.broken=1'> went wrong")
    if trial.number % 10 == 3:
        raise search.TrialPruned("enough")
    return x * x + rate + tilt


if __name__ == "__main__":
    study = search.create_study(
        storage=sys.argv[1], study_name=NAME, sampler=search.RandomSampler(seed=1), load_if_exists=True
    )
    for line in sys.stdin:  # so many more trials
        study.optimize(objective, n_trials=int(line), catch=ValueError)
        print(len(study.trials), repr(study.best_value), study.best_trial.number, flush=True)
