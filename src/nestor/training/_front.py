"""The front function of training, and what it returns."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from nestor.errors import SolveFailed
from nestor.programs import Watcher, is_traced, register, registered
from nestor.solution import Status
from nestor.training import _checks, _resume
from nestor.training._adjoints import choose
from nestor.training._cost import RunCost, run_cost
from nestor.training._outcome import Bar, Outcome
from nestor.training._probe import current_probe
from nestor.training._run import Measured, Plan, Record, run_map

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RunHistory:
    """What was seen at every step of a run, in order.

    Outside a trace the arrays end where the run ended; inside they have one entry for each of `steps`, NaN
    after the end.

    Attributes:
        loss: of the batch, before the step; differentiable in what the run depends on (by the adjoints that
            go through the steps). The other columns are constants.
        gradient_norm: Euclidean norm of the (clipped) gradient.
        validation: validation loss after the step where it was taken, NaN elsewhere.
        hyper: the hyperparameters of the optimizer as they were used, by name.

    >>> import jax.numpy as jnp, nestor
    >>> run = nestor.train(lambda x, _: x**2, 1.0, None, optimizer=nestor.sgd(0.25), steps=3)
    >>> run.history.loss
    Array([1.    , 0.25  , 0.0625], dtype=float32)
    """

    loss: Any
    gradient_norm: Any
    validation: Any
    hyper: dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Training(Outcome):
    """The outcome of a training run; differentiable in everything the run depended on.

    Attributes:
        params: the last parameters, a tree like the one passed.
        best: those with the lowest validation loss seen; the last ones without validation.
        validation_loss: of the last parameters; NaN without validation.
        best_validation_loss: the lowest seen, a constant; infinite without validation.
        history: a `RunHistory`.
        steps: steps made (int32).
        code: of the status (int32).
        state: the optimizer's last state.
        cost: what the run took, and what its gradient takes, a `RunCost`.

    >>> import nestor
    >>> run = nestor.train(lambda x, _: (x - 1.0) ** 2, 0.0, None, optimizer=nestor.sgd(0.1), steps=100)
    >>> run.status.name, round(float(run.params), 4)
    ('FINISHED', 1.0)
    """

    params: Tree
    best: Tree
    validation_loss: Any
    best_validation_loss: Any
    history: RunHistory
    steps: Any
    code: Any
    state: Any
    cost: RunCost


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What a callback of `train` is shown.

    Attributes:
        step: number of the step just made, from 0.
        steps: how many there will be.
        loss: of its batch, before the step.
        gradient_norm: of its gradient.
        best_validation_loss: the lowest so far; infinite before the first.

    >>> import nestor
    >>> seen = []
    >>> _ = nestor.train(lambda x, _: x**2, 1.0, None, optimizer=nestor.sgd(0.25), steps=3,
    ...                  callback=lambda report: seen.append(report.loss), report_every=1)
    >>> seen
    [1.0, 0.25, 0.0625]
    """

    step: int
    steps: int
    loss: float
    gradient_norm: float
    best_validation_loss: float


