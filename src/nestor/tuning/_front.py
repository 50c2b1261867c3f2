"""`tune`: one call that poses a function of hyperparameters as a study, and runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nestor.errors import BadArgument
from nestor.search import GPSampler, Pruner, Sampler, Study, create_study
from nestor.settings import as_optional_count
from nestor.tuning._sampler import DescentSampler
from nestor.tuning._trials import FAILURES, Batched, Differentiated


def tune(
    objective: Callable[..., Any],
    space: Any,
    *,
    choices: Any = None,
    n_trials: int | None = None,
    timeout: float | None = None,
    direction: str = "minimize",
    gradient: bool = True,
    refine: int = 1,
    noted: bool = False,
    batch: int | None = None,
    sampler: Sampler | None = None,
    pruner: Pruner | None = None,
    seed: int | None = None,
    storage: Any = None,
    study_name: str | None = None,
    catch: type[Exception] | Iterable[type[Exception]] = FAILURES,
    callbacks: Sequence[Callable[..., Any]] = (),
    progress: bool = False,
) -> Study:
    """Tune hyperparameters by search that follows exact hypergradients.

    Each trial is one call of the objective, which gives its value and its exact gradient by all continuous
    hyperparameters; samplers learn from both. What has no derivative is chosen by search in the same study.

    Args:
        objective: ``objective(hyper) -> scalar``, or with choices ``objective(hyper, picked) -> scalar``: a function
            that JAX can trace and differentiate in `hyper`, a tree like `space` of JAX's default float type. What it
            solves or trains inside (`nestor.argmin`, `nestor.train`) is differentiated by its adjoint.
        space: a tree whose leaves are `search.Float`, `search.Array`, ``(low, high)`` or ``(low, high, "log")``; or
            a function of the picked values that returns one.
        choices: name to `search.Categorical`, `search.Int` or a stepped `search.Float`, or a function of the trial
            that returns a dictionary; None for nothing. The objective is compiled once a combination.
        n_trials: how many trials the study is to have in all. Those that a storage holds already count, so the same
            call goes on with what was interrupted. None for as many as time and sampler allow.
        timeout: seconds after which no more trials begin.
        direction: ``"minimize"`` or ``"maximize"``.
        gradient: False searches without gradients.
        refine: evaluations in a trial; with more than 1, each trial descends from what it was given. See
            `Differentiated`.
        noted: whether the objective returns ``(scalar, notes)``; see `Differentiated`.
        batch: run so many trials as one vmapped program; see `Batched`. None for one by one.
        sampler: any sampler of `nestor.search`. None is `DescentSampler`, or without gradients `search.GPSampler`.
        pruner: ends trials early that refine; see `search.MedianPruner`.
        seed: of the sampler; with it the study is repeatable.
        storage: None for memory, or a file that the study is kept in and resumed from; see `search.create_study`.
        study_name: its name in the storage. One that is there is gone on with.
        catch: exceptions that fail a trial, with the reason in its record; others also end the tuning. A value that
            is not finite is always a failure.
        callbacks: each called with the study and the record of a trial that has just ended.
        progress: whether to show a progress bar.

    Returns:
        The `search.Study`: `.best_params`, `.best_value`, `.trials`, ...

    Raises:
        BadArgument: an argument cannot be used.

    >>> import jax.numpy as jnp
    >>> from nestor import tuning
    >>> def validation_loss(hyper):
    ...     return (jnp.log10(hyper["rate"]) + 2) ** 2 + (hyper["scale"] - 0.3) ** 2
    >>> study = tuning.tune(
    ...     validation_loss, {"rate": (1e-5, 1.0, "log"), "scale": (0.0, 1.0)}, n_trials=15, seed=0)
    >>> study.best_value < 1e-3, round(study.best_params["scale"], 1)
    (True, 0.3)

    Source: the gradients: Pedregosa, Hyperparameter optimization with approximate gradient, ICML 2016; Franceschi et
    al., ICML 2017.
    """
    if n_trials is None and timeout is None:
        raise BadArgument("tune", "n_trials", got=None, want="given, or timeout=", do="pass n_trials=50")
    n_trials = as_optional_count("tune", "n_trials", n_trials)
    if batch is not None and refine != 1:
        raise BadArgument("tune", "batch", got=batch, want="None with refine", do="drop one of the two")
    posed: Any
    if batch is None:
        posed = Differentiated(objective, space, choices, gradient=gradient, refine=refine, noted=noted)
    else:
        posed = Batched(objective, space, choices, gradient=gradient, noted=noted, catch=catch)
    study = create_study(
        storage=storage,
        study_name=study_name,
        direction=direction,
        sampler=sampler or (DescentSampler(seed) if gradient else GPSampler(seed)),
        pruner=pruner,
        load_if_exists=True,
    )
    study.optimize(
        posed,
        total=n_trials,
        timeout=timeout,
        catch=catch,
        callbacks=callbacks,
        progress=progress,
        batch=batch,
    )
    return study
