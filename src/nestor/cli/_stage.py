"""What every demo does around its experiment: its packages, folder, progress, clock and record."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nestor.cli._as_json import as_json
from nestor.errors import BadArgument, MissingExtra

INTERRUPTED = 130  # the shell's word for: ended by Ctrl-C


class Ending(NamedTuple):
    """What a demo came to.

    Attributes:
        table: its lines, which are printed even if quiet.
        story: what the table means, line by line.
        draw: (record, folder) -> the path of the picture.
    """

    table: list[str]
    story: list[str]
    draw: Callable[[dict[str, Any], Path], Path]


def seconds_in_all(record: dict[str, Any]) -> str:
    """The last line of most demos."""
    return f"{sum(record['seconds'].values()):.0f} s, compiling included."


def staged(
    experiment: Callable[[argparse.Namespace, dict[str, Any]], Ending],
    options: argparse.Namespace,
    *,
    command: str,
    file: str,
    write: Callable[[dict[str, Any], Path], Path] | None = None,
    settings: Mapping[str, Any] | None = None,
    last_words: Callable[[dict[str, Any]], str] = seconds_in_all,
) -> int:
    """A whole demo; the exit status.

    Args:
        experiment: (options, record) -> its `Ending`; it fills the record as it goes.
        options: `steps`, `seed`, `train_size`, `out` (a path or None), `picture` and `quiet`.
        command: as it is typed.
        file: the name of the record.
        write: (record, path) -> the path; None is `write_record`. Ctrl-C writes what there is.
        settings: what is noted beside the options.
        last_words: record -> the last line.
    """
    written = write or write_record
    _require("sklearn", "scikit-learn", "the data of the demo")
    if options.picture:
        _require("matplotlib", "matplotlib", "the picture of the demo (or pass --no-picture)")
    folder = _results_folder(options.out, file)
    given = {"seed": options.seed, "train_size": options.train_size, "steps": options.steps}
    record: dict[str, Any] = {
        "command": command,
        "versions": {name: importlib.metadata.version(name) for name in ("nestor", "jax", "scikit-learn")},
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": {**given, **(settings or {})},
        "interrupted": None,
        "seconds": {},
    }
    try:
        _finish(experiment(options, record), options, record, folder / file, written)
        speaker(options.quiet)(last_words(record))
    except KeyboardInterrupt:
        record["interrupted"] = True
        path = written(record, folder / file)
        print(f"{command}: interrupted; what there was is in {path}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _finish(
    ending: Ending,
    options: argparse.Namespace,
    record: dict[str, Any],
    path: Path,
    write: Callable[[dict[str, Any], Path], Path],
) -> None:
    """Tell what came out, draw it, and write the record."""
    say, lap = speaker(options.quiet), stopwatch()
    say("")
    print("\n".join(ending.table))
    say("")
    say("\n".join(ending.story))
    if options.picture:
        record["picture"] = str(ending.draw(record, path.parent))
        record["seconds"]["picture"] = round(lap(), 3)
    record["interrupted"] = False
    write(record, path)
    say("")
    print(f"Wrote {path}" + (f" and {Path(record['picture']).name}" if options.picture else ""))


def followed(
    steps: Iterable[Any], title: str, total: int, words: Callable[[Any], str], quiet: bool
) -> Iterator[Any]:
    """Progress: a bar on a terminal, a line every ten steps elsewhere, nothing if quiet."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    form = "{desc:>16} {n_fmt:>2}/{total_fmt} [{elapsed}] {bar:12} {postfix}"
    with tqdm(
        total=total,
        desc=title,
        disable=quiet or not terminal,
        bar_format=form,
        ncols=min(99, shutil.get_terminal_size((99, 20)).columns - 1),
        nrows=20,
        postfix="the first compiles",
    ) as bar:
        for number, step in enumerate(steps):
            yield step  # before it is shown: what was seen is also in the record after Ctrl-C
            bar.set_postfix_str(words(step), refresh=False)
            bar.update(1)
            if not (quiet or terminal) and number % 10 == 0:
                print(f"{title:>16} {number:3d}: {words(step)}", flush=True)


def _require(module: str, package: str, purpose: str) -> None:
    """Refuse to begin without a package."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(package, "demo", purpose)


def _results_folder(out: Path | None, record: str) -> Path:
    """The folder of the results, made before anything is computed."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"demo-{stamp}" if out is None else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / record
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadArgument(
            "nestor demo",
            "--out",
            got=f"{str(folder)!r} ({error.strerror})",
            want="a folder that can be made and written",
            do="pass another folder, for example --out runs/demo",
        ) from error
    return folder


def speaker(quiet: bool) -> Callable[[str], None]:
    """A print that says nothing if quiet."""
    return (lambda text: None) if quiet else (lambda text: print(text, flush=True))


def stopwatch() -> Callable[[], float]:
    """A function that gives the seconds since it was last called."""
    clock = time.perf_counter()

    def lap() -> float:
        nonlocal clock
        before, clock = clock, time.perf_counter()
        return clock - before

    return lap


def write_record(record: dict[str, Any], path: Path) -> Path:
    """Write a record as JSON, whole or not at all."""
    plain = {**record, "device": jax.devices()[0].platform, "cpu_seconds": round(time.process_time(), 3)}
    draft = path.with_suffix(".partial")
    draft.write_text(as_json(plain, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)
    return path