def train(
    loss: Callable[..., Any],
    params: Tree,
    data: Any,
    *,
    optimizer: Any,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    key: Any = None,
    stochastic: bool = False,
    adjoint: Any = None,
    clip: Any = None,
    validation: Any = None,
    validate_every: int | None = None,
    patience: int | None = None,
    stagnation: int | None = None,
    callback: Callable[[StepReport], Any] | None = None,
    report_every: int | None = None,
    progress: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    raise_on_failure: bool = True,
) -> Training:
    """Train a model; the result is a differentiable function of everything that the run depended on.

    What the loss closes over (regularizers, weights of examples), the start, the data, the numbers in the
    optimizer and its schedules: all of them may be traced, and `jax.grad` of a function that calls `train` gives their
    hypergradient, by the chosen adjoint. Works under `jit` and `vmap`.

    Args:
        loss: ``loss(params, batch) -> scalar``, or ``loss(params, batch, key)`` with ``stochastic=True``.
        params: the start, any tree. Its floating-point arrays are trained, everything else stays as it is.
        data: a tree of arrays with a common leading axis of length n; or a function of the step number (int32)
            that returns the batch; or None for a loss that needs none.
        optimizer: `nestor.sgd`, `adagrad`, `rmsprop`, `adam`, `adamw`, `leapfrog`, or an optax transformation.
        steps, epochs: the length of the run, one of the two; an epoch is ``n // batch_size`` steps.
        batch_size: examples in a batch; None takes all of them at every step, 1 single ones.
        shuffle: draw the order anew in every epoch; False takes consecutive batches.
        key: a random key for the order and for `stochastic`; None is ``jax.random.key(0)``.
        stochastic: call the loss with a fresh key at every step (dropout, noise).
        adjoint: how derivatives cross the run: `Unroll`, `Checkpoint`, `Reversible`, `Truncate`, `OneStep`,
            `Forward`, `Implicit`, `Evolution`, `FiniteDifference`. None chooses by size: ``Checkpoint(levels=1)``
            while the stored states take less than 256 MB, else `Reversible` where the optimizer allows it,
            the length of its stack is known (no traced momentum) and there is no `patience`, else
            ``Checkpoint(slots=...)`` within those 256 MB. See `nestor.predict_cost`.
        clip: largest norm of a gradient, a number; longer ones are scaled down to it. None leaves them.
        validation: ``validation(params) -> scalar``, or data of the same kind as `data` for the loss.
        validate_every: steps between validations; None is an epoch, or a hundredth of the run if that is longer.
        patience: stop after so many validations without a new lowest one (overfitting). None never stops.
        stagnation: stop after so many steps without a new lowest batch loss. None never stops.
        callback: is shown a `StepReport` every `report_every` steps; returning a true value, or raising
            StopIteration, ends the run with the status STOPPED.
        report_every: None is a hundredth of the run.
        progress: show a progress bar.
        checkpoint: a file in which the run is saved and from which it is resumed if it is there: the numbers are
            those of a run that was never interrupted. Outside traces only.
        checkpoint_every: steps between two saves; None is a tenth of the run.
        raise_on_failure: raise `SolveFailed` if the run met NaN or infinity; inside a trace its parameters are
            then NaN. False returns the last finite parameters, with the status.

    Returns:
        A `Training`: `.params`, `.best`, `.history`, `.status`, `.validation_loss`, `.cost` ...

    Raises:
        BadArgument: an argument cannot be used; says which, its value and what to do.
        SolveFailed: the loss or its gradient became NaN or infinite; `.solution` holds the run up to there.

    Source: Maclaurin, Duvenaud, Adams 2015; Franceschi et al. 2017 for the view of a run as a function.

    >>> import jax, jax.numpy as jnp, nestor
    >>> def end(rate):
    ...     run = nestor.train(lambda x, _: x**2, 1.0, None, optimizer=nestor.sgd(rate), steps=2)
    ...     return run.params  # (1 - 2 rate)^2
    >>> round(float(jax.grad(end)(0.25)), 4)
    -2.0
    """
    settings = _checks.Settings(**{k: v for k, v in locals().items() if k not in ("loss", "params", "data")})
    plan, inputs, whole = _checks.prepare("train", loss, params, data, settings)
    traced = is_traced(inputs)
    plan = plan._replace(adjoint=choose(plan, inputs, adjoint))
    probe = current_probe()
    if probe is not None:
        plan, inputs = probe.enter(plan, inputs)
    watcher, close = _watcher(plan, settings)
    began = time.perf_counter()
    try:
        if checkpoint is not None:
            _checks.refuse_traced(traced, checkpoint)
            answer = _resume.run(plan, inputs, watcher, settings)
        elif watcher is None:
            answer = run_map(plan)(inputs)
        elif traced:  # the program outlives this call, so the registration must too
            answer = run_map(plan)(inputs._replace(watcher=jnp.int32(register(watcher))))
        else:
            with registered(watcher) as number:
                answer = run_map(plan)(inputs._replace(watcher=jnp.int32(number)))
                answer = jax.block_until_ready(answer)
    finally:
        close()
    if watcher is not None and watcher.error is not None:
        raise watcher.error
    if probe is not None:
        answer = probe.leave(plan, inputs, answer)
    if isinstance(answer.record.code, jax.core.Tracer):
        cost = run_cost(plan, inputs, math.nan)
    else:
        answer = jax.block_until_ready(answer)
        cost = run_cost(plan, inputs, time.perf_counter() - began)
    return _deliver(answer, whole, raise_on_failure, cost)


def _watcher(plan: Plan, settings: Any) -> tuple[Watcher | None, Callable[[], None]]:
    if not plan.reports:
        return None, lambda: None
    bar = Bar(plan.steps, "train") if settings.progress else None

    def report(t: Any, loss: Any, norm: Any, best: Any) -> StepReport:
        return StepReport(int(t), plan.steps, float(loss), float(norm), float(best))

    def show(report: StepReport) -> None:
        assert bar is not None
        best = (
            ""
            if np.isinf(report.best_validation_loss)
            else f" best validation={report.best_validation_loss:.4g}"
        )
        bar.show(report.step + 1, f"loss={report.loss:.4g}{best}")

    watcher = Watcher(report, settings.callback, show if bar is not None else None)
    return watcher, bar.close if bar is not None else lambda: None


def _deliver(answer: Any, whole: Callable[[Tree], Tree], raise_on_failure: bool, cost: RunCost) -> Training:
    measured: Measured = answer.value
    record: Record = answer.record
    params, best, loss = answer.x, measured.best, measured.loss
    traced = isinstance(record.code, jax.core.Tracer)
    lost = (record.code == int(Status.NOT_FINITE)) | (record.code == int(Status.OUT_OF_RANGE))
    if raise_on_failure and traced:
        params, best = jax.tree.map(
            lambda leaf: leaf * jnp.where(lost, jnp.nan, 1.0).astype(leaf.dtype), (params, best)
        )
    rows = record.rows
    history = RunHistory(loss, rows.norm, rows.validation, rows.hyper)
    if not traced:
        made = int(record.steps)
        history = jax.tree.map(lambda column: column[:made], history)
    run = Training(
        whole(params),
        whole(best),
        measured.final,
        record.best_value,
        history,
        record.steps,
        record.code,
        record.state,
        cost,
    )
    if raise_on_failure and not traced and bool(lost):
        raise SolveFailed(
            f"train: {run.status.message}\nThis was found at step "
            f"{int(record.steps) - 1}. Lower the rate, clip the gradient (clip=1.0), or guard the loss; the run up "
            "to there is in the exception's .solution, and raise_on_failure=False returns it.",
            run,
        )
    return run
