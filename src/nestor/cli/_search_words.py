"""`nestor tune`, `nestor worker` and `nestor study`: what can be typed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

STUDY = """\
Studies of nestor.search in a file or a database: make, look at, copy out, delete."""

STUDY_EXAMPLES = """\
examples:
  nestor study create mine --storage study.db --direction maximize --sampler 'tpe(n_startup=20)'
  nestor study list --storage study.db
  nestor study show mine --storage postgresql://me:secret@host/studies
  nestor study best --storage study.db --json      NAME may be left out where there is one study
  nestor study export mine --storage study.db --out mine.csv
  nestor study import mine.jsonl --storage other.db

NESTOR_STORAGE in the environment stands for --storage."""

TUNE = """\
Run trials of an objective, a Python function that takes a trial and returns its value. With --storage the study
is kept: Ctrl-C ends it in good order, and the same command goes on with it. What the sampler, the pruner and the seed
are is noted beside a new study, so that workers and later commands use the same."""

TUNE_EXAMPLES = """\
examples:
  nestor tune train.py:objective --trials 100
  nestor tune train.py:objective --storage study.db --total 100 --workers 4
  nestor tune train.py --storage study.db --timeout 3600 --catch MemoryError,FloatingPointError
  nestor tune train.py --sampler gp --pruner 'successivehalving(1, 3, promote=True)' --seed 0 --trials 50
  nestor tune train.py --direction minimize --direction maximize --trials 200

--trials N runs N more trials; --total N goes on until the study has N. Ctrl-C (or SIGTERM) gives the trials under way
back, the best trial so far is printed, and the exit status is 130."""

WORKER = """\
Join a study that is there, and run trials of it: start as many of these as you like, on every machine that
reaches the storage. A worker that dies leaves its trial to the others."""

WORKER_EXAMPLES = """\
examples:
  nestor study create mine --storage postgresql://me:secret@host/studies --total 500
  nestor worker --study mine --storage postgresql://me:secret@host/studies train.py:objective

