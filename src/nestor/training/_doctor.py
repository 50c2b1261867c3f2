"""The doctor: what is wrong with a hypergradient, where it began, and what to do."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import partial_eval

from nestor.adjoints import Checkpoint, Forward, Implicit, OneStep, Reversible, Truncate, Unroll
from nestor.errors import BadArgument, SolveFailed
from nestor.solution import Status
from nestor.training._adjoints import STORED, state_bytes
from nestor.training._cost import short_name
from nestor.training._cotangents import LOSS, PARAMS, STEP
from nestor.training._probe import Probe, Run, probing
from nestor.training._run import Inputs, Plan

Tree = Any

GROWTH = 1e3  # of the adjoint over a run, from which it is called chaotic
CHANGE = 0.1  # of the gradient, relative, from which a bias is worth a word
_POINTS = 10  # steps that a rate of growth is fitted to, at least
_diagnoses = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a hypergradient.

    Attributes:
        kind: "diverged", "not finite", "chaos", "zero gradient", "truncation bias" or "not converged".
        where: the hyperparameter, or the run and the step.
        text: what was seen.
        remedy: what to do.

    >>> import nestor
    >>> sick = nestor.diagnose(lambda h: h["used"] ** 2, {"used": 1.0, "unused": 2.0})
    >>> [(finding.kind, finding.where) for finding in sick.findings]
    [('zero gradient', "['unused']")]
    """

    kind: str
    where: str
    text: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; prints as a report.

    Attributes:
        value: of the objective.
        gradient: its derivative, a tree like the hyperparameters.
        findings: a tuple of `Finding`, the gravest first.
        adjoint_norms: for each run that was met, the norm of the derivative in the parameters before step t, and
            at the end, NumPy arrays of shape (steps + 1,); NaN where none passed or it was not finite.
        rates: for each run, the exponential rate at which the derivative grows from one step to the one before
            (what the objective adds there left out), fitted to all steps; NaN where there are too few.
        runs: for each run, a line about it.

    >>> import nestor
    >>> nestor.diagnose(lambda x: x**2, 3.0).healthy
    True
    """

    value: float
    gradient: Tree
    findings: tuple[Finding, ...]
    adjoint_norms: tuple[np.ndarray, ...] = ()
    rates: tuple[float, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        """A report: value and gradient, the runs, and the findings with their remedies."""
        norm = math.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in _float64(self.gradient)))
        lines = [f"Value {self.value:.6g}, norm of the gradient {norm:.4g}.", *self.runs]
        if self.healthy:
            return "\n".join([*lines, "Nothing is wrong with this gradient."])
        for i, finding in enumerate(self.findings, 1):
            lines += [
                f"{i}. {finding.kind}, {finding.where}: {finding.text}",
                f"   Do this: {finding.remedy}",
            ]
        return "\n".join(lines)


def diagnose(objective: Callable[[Tree], Any], hyper: Tree) -> Diagnosis:
    """Look into a hypergradient: what is wrong with it, where that began, and what to do.

    The objective is evaluated with its gradient, while every `nestor.train` in it reports the size of the
    derivative at each of its steps. It looks for

    - a run that met NaN or infinity, and the step;
    - a gradient that is NaN or infinite, and the step of the reverse pass where that was born;
    - chaos: a derivative that grows exponentially on the way back;
    - a gradient that is exactly zero: the hyperparameter is not used, or no derivative comes through;
    - the bias of `Truncate` and `OneStep`, by a run that is truncated at twice the length;
    - a run that has not converged under an `Implicit` adjoint, by the gradient on all data at its end, and by
      the hypergradient of a run twice as long.

    Args:
        objective: hyper -> scalar, any function that JAX can differentiate. Runs inside may be compiled.
        hyper: a tree of floating-point numbers and arrays.

    Returns:
        A `Diagnosis`; ``print`` it, or read ``.findings``. ``nestor.plots.adjoint_norms`` draws it.

    Raises:
        BadArgument: the objective does not return one number, or `hyper` holds something else than floats.

    Cost: everything is compiled for this purpose, and every step reports to Python. Runs that store little
    (`Reversible`, `Checkpoint(slots=...)`, `Unroll`) are differentiated by ``Checkpoint(levels=1)``, or 2 if they
    are long, which gives the same derivative; `Truncate` and `Implicit` need a second run.

    Source: Metz et al. 2019 for chaos; Wu et al. 2018 for truncation.

    >>> import jax.numpy as jnp, nestor
    >>> def end(start):  # |x|^1.5 has no second derivative at 0
    ...     loss = lambda x, _: jnp.abs(x) ** 1.5
    ...     return nestor.train(loss, start, None, optimizer=nestor.sgd(0.1), steps=3).params
    >>> [(finding.kind, finding.where) for finding in nestor.diagnose(end, 0.0).findings]
    [('not finite', 'run 0, step 2')]
    """
    hyper = _checked(objective, hyper)
    first = _look(objective, hyper, _same_derivative)
    findings = [*_diverged(first), *_not_finite(first), *_chaos(first)]
    if first.error is None:
        findings += _zeros(objective, hyper, first)
        findings += _truncated(objective, hyper, first)
        findings += _not_converged(objective, hyper, first)
    return Diagnosis(
        value=first.value,
        gradient=first.gradient,
        findings=tuple(findings),
        adjoint_norms=tuple(_norms(run) for run in first.runs),
        rates=tuple(_rate(run)[0] for run in first.runs),
        runs=tuple(_line(i, run) for i, run in enumerate(first.runs)),
    )


# --- looking -------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    value: float
    gradient: Tree
    runs: list[Run]
    error: Exception | None


def _checked(objective: Any, hyper: Tree) -> Tree:
    if not callable(objective):
        raise BadArgument(
            "diagnose", "objective", got=objective, want="a function hyper -> scalar", do="pass a function"
        )
    leaves, structure = jax.tree.flatten(hyper)
    arrays = []
    for leaf in leaves:
        array = jnp.asarray(leaf, float) if isinstance(leaf, float) else leaf
        if not hasattr(array, "dtype") or not jnp.issubdtype(array.dtype, jnp.floating):
            raise BadArgument(
                "diagnose",
                "hyper",
                got=leaf,
                want="a tree of floating-point numbers",
                do="let the objective close over the rest",
            )
        arrays.append(jnp.asarray(array))
    if not arrays:
        raise BadArgument("diagnose", "hyper", got=hyper, want="a tree with a number in it", do="pass one")
    return jax.tree.unflatten(structure, arrays)


def _look(objective: Any, hyper: Tree, substitute: Callable[[Plan, Inputs], Any], stretch: int = 1) -> _Look:
    """Value and gradient, with every run watched. Runs that user code compiled before are traced again."""
    probe = Probe(substitute, stretch)
    nothing = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), hyper)
    with probing(probe), set_xla_metadata(nestor_diagnosis=str(next(_diagnoses))):
        try:
            value, gradient = jax.value_and_grad(lambda h: _scalar(objective(h)))(hyper)
            value, gradient = float(value), jax.block_until_ready(gradient)
        except SolveFailed as error:
            return _Look(math.nan, nothing, probe.runs, error)
    return _Look(value, gradient, probe.runs, None)


def _scalar(value: Any) -> Any:
    array = jnp.asarray(value)
    if array.shape != () or not jnp.issubdtype(array.dtype, jnp.floating):
        raise BadArgument(
            "diagnose",
            "objective",
            got=f"a function that returns shape {array.shape}, {array.dtype}",
            want="a function that returns one floating-point number",
            do="reduce it, for example with jnp.mean(...)",
        )
    return array


def _same_derivative(plan: Plan, inputs: Inputs) -> Any:
    """An adjoint that goes through the steps as they are and gives the derivative of the one asked for."""
    if not isinstance(plan.adjoint, Reversible | Checkpoint | Unroll | Forward):
        return plan.adjoint
    slots = len(plan.rule.slots) if plan.rule is not None else 2
    return Checkpoint(levels=1 if plan.steps * state_bytes(inputs, slots) <= STORED else 2)


def _norms(run: Run) -> np.ndarray:
    norms = np.full(run.steps + 1, np.nan)
    for t, log_norm in run.norms.items():
        norms[t] = np.exp(np.minimum(log_norm, 700.0))
    return norms


def _rate(run: Run) -> tuple[float, float, float]:
    """The rate of growth a step, the factor over the steps it was fitted to, and how well it fits (R^2).

    Growth is what a step makes of the derivative that comes to it, without what enters there anew: recorded
    losses of an earlier, steeper part of a run are no chaos.
    """
    steps = sorted((t for t, log in run.through.items() if math.isfinite(log)), reverse=True)
    gains = [run.through[t] - run.norms.get(t + 1, -math.inf) for t in steps]
    growth = np.cumsum([gain for gain in gains if math.isfinite(gain)])
    if growth.size < _POINTS:
        return math.nan, math.nan, 0.0
    back = np.arange(growth.size)
    slope, offset = np.polyfit(back, growth, 1)
    spread = np.sum((growth - growth.mean()) ** 2)
    fit = 1 - np.sum((growth - slope * back - offset) ** 2) / spread if spread > 0 else 0.0
    return float(slope), float(np.exp(min(slope * growth.size, 700.0))), float(fit)


def _line(number: int, run: Run) -> str:
    rate = _rate(run)[0]
    grows = "" if math.isnan(rate) else f"; its adjoint changes by a factor {math.exp(rate):.4g} a step back"
    return f"Run {number}: {run.steps} steps, {short_name(run.asked)}{grows}."


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path) or "the hyperparameter"


# --- findings ------------------------------------------------------------------------------------------


def _diverged(look: _Look) -> list[Finding]:
    found = []
    for i, run in enumerate(look.runs):
        if run.code in (int(Status.NOT_FINITE), int(Status.OUT_OF_RANGE)):
            step = (run.made or 1) - 1
            text = f"the run itself met NaN or infinity at step {step}: {Status(run.code).message}"
            remedy = "lower the rate, clip the gradient (clip=1.0), or guard the logs, roots and divisions."
            found.append(Finding("diverged", f"run {i}, step {step}", text, remedy))
    if not found and look.error is not None:
        text = f"a solve in the objective failed: {str(look.error).splitlines()[0]}"
        remedy = "see the page 'It does not converge'."
        found.append(Finding("diverged", "the objective", text, remedy))
    elif not found and not math.isfinite(look.value):
        text = f"the objective is {look.value}, and every run in it ended well."
        remedy = 'look for an argmin that failed inside (on_failure="raise" says so), or a log of zero.'
        found.append(Finding("diverged", "the objective", text, remedy))
    return found


def _not_finite(look: _Look) -> list[Finding]:
    leaves = jax.tree_util.tree_leaves_with_path(look.gradient)
    lost = [_path(path) for path, leaf in leaves if not bool(jnp.all(jnp.isfinite(leaf)))]
    if not lost or look.error is not None or not math.isfinite(look.value):
        return []
    names = ", ".join(lost)
    found = [_born(i, run, names) for i, run in enumerate(look.runs) if run.lost]
    if found:
        return found
    text = f"the derivative in {names} is NaN or infinite, but it was finite in every step of every run."
    remedy = "look outside the runs: what makes their arguments, and what is computed from their results."
    return [Finding("not finite", "outside the runs", text, remedy)]


def _born(number: int, run: Run, names: str) -> Finding:
    step = max(t for _, t in run.lost)
    places = {PARAMS if place == STEP else place for place, t in run.lost if t == step}
    made = run.steps if run.made is None else run.made
    where = f"run {number}, step {step}"
    largest = max((log for t, log in run.norms.items() if t > step), default=-math.inf)
    if PARAMS in places and step >= made:
        where = f"run {number}, its end"
        text = f"the derivative in the trained parameters is not finite, so that in {names} is not."
        remedy = "guard what is computed from the run's result: logs, roots, norms and divisions at zero."
    elif largest > 60:
        text = f"the derivative grew to e^{largest:.0f} on the way back to this step, and overflowed."
        remedy = "see chaos: lower the rate, clip, or use nestor.Evolution()."
    elif PARAMS in places:
        text = (
            f"on the way back the derivative in the parameters was finite after step {step} and is NaN or infinite "
            f"before it; that makes {names} so."
        )
        remedy = (
            f"look at the second derivative of the loss at the parameters and batch of step {step}: a root, norm, "
            "power or division at zero, or such a thing in the branch of a jnp.where that is not taken. Guard the "
            "argument, not the result. Of an optimizer of your own: a root of a square that is zero."
        )
    else:
        what = "what the loss closes over" if LOSS in places else "the optimizer's settings"
        text = f"the derivative of step {step} in {what} is NaN or infinite; that in the parameters is not."
        remedy = f"guard the operation that reads {what}: powers, roots and logs at zero."
    return Finding("not finite", where, text, remedy)


def _chaos(look: _Look) -> list[Finding]:
    found = []
    for i, run in enumerate(look.runs):
        rate, growth, fit = _rate(run)
        if not (rate > 0 and growth > GROWTH and fit > 0.5):
            continue
        text = (
            f"the derivative grows by a factor {math.exp(rate):.3g} a step on the way back (a rate of {rate:.3g}), "
            f"{growth:.1e} over the run: a small change of the start changes the end out of all proportion. The "
            "gradient may be right, and it is useless."
        )
        remedy = (
            "lower the rate, raise the damping, clip the gradient or shorten the run; or take the slope of the "
            "smoothed objective, adjoint=nestor.Evolution(). Do not truncate: of a chaotic run even the sign of a "
            "truncated derivative can be wrong."
        )
        found.append(Finding("chaos", f"run {i}", text, remedy))
    return found


def _zeros(objective: Any, hyper: Tree, look: _Look) -> list[Finding]:
    leaves = jax.tree_util.tree_leaves_with_path(look.gradient)
    zero = [i for i, (_, leaf) in enumerate(leaves) if leaf.size and bool(jnp.all(leaf == 0))]
    if not zero:
        return []
    used = _used(objective, hyper)
    kinds = [type(run.asked) for run in look.runs]
    found = []
    for i in zero:
        moved = _moved_value(objective, hyper, i)
        if not used[i]:
            text = "the gradient is zero because the objective does not use it: no operation leads from it."
            remedy = "use it, or remove it; a default argument or an earlier computed array may stand in its place."
        elif moved == look.value:
            text = "the gradient is exactly zero, and the objective does not change when it is moved by a percent."
            remedy = "look for a flat piece: a dead ReLU, a clip, a maximum, a rounding, a weight of zero."
        else:
            text = f"the gradient is exactly zero, but moved by a percent the objective is {moved:.6g}."
            remedy = "look for a stop_gradient, an integer or a comparison on the way."
        if used[i] and Implicit in kinds:
            remedy += (
                " Implicit() sees only what the loss depends on; for rates, momenta and the start use "
                "adjoint=nestor.Checkpoint()."
            )
        if used[i] and (Truncate in kinds or OneStep in kinds):
            remedy += (
                " A truncated derivative sees the last steps only; for the start and earlier steps use "
                "adjoint=nestor.Checkpoint()."
            )
        found.append(Finding("zero gradient", _path(leaves[i][0]), text, remedy))
    return found


def _used(objective: Any, hyper: Tree) -> list[bool]:
    """For each hyperparameter whether an operation leads from it to the value."""
    jaxpr = jax.make_jaxpr(lambda h: _scalar(objective(h)))(hyper).jaxpr
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1]


def _moved_value(objective: Any, hyper: Tree, place: int) -> float:
    leaves, structure = jax.tree.flatten(hyper)
    leaf = leaves[place]
    leaves[place] = leaf + jnp.where(leaf == 0, jnp.full_like(leaf, 0.01), 0.01 * leaf).astype(leaf.dtype)
    try:
        return float(objective(jax.tree.unflatten(structure, leaves)))
    except SolveFailed:
        return math.nan


def _truncated(objective: Any, hyper: Tree, look: _Look) -> list[Finding]:
    short = [i for i, run in enumerate(look.runs) if isinstance(run.asked, Truncate | OneStep)]
    if not short or not math.isfinite(look.value):
        return []

    def twice(plan: Plan, inputs: Inputs) -> Any:
        if not isinstance(plan.adjoint, Truncate | OneStep):
            return _same_derivative(plan, inputs)
        return Truncate(min(2 * getattr(plan.adjoint, "last", 1), plan.steps))

    more = _look(objective, hyper, twice)
    change = _change(look.gradient, more.gradient)
    if change <= CHANGE:
        return []
    run = look.runs[short[0]]
    last = getattr(run.asked, "last", 1)
    text = (
        f"with {2 * last} steps differentiated instead of {last} the gradient changes by {100 * change:.0f} %. "
        "What is left out is not small."
    )
    remedy = (
        "differentiate more steps, or all of them: adjoint=nestor.Checkpoint() or nestor.Reversible(); "
        "nestor.predict_cost says what they take."
    )
    return [Finding("truncation bias", f"run {short[0]}", text, remedy)]


def _not_converged(objective: Any, hyper: Tree, look: _Look) -> list[Finding]:
    implicit = [
        (i, run) for i, run in enumerate(look.runs) if isinstance(run.asked, Implicit) and run.residuals
    ]
    if not implicit or not math.isfinite(look.value):
        return []
    try:
        longer = _look(objective, hyper, _same_derivative, stretch=2)
        change = _change(look.gradient, longer.gradient)
    except (TypeError, ValueError):  # an objective that reads every step of the history has no longer run
        change = math.nan
    found = []
    for i, run in implicit:
        assert run.residuals is not None
        first, last = run.residuals
        ratio = last / first if first > 0 else 0.0
        if not (change > CHANGE / 2 or (math.isnan(change) and ratio > CHANGE / 2)):
            continue
        moved = (
            ""
            if math.isnan(change)
            else f", and after twice as many steps it differs by {100 * change:.0f} %"
        )
        text = (
            f"Implicit() takes the run to have converged, but its gradient on all data is {last:.3g} at the end, "
            f"{ratio:.2g} times that at the start{moved}."
        )
        remedy = (
            "train longer, with a rate that decays to zero if batches are drawn; or solve with nestor.argmin; or "
            "differentiate the steps: adjoint=nestor.Checkpoint()."
        )
        found.append(Finding("not converged", f"run {i}", text, remedy))
    return found


def _float64(tree: Tree) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def _change(old: Tree, new: Tree) -> float:
    """The distance of two gradients, relative to the second."""
    pairs = list(zip(_float64(old), _float64(new), strict=True))
    size = math.sqrt(sum(float(np.sum(b**2)) for _, b in pairs))
    distance = math.sqrt(sum(float(np.sum((a - b) ** 2)) for a, b in pairs))
    return distance / size if size > 0 else (math.inf if distance > 0 else 0.0)
