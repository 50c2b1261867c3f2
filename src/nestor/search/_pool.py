"""A pool of processes that ask for leave before each piece of work; it notices at once when one of them dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from nestor.errors import BadArgument, NestorError
from nestor.search._interrupts import shield


class Work(Protocol):
    """What a worker does, in a process of its own; it is pickled to get there."""

    def __call__(
        self, introduce: Callable[[str], None], leave: Callable[[], bool], done: Callable[..., None]
    ) -> None:
        """Introduce itself, then do one piece of work each time that it has leave, and say what is done."""
        ...


class Pool:
    """Processes that do `work` as long as `allow` says so.

    Args:
        work: what each of them does.
        count: how many.
        allow: asked before each piece: whether there is one more to do.
        done: called here with what a worker says it has done.
        lost: called here with the name of a worker that died; its piece is to do again.
    """

    def __init__(
        self,
        work: Work,
        count: int,
        allow: Callable[[], bool],
        done: Callable[..., None],
        lost: Callable[[str | None], None],
    ):
        self._allow, self._done, self._lost = allow, done, lost
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[multiprocessing.connection.Connection, list[Any]] = {}  # -> [process, name, busy]
        try:
            self._work = pickle.dumps(work)  # read by the worker when it can be interrupted in good order
        except Exception as error:
            raise BadArgument(
                *("optimize", "objective"),
                got=f"something that cannot be pickled ({error})",
                want="importable with n_workers > 1",
                do="define the objective at the top of a module, not as a lambda or inside a function",
            ) from error
        try:
            for _ in range(count):
                self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(there, self._work)
        )  # it may have children of its own
        with _uninterrupted():
            process.start()
        there.close()
        self._workers[here] = [process, None, False]

    def run(self) -> None:
        """Until all workers have gone home; raises what one of them raised."""
        try:
            while self._workers:
                for connection in multiprocessing.connection.wait(list(self._workers)):
                    self._hear(connection)  # type: ignore[arg-type]
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Interrupt the workers, so that they give back what they do, and wait for them."""
        for process, _, _ in self._workers.values():
            if process.is_alive() and process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
        for connection, (process, name, _) in list(self._workers.items()):
            connection.close()  # who waits for a word from here goes home too
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()
            self._lost(name)  # whatever it has not given back
        self._workers.clear()

    def _hear(self, connection: multiprocessing.connection.Connection) -> None:
        worker = self._workers[connection]
        try:
            word, said = connection.recv()
        except (EOFError, OSError):
            self._gone(connection)
            return
        if word == "name":
            worker[1] = said
        elif word == "leave":
            worker[2] = self._allow()
            try:
                connection.send(worker[2])
            except OSError:  # it died in the meantime
                self._gone(connection)
        elif word == "done":
            worker[2] = False
            self._done(*said)
        else:
            if not said[0]:
                raise NestorError(f"A worker failed:\n{said[1]}")
            error = pickle.loads(said[0])
            error.add_note(f"It was raised in a worker:\n{said[1]}")
            raise error

    def _gone(self, connection: multiprocessing.connection.Connection) -> None:
        process, name, busy = self._workers.pop(connection)
        connection.close()
        process.join()
        if process.exitcode == 0:
            return
        if name is None:
            raise NestorError(
                "A worker died before it began (its own words are above).\n"
                "Do this: protect the script's main part with `if __name__ == '__main__':`"
            )
        self._lost(name if busy else None)
        self._start()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C on a terminal reaches the workers too; one that still starts is deaf to it until it can obey."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(signum: int, frame: Any) -> None:
    """Ctrl-C counts once: the second one would fall into the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shield.handle(signum, frame)


class _Alone(BaseException):
    """Nobody listens to a worker any more."""


def _serve(connection: multiprocessing.connection.Connection, pickled: bytes) -> None:
    """The life of a worker."""

    def say(word: str, said: Any) -> None:
        try:
            connection.send((word, said))
        except OSError as error:
            raise _Alone from error

    def leave() -> bool:
        say("leave", None)
        try:
            return connection.recv()
        except (EOFError, OSError) as error:
            raise _Alone from error

    try:
        signal.signal(signal.SIGINT, _interrupted)
        work = _found(pickled)
        work(lambda name: say("name", name), leave, lambda *said: say("done", said))
    except (KeyboardInterrupt, _Alone):
        return
    except BaseException as error:
        with contextlib.suppress(KeyboardInterrupt, OSError):
            connection.send(("error", (_pickled(error), traceback.format_exc())))


def _found(pickled: bytes) -> Work:
    """The work; a worker imports what it needs by name."""
    try:
        return pickle.loads(pickled)
    except (AttributeError, ImportError) as error:
        raise NestorError(
            f"A worker could not import what it shall run: {error}.\n"
            "Do this: define the objective at the top of a module, not in a notebook or at a prompt"
        ) from error


def _pickled(error: BaseException) -> bytes:
    """An error as bytes; none where it cannot travel."""
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        return b""
    return pickled