Where the study was made with --total, workers go home when it is full; else with --trials, --timeout or Ctrl-C."""


def add(rooms: Any, form: dict[str, Any]) -> dict[str, Any]:
    """Let the commands be typed; their parsers."""
    tune = _parser(
        rooms, form, "tune", "run trials of an objective, with a live progress line", TUNE, TUNE_EXAMPLES
    )
    _add_running(tune)
    tune.add_argument("--study", metavar="NAME", help="the study's name (the name of the file)")
    _add_storage(tune, "where the study is kept: a file, or the URL of a database (nowhere)")
    _add_goal(tune)
    _add_how(tune)
    tune.set_defaults(run=_runner("_tune", "tune"))
    worker = _parser(
        rooms, form, "worker", "run trials of a study that others work on too", WORKER, WORKER_EXAMPLES
    )
    _add_running(worker)
    worker.add_argument(
        "--study", metavar="NAME", help="the study's name (may be left out where there is one)"
    )
    _add_storage(worker)
    _add_how(worker)
    worker.set_defaults(run=_runner("_tune", "worker"))
    study = _parser(rooms, form, "study", "make, look at, copy out and delete studies", STUDY, STUDY_EXAMPLES)
    study.set_defaults(run=lambda options: study.print_help() or 0)
    jobs = study.add_subparsers(dest="job", title="what to do", metavar="")
    return {"tune": tune, "worker": worker, "study": study, **_add_jobs(jobs, form)}


def _add_jobs(jobs: Any, form: dict[str, Any]) -> dict[str, Any]:
    create = _parser(
        jobs, form, "create", "make a study for workers to join; prints its name", group="study "
    )
    create.add_argument("study", metavar="NAME", nargs="?", help="its name (one is made up)")
    _add_storage(create)
    _add_goal(create)
    _add_how(create)
    create.add_argument("--if-missing", action="store_true", help="no error where there is one of this name")
    create.set_defaults(run=_runner("_tune", "create"))
    listed = _parser(jobs, form, "list", "the studies of a storage", group="study ")
    show = _parser(jobs, form, "show", "a study: its goal, its trials, its best", group="study ")
    best = _parser(
        jobs, form, "best", "the best trial, or the front; status 1 if there is none", group="study "
    )
    export = _parser(jobs, form, "export", "a study as JSON lines, or as a table (CSV)", group="study ")
    delete = _parser(jobs, form, "delete", "delete a study and its trials", group="study ")
    for parser in (show, best, export, delete):
        parser.add_argument(
            "study", metavar="NAME", nargs="?", help="its name (may be left out where there is one)"
        )
    for parser in (listed, show, best, export, delete):
        _add_storage(parser)
    for parser in (listed, show, best):
        parser.add_argument("--json", action="store_true", help="as JSON")
    show.add_argument("--last", type=_whole, default=5, metavar="N", help="how many of the last trials (5)")
    export.add_argument("--out", type=Path, metavar="FILE", help="where to, .jsonl or .csv (to the terminal)")
    export.add_argument("--csv", action="store_true", help="a table, whatever the name of the file")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    bring = _parser(
        jobs, form, "import", "the study of a file that export wrote (JSON lines)", group="study "
    )
    bring.add_argument("file", type=Path, metavar="FILE", help="the file")
    bring.add_argument("--study", metavar="NAME", help="its name here (the one that it had)")
    _add_storage(bring)
    names = {"list": listed, "show": show, "best": best, "export": export, "delete": delete, "import": bring}
    functions = {"list": "list_all", "import": "bring"}
    for name, parser in names.items():
        parser.set_defaults(run=_runner("_studies", functions.get(name, name)))
    return {"create": create, **names}


def _parser(
    rooms: Any,
    form: dict[str, Any],
    name: str,
    line: str,
    about: str = "",
    examples: str = "",
    group: str = "",
) -> Any:
    about = about or line[0].upper() + line[1:] + "."
    parser = rooms.add_parser(
        name, prog=f"nestor {group}{name}", help=line, description=about, epilog=examples, **form
    )
    parser.add_argument("-h", "--help", action="help", help="print this help")
    return parser


def _add_running(parser: Any) -> None:
    parser.add_argument(
        "objective",
        metavar="FILE.py:FUNCTION",
        help="the objective; also package.module:function ('objective')",
    )
    parser.add_argument("--trials", type=_count, metavar="N", help="run N more trials")
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="begin no more trials after that")
    parser.add_argument("--workers", type=_count, default=1, metavar="K", help="processes (1)")
    parser.add_argument(
        "--ordered", type=_count, metavar="K", help="the same study with any number of workers up to K"
    )
    parser.add_argument(
        "--catch",
        action="append",
        default=[],
        metavar="NAMES",
        help="exceptions that fail a trial and no more",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def _add_storage(parser: Any, text: str = "a file, or the URL of a database") -> None:
    parser.add_argument("--storage", metavar="URL", help=text)


def _add_goal(parser: Any) -> None:
    parser.add_argument(
        "--direction",
        action="append",
        choices=("minimize", "maximize"),
        help="the goal (minimize); several times for several objectives",
    )


def _add_how(parser: Any) -> None:
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help="portfolio (default), tpe, gp ..., with settings: 'tpe(n_startup=20)'",
    )
    parser.add_argument(
        "--pruner", metavar="NAME", help="none (default), median, hyperband, successivehalving ..."
    )
    parser.add_argument("--seed", type=_whole, metavar="N", help="of the sampler (a new one, which is noted)")
    parser.add_argument("--total", type=_count, metavar="N", help="go on until the study has N trials")


def _runner(module: str, function: str) -> Any:
    def run(options: argparse.Namespace) -> int:
        import importlib  # --help does not wait for what the command needs

        return getattr(importlib.import_module(f"nestor.cli.{module}"), function)(options)

    return run


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds
