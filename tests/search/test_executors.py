"""Workers on Dask and Ray; run where they are installed."""

import pytest

from nestor import search
from nestor.search import TrialState
from tests.search import objectives
from tests.search.test_study import same

quiet = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


def check(executor, tmp_path):
    seen = []
    study = search.create_study(storage=tmp_path / "s.db", sampler=search.TPESampler(seed=5, n_startup=6))
    for _ in range(2):  # the second call is not mistaken for the first
        study.optimize(
            objectives.bowl,
            n_trials=8,
            n_workers=2,
            ordered=2,
            executor=executor,
            callbacks=[lambda study, trial: seen.append(trial.number)],
        )
    alone = search.create_study(sampler=search.TPESampler(seed=5, n_startup=6))
    alone.optimize(objectives.bowl, n_trials=16, ordered=2)
    assert same(alone.trials, study.trials, times=False)
    assert sorted(seen) == list(range(16))
    with pytest.raises(KeyError, match="no such thing"):
        study.optimize(objectives.wrong, n_trials=4, n_workers=2, executor=executor)
    assert all(trial.state in (TrialState.COMPLETE, TrialState.FAILED) for trial in study.trials)


@quiet
def test_dask(tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        check(search.DaskExecutor(client), tmp_path)


@quiet
@pytest.mark.slow
def test_ray(tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        check(search.RayExecutor(), tmp_path)
    finally:
        ray.shutdown()
