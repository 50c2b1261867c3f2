"""What the demo found, as a record, a table, a few sentences and a picture."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from nestor import plots
from nestor.cli import _experiment, _stage

RECORD, PICTURE = "demo.json", "demo.png"
SINGLE, EACH = "one strength", "640 strengths"


def note_single(record: dict[str, Any], single: _experiment.Single, seconds: float) -> None:
    """Note what the grid found."""
    record["single"] = {
        "log_strength": single.log_strength,
        "grid": _experiment.GRID.tolist(),
        "validation_loss": single.validations.tolist(),
    }
    record["seconds"]["grid"] = round(seconds, 3)


def note_steps(record: dict[str, Any], steps: list[_experiment.Step], choice: int, seconds: float) -> None:
    """Note the descent, and the step that the held-out folds chose."""
    record["steps"] = steps
    record["chosen_step"] = choice
    record["log_strengths"] = steps[choice].log_strengths.tolist()
    record["seconds"]["hypergradients"] = round(seconds, 3)


def note_scores(record: dict[str, Any], judged: dict[str, Any], gain: Any, seconds: float) -> None:
    """Note losses and errors: of the single strength, of every step, and of the two refits."""
    losses, errors = ({name: np.asarray(pair[i], float) for name, pair in judged.items()} for i in (0, 1))
    place = record["chosen_step"] + 1

    def scores(model: int, refit: int) -> dict[str, Any]:
        return {
            "validation_loss": float(losses["validation"][model]),
            "validation_error": float(errors["validation"][model]),
            "test_loss": float(losses["test"][model]),
            "test_error": float(errors["test"][model]),
            "refitted_test_loss": float(losses["refitted"][refit]),
            "refitted_test_error": float(errors["refitted"][refit]),
        }

    seconds_of = record["seconds"]
    record["scores"] = {
        SINGLE: {**scores(0, 0), "hypergradient_steps": 0, "seconds": seconds_of["grid"]},
        EACH: {
            **scores(place, 1),
            "hypergradient_steps": record["chosen_step"],
            "seconds": seconds_of["hypergradients"],
        },
    }
    record["test_gain"] = {"mean": float(gain[0]), "standard_error": float(gain[1])}
    record["curves"] = {
        "validation_loss": [step.validation for step in record["steps"]],
        "held_out_loss": [step.held_out for step in record["steps"]],
        "test_loss_for_reporting_only": losses["test"][1:].tolist(),
        "hypergradient_norm": [step.gradient for step in record["steps"]],
    }
    seconds_of["scores"] = round(seconds, 3)


def table(record: dict[str, Any]) -> list[str]:
    """The lines of the table."""
    one, each = record["scores"][SINGLE], record["scores"][EACH]
    strength = record["single"]["log_strength"]
    head = f"{'':<36}{'validation':>17}{'test':>19}{'hyper-':>12}{'':>11}"
    names = f"{'L2 penalty':<36}{'loss':>8}{'error':>9}{'loss':>10}{'error':>9}{'steps':>12}{'seconds':>11}"
    rows = [
        (f"best single strength, e^{strength:g}", one),
        ("one strength per weight, 640", each),
    ]
    lines = [head, names]
    for name, row in rows:
        lines.append(
            f"{name:<36}{row['validation_loss']:8.4f}{row['validation_error']:9.1%}"
            f"{row['test_loss']:10.4f}{row['test_error']:9.1%}"
            f"{row['hypergradient_steps']:12d}{row['seconds']:11.1f}"
        )
    lines.append("the same strengths, refitted on training and validation images together:")
    for name, row in (("  best single strength", one), ("  one strength per weight", each)):
        lines.append(
            f"{name:<36}{'-':>8}{'-':>9}{row['refitted_test_loss']:10.4f}{row['refitted_test_error']:9.1%}"
        )
    return lines


def story(record: dict[str, Any]) -> list[str]:
    """What the table means, with its weak side: each line under 100 columns."""
    one, each = record["scores"][SINGLE], record["scores"][EACH]
    steps, limit = len(record["steps"]) - 1, record["settings"]["steps"]
    ended = "the limit" if steps >= limit else "no better held-out loss since"
    gained, kept = one["validation_loss"] - each["validation_loss"], one["test_loss"] - each["test_loss"]
    change = -kept / one["test_loss"]
    refit = each["refitted_test_loss"] / one["refitted_test_loss"] - 1
    lines = [
        f"Chosen: step {record['chosen_step']} of {steps} ({ended}), by the held-out folds.",
        f"Test loss: {change:+.0%} against the best single strength "
        f"({-kept:+.4f}, standard error {record['test_gain']['standard_error']:.4f}).",
    ]
    if gained > 0:
        lines += [
            f"Overfitting: the validation loss fell by {gained:.4f}, the test loss by {kept:.4f}: "
            f"{max(kept / gained, 0):.0%} of the gain is real.",
            f"The validation loss is now {each['test_loss'] - each['validation_loss']:.4f} below the test loss, "
            "and no longer says how good the model is.",
        ]
    lines.append(
        f"Refitted on all {record['sizes']['train'] + record['sizes']['validation']} images: {refit:+.0%}. "
        + (
            "Training on the validation images serves the single strength better."
            if refit > 0
            else "The strengths carry over."
        )
    )
    return lines


def times(record: dict[str, Any]) -> str:
    """Wall and CPU time in one line; the CPU time is that of the whole process, imports and compiling included."""
    wall, cpu = sum(record["seconds"].values()), time.process_time()
    return (
        f"{wall:.0f} s, and {cpu:.0f} s of CPU time with imports and compiling. "
        "(The grid's seconds include compiling what both use.)"
    )


def draw(record: dict[str, Any], folder: Path) -> Path:
    """Learning curves, the grid of single strengths, and the learned strengths, on one page."""
    from matplotlib.figure import Figure

    path = folder / PICTURE
    page: Any = Figure(figsize=(11, 9.2), dpi=120)
    page.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    upper, lower = np.ravel(page.subfigures(2, 1, height_ratios=[1, 1.12]))
    left, right = np.ravel(upper.subfigures(1, 2, width_ratios=[1.25, 1]))
    curves, one, each = record["curves"], record["scores"][SINGLE], record["scores"][EACH]
    plots.curves(
        {
            "validation (what is lowered)": curves["validation_loss"],
            "held-out folds (decide when to stop)": curves["held_out_loss"],
            "test (for this picture only)": curves["test_loss_for_reporting_only"],
        },
        levels={"test, best single strength": one["test_loss"]},
        marks={f"chosen: step {record['chosen_step']}": record["chosen_step"]},
        title="One strength per weight, step by step",
        x_label="hypergradient steps",
        y_label="cross-entropy (nats)",
        figure=left,
    )
    single = record["single"]
    plots.curves(
        {"validation, single strength": single["validation_loss"]},
        np.asarray(single["grid"]) / math.log(10),
        levels={"validation, one strength per weight": each["validation_loss"]},
        marks={f"best single: {math.exp(single['log_strength']):.1e}": single["log_strength"] / math.log(10)},
        title="One strength for all weights, by grid",
        x_label=r"$\log_{10}$ strength",
        y_label="cross-entropy (nats)",
        figure=right,
    )
    relative = (np.asarray(record["log_strengths"]) - single["log_strength"]) / math.log(10)
    plots.images(
        relative.T,
        (8, 8),
        titles=[f"digit {digit}" for digit in range(10)],
        center=0.0,
        title="The 640 learned strengths, against the single one (blue: freer weights; red: held down)",
        scale_label=r"$\log_{10}$ (strength / best single strength)",
        figure=lower,
    )
    page.savefig(path)
    return path


def write_record(record: dict[str, Any], path: Path) -> Path:
    """Write the record as JSON, whole or not at all."""
    steps = record.get("steps", [])
    plain = {key: value for key, value in record.items() if key != "steps"}
    plain.setdefault(
        "curves",
        {
            "validation_loss": [step.validation for step in steps],
            "held_out_loss": [step.held_out for step in steps],
        },
    )
    plain["steps_done"] = max(len(steps) - 1, 0)
    return _stage.write_record(plain, path)
