"""`nestor study`: list, show, export and delete studies, from the command line."""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from nestor import search
from nestor.cli import _named
from nestor.cli._as_json import as_json
from nestor.errors import BadArgument


def list_all(options: argparse.Namespace) -> int:
    """`nestor study list`."""
    storage = _named.storage_of(options.storage, "nestor study list", reading=True)
    found = []
    for name in search.study_names(storage):
        study = search.load_study(study_name=name, storage=storage)
        best = study._best()
        found.append({"study": name, **_summary(study), "best": best})
    if options.json:
        print(as_json(found))
        return 0
    head = ("study", "goal", "trials", "complete", "running", "failed", "best", "created")
    rows = [
        (
            row["study"],
            ",".join(row["directions"]),
            *(str(row[name]) for name in ("trials", "complete", "running", "failed")),
            "-" if row["best"] is None else f"{row['best']:.6g}",
            _moment(row["created"]),
        )
        for row in found
    ]
    print("\n".join(_columns([head, *rows])) if rows else "no studies")
    return 0


def show(options: argparse.Namespace) -> int:
    """`nestor study show`."""
    study = _loaded(options, "nestor study show")
    summary = _summary(study)
    if options.json:
        notes = {"user_attrs": study.user_attrs, "best": _best_records(study)}
        print(as_json({"study": study.name, **summary, **notes}))
        return 0
    states = [f"{summary[state]} {state}" for state in _STATES if summary[state]]
    lines = [
        ("study", study.name),
        ("goal", ", ".join(summary["directions"])),
        ("created", _moment(summary["created"])),
        ("trials", f"{summary['trials']}" + (f" ({', '.join(states)})" if states else "")),
        *((("run by", _words(study.user_attrs["nestor"])),) if study.user_attrs.get("nestor") else ()),
        *((("nested in", f"trial {study.parent[1]} of {study.parent[0]}"),) if study.parent else ()),
    ]
    print("\n".join([*_columns(lines), *best_lines(study)]))
    if len(study.trials) and options.last:
        print("\nthe last trials:")
        last = study.trials[-options.last :]
        rows = [
            (str(trial.number), trial.state.name, _values(trial), _duration(trial), _words(trial.params))
            for trial in last
        ]
        print("\n".join(_columns([("number", "state", "value", "seconds", "parameters"), *rows])))
    return 0


def best(options: argparse.Namespace) -> int:
    """`nestor study best`."""
    study = _loaded(options, "nestor study best")
    records = _best_records(study)
    if options.json:
        print(as_json(records[0] if len(study.directions) == 1 and records else records))
    else:
        print("\n".join(best_lines(study)))
    return 0 if records else 1


def export(options: argparse.Namespace) -> int:
    """`nestor study export`."""
    study = _loaded(options, "nestor study export")
    table = options.csv or (options.out is not None and options.out.suffix == ".csv")
    try:
        if options.out is None:
            (_write_table if table else _write_lines)(study, sys.stdout)
        elif table:
            with options.out.open("w", encoding="utf-8", newline="") as file:
                _write_table(study, file)
        else:
            study.export(options.out)
    except BrokenPipeError:  # who reads it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        got, want = f"{str(options.out)!r} ({error.strerror})", "a file that can be written"
        raise BadArgument(
            "nestor study export", "--out", got=got, want=want, do="pass another path"
        ) from error
    if options.out is not None:
        print(f"{len(study.trials)} trials in {options.out}")
    return 0


def bring(options: argparse.Namespace) -> int:
    """`nestor study import`."""
    where = "nestor study import"
    storage = _named.storage_of(options.storage, where, reading=False)
    if not options.file.is_file():
        raise BadArgument(
            where, "file", got=str(options.file), want="a file that is there", do="check the path"
        )
    study = search.import_study(options.file, storage=storage, study_name=options.study)
    print(f"study '{study.name}' with {len(study.trials)} trials")
    return 0


