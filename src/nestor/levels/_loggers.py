"""Where the measurements of a run go: anything with one verb."""

from __future__ import annotations

import csv
import importlib
import math
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nestor.errors import BadArgument, MissingExtra


@runtime_checkable
class Logger(Protocol):
    """What `Graph.run` tells its measurements to. A `close()` is called at the end of a run, if there is one."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take the measurements after an outer step: numbers by names such as "weights/loss"."""
        ...


class CSVLogger:
    """Measurements as rows of a CSV file, flushed as they come; an existing file is continued.

    Args:
        path: of the file; folders are made.

    Raises:
        BadArgument: at the first row, where the file has columns for other measurements.

    >>> import nestor, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = nestor.levels.CSVLogger(f"{folder}/run.csv")
    ...     log.log(1, {"top/loss": 0.5})
    ...     log.close()
    ...     pathlib.Path(f"{folder}/run.csv").read_text().split()
    ['step,top/loss', '1,0.5']
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file: Any = None
        self._names: list[str] = []

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write a row; what was not measured is left empty. The first row fixes the columns."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._names = self._header() or list(metrics)
            lost = [name for name in metrics if name not in self._names]
            if lost:
                raise BadArgument(
                    "CSVLogger",
                    "path",
                    got=f"{str(self.path)!r}, a file that has no column {lost[0]!r}",
                    want="a new file, or one that this graph was logged to",
                    do="pass another file name",
                )
            new = not self.path.exists() or self.path.stat().st_size == 0
            self._file = self.path.open("a", newline="")
            if new:
                csv.writer(self._file).writerow(["step", *self._names])
        row = [metrics.get(name, math.nan) for name in self._names]
        csv.writer(self._file).writerow([step, *("" if math.isnan(v) else repr(v) for v in row)])
        self._file.flush()

    def _header(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return next(csv.reader(file), ["step"])[1:]

    def close(self) -> None:
        """Close the file; a later row opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoardLogger:
    """Measurements as TensorBoard scalars; needs ``pip install 'nestor[tensorboard]'``.

    Args:
        folder: where the event files go.

    Raises:
        MissingExtra: tensorboardX is not installed.

    >>> import nestor
    >>> nestor.levels.TensorBoardLogger.__name__
    'TensorBoardLogger'
    """

    def __init__(self, folder: str | Path):
        try:
            board = importlib.import_module("tensorboardX")
        except ImportError as error:
            raise MissingExtra("tensorboardX", "tensorboard", "TensorBoardLogger") from error
        self._writer = board.SummaryWriter(str(folder))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write the scalars that were measured."""
        for name, value in metrics.items():
            if not math.isnan(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()
