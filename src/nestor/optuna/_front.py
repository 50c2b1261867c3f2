"""What is ours, handed to Optuna."""

from __future__ import annotations

from typing import Any

from nestor import search
from nestor.errors import BadArgument
from nestor.optuna._need import inside


class Storage:
    """A storage of Nestor as a storage of Optuna: its studies, plots and dashboard open ours, and ours open its.

    Both libraries can work on one study at the same time. What Optuna's record has no field for becomes a note in
    ``system_attrs`` (``nestor:error``, ``nestor:gradient``, ``nestor:paused``); an array of at most 256 entries
    becomes a parameter an entry, ``w[0,1]``. A running trial whose worker is dead shows up among those that wait,
    so that `optuna.Study.optimize` runs it again.

    Args:
        storage: None for memory, a path or ``"sqlite:///path"`` for a file, or any other storage of
            `nestor.search` (not a database of Optuna's: see `import_study`).

    Returns:
        An ``optuna.storages.BaseStorage``. It can be shared by threads and pickled as its storage can.

    Raises:
        MissingExtra: Optuna is not installed.

    Cost: a finished trial is made into Optuna's record once, and kept.

    >>> import optuna, nestor.optuna
    >>> from nestor import search
    >>> storage = search.MemoryStorage()
    >>> ours = search.create_study(storage=storage, study_name="mine", sampler=search.TPESampler(seed=0))
    >>> ours.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=20)
    >>> theirs = optuna.load_study(study_name="mine", storage=nestor.optuna.Storage(storage))
    >>> theirs.best_value == ours.best_value
    True
    """

    def __new__(cls, storage: Any = None) -> Any:
        """The storage, a child of Optuna's class."""
        return inside("_stored", "nestor.optuna.Storage").NestorStorage(search.Register(storage))


class Sampler:
    """A sampler of Nestor as a sampler of Optuna.

    Args:
        sampler: for example ``search.TPESampler(seed=0)``. Being a function of seed, number and history, it makes
            a study of Optuna's repeatable, when interrupted and resumed as well.

    Returns:
        An ``optuna.samplers.BaseSampler``. It learns from what the study holds, pruned and failed trials and
        constraints included, for one or several objectives; a sampler with a last point stops the study there.

    Raises:
        BadArgument: it is not a sampler of Nestor.
        MissingExtra: Optuna is not installed.

    Cost: where the study is in a storage that is not `Storage`, its trials are copied into columns, each once.

    >>> import optuna, nestor.optuna
    >>> from nestor import search
    >>> study = optuna.create_study(sampler=nestor.optuna.Sampler(search.TPESampler(seed=0)))
    >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=40)
    >>> study.best_value < 0.01
    True
    """

    def __new__(cls, sampler: Any) -> Any:
        """The sampler, a child of Optuna's class."""
        _check("Sampler", "sampler", sampler, "search.TPESampler(seed=0)")
        return inside("_ours", "nestor.optuna.Sampler").NestorSampler(sampler)


class Pruner:
    """A pruner of Nestor as a pruner of Optuna. A trial that would pause is pruned: Optuna promotes none.

    Args:
        pruner: for example ``search.MedianPruner()``.

    Returns:
        An ``optuna.pruners.BasePruner``.

    Raises:
        BadArgument: it is not a pruner of Nestor.
        MissingExtra: Optuna is not installed.

    >>> import optuna, nestor.optuna
    >>> from nestor import search
    >>> study = optuna.create_study(pruner=nestor.optuna.Pruner(search.ThresholdPruner(upper=1.0)))
    >>> trial = study.ask()
    >>> trial.report(2.0, step=0)
    >>> trial.should_prune()
    True
    """

    def __new__(cls, pruner: Any) -> Any:
        """The pruner, a child of Optuna's class."""
        _check("Pruner", "pruner", pruner, "search.MedianPruner()")
        return inside("_ours", "nestor.optuna.Pruner").NestorPruner(pruner)


def _check(where: str, name: str, thing: Any, example: str) -> None:
    if isinstance(thing, type) or not callable(thing):
        want = f"a {name} of nestor.search"
        raise BadArgument(f"nestor.optuna.{where}", name, got=thing, want=want, do=f"pass {example}")