def delete(options: argparse.Namespace) -> int:
    """`nestor study delete`."""
    where = "nestor study delete"
    study = _loaded(options, where)
    if not options.yes:
        if not sys.stdin.isatty():
            raise BadArgument(
                where, "--yes", got="missing", want="given where nobody can be asked", do="pass --yes"
            )
        answer = input(f"Delete study '{study.name}' and its {len(study.trials)} trials? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 1
    search.delete_study(
        study_name=study.name, storage=_named.storage_of(options.storage, where, reading=True)
    )
    print(f"deleted study '{study.name}'")
    return 0


def best_lines(study: Any) -> list[str]:
    """The best trial, or the front, as lines."""
    if len(study.directions) > 1:
        rows = [
            (str(trial.number), _values(trial), _words(trial.params))
            for trial in sorted(study.best_trials, key=lambda trial: trial.values)
        ]
        return _columns([("trial", "values", "parameters"), *rows]) if rows else ["no complete trial yet"]
    value = study._best()
    if value is None:
        return ["no complete trial that meets its constraints yet"]
    trial = study.best_trial
    return [f"best     {value:.10g} (trial {trial.number})"] + [
        f"  {line}" for line in _columns([(name, str(value)) for name, value in _plain(trial.params).items()])
    ]


_STATES = ("complete", "running", "waiting", "paused", "pruned", "failed")


def _loaded(options: argparse.Namespace, where: str) -> Any:
    storage = _named.storage_of(options.storage, where, reading=True)
    return search.load_study(study_name=options.study, storage=storage)


def _summary(study: Any) -> dict[str, Any]:
    counts = {state: len(study.trials_with(search.TrialState[state.upper()])) for state in _STATES}
    return {
        "directions": [str(direction) for direction in study.directions],
        "created": study.created,
        "trials": len(study.trials),
        **counts,
    }


def _best_records(study: Any) -> list[dict[str, Any]]:
    trials = (
        study.best_trials
        if len(study.directions) > 1
        else ([study.best_trial] if study._best() is not None else [])
    )
    return [
        {"number": trial.number, "values": list(trial.values), "params": _plain(trial.params)}
        for trial in trials
    ]


def _plain(params: Any) -> dict[str, Any]:
    """Parameters as JSON holds them; arrays as lists."""
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in params.items()
        if name != ""
    }


def _words(record: Any) -> str:
    text = ", ".join(f"{name} {_short(value)}" for name, value in dict(record).items())
    return text if len(text) <= 100 else text[:97] + "..."


def _short(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"array{tuple(value.shape)}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _values(trial: Any) -> str:
    return "-" if trial.values is None else ", ".join(f"{value:.6g}" for value in trial.values)


def _duration(trial: Any) -> str:
    return "-" if trial.duration is None else f"{trial.duration:.3g}"


def _moment(seconds: float | None) -> str:
    when = time.time() if seconds is None else seconds
    return datetime.datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as lines with aligned columns."""
    if not rows:
        return []
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _write_lines(study: Any, file: Any) -> None:
    for line in study.lines():
        file.write(line + "\n")


def _write_table(study: Any, file: Any) -> None:
    """All trials as comma-separated values; arrays as JSON."""
    trials = list(study.trials)
    params = list(dict.fromkeys(name for trial in trials for name in trial.params))
    notes = list(dict.fromkeys(name for trial in trials for name in trial.user_attrs))
    many = len(study.directions) > 1
    values = (
        [f"values_{k}" for k in study.metric_names or range(len(study.directions))] if many else ["value"]
    )
    names = [*(f"params_{name}" for name in params), *(f"user_attrs_{name}" for name in notes)]
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["number", "state", *values, "started", "ended", *names, "error"])
    for trial in trials:
        plain, written = _plain(trial.params), trial.user_attrs
        cells = [*(plain.get(name, "") for name in params), *(written.get(name, "") for name in notes)]
        table.writerow(
            [
                trial.number,
                trial.state.name,
                *(trial.values or [""] * len(values)),
                *("" if moment is None else moment for moment in (trial.started, trial.ended)),
                *(json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in cells),
                trial.error or "",
            ]
        )
