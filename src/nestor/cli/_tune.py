"""`nestor tune` and `nestor worker`: trials of a study, from the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from nestor import search
from nestor.cli import _named, _studies
from nestor.cli._progress import Progress
from nestor.errors import NestorError

FAILED, INTERRUPTED = 1, 130
_NOTE = "nestor"  # the note beside a study that holds how it is run
_KEPT = ("sampler", "pruner", "seed", "total")


def tune(options: argparse.Namespace) -> int:
    """`nestor tune`: make or find the study, and run trials of it."""
    where = "nestor tune"
    checked(options, where)
    objective, name = _named.objective_of(options.objective, where)
    study = search.create_study(
        storage=options.storage or os.environ.get(_named.STORAGE),
        study_name=options.study or name,
        directions=options.direction or None,
        load_if_exists=True,
    )
    return _run(study, objective, options, where)


def worker(options: argparse.Namespace) -> int:
    """`nestor worker`: join a study that is there, and run trials of it."""
    where = "nestor worker"
    checked(options, where)
    storage = _named.storage_of(options.storage, where, reading=True)
    objective, _ = _named.objective_of(options.objective, where)
    study = search.load_study(storage=storage, study_name=options.study)
    return _run(study, objective, options, where)


def _settings(study: Any, options: argparse.Namespace) -> dict[str, Any]:
    """How a study is run: what was asked for now, else what is noted beside it; a new one gets its note."""
    asked = {key: value for key in _KEPT if (value := getattr(options, key)) is not None}
    if _NOTE not in study.user_attrs:
        seed = search.RandomSampler().seed % 2**31
        study.set_user_attr(_NOTE, {"sampler": _named.SAMPLER, "seed": seed, **asked})
    return {**study.user_attrs[_NOTE], **asked}


def _run(study: Any, objective: Any, options: argparse.Namespace, where: str) -> int:
    settings = _settings(study, options)
    study.sampler = _named.sampler_of(settings.get("sampler"), settings["seed"], where)
    study.pruner = _named.pruner_of(settings.get("pruner"), where)
    total = settings.get("total") if options.trials is None else options.total
    done = sum(trial.state.is_finished for trial in study.trials)
    ends = [end for end in (total, None if options.trials is None else done + options.trials) if end]
    progress = Progress(study, min(ends, default=None), options.quiet)
    status = FAILED
    try:
        with _terminated():
            study.optimize(
                objective,
                n_trials=options.trials,
                total=total,
                timeout=options.timeout,
                n_workers=options.workers,
                ordered=options.ordered,
                catch=_named.exceptions_of(options.catch, where),
                callbacks=[progress.note],
            )
        status = 0
    except KeyboardInterrupt:
        status = INTERRUPTED
    except NestorError:
        raise
    except Exception as error:
        progress.close()
        traceback.print_exception(error)
        kind = type(error).__name__
        print(
            f"{where}: the objective raised {kind}\nDo this: mend it, or pass --catch {kind} to go on",
            file=sys.stderr,
        )
        return FAILED
    finally:
        progress.close()
    if status == INTERRUPTED:
        stays = f"the same command goes on with study '{study.name}'"
        if isinstance(study.storage, search.MemoryStorage) and where == "nestor tune":
            stays = "nothing is kept without --storage"
        print(f"{where}: interrupted; {stays}", file=sys.stderr)
    if where == "nestor tune":
        print("\n".join(_studies.best_lines(study)))
    return status


def checked(options: argparse.Namespace, where: str) -> None:
    """Refuse what cannot be made, before it is noted beside a study."""
    _named.exceptions_of(getattr(options, "catch", ()), where)
    _named.sampler_of(options.sampler, options.seed, where)
    _named.pruner_of(options.pruner, where)


def create(options: argparse.Namespace) -> int:
    """`nestor study create`: a study for workers to join."""
    where = "nestor study create"
    storage = _named.storage_of(options.storage, where, reading=False)
    checked(options, where)
    study = search.create_study(
        storage=storage,
        study_name=options.study,
        directions=options.direction or None,
        load_if_exists=options.if_missing,
    )
    _settings(study, options)
    print(study.name)
    return 0


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """Take a polite request to end (SIGTERM, of a batch system) for Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
