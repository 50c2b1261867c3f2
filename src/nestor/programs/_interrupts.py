"""Ctrl-C while a compiled loop runs: Python's handler has to wait for it, but a watcher of the loop need not."""

from __future__ import annotations

import os
import signal
import threading
from types import TracebackType
from typing import Any, Self


class Interrupts:
    """Inside this block Ctrl-C raises nothing; `came` says, from any thread, whether it was pressed.

    The loop holds the main thread, which alone runs Python's handlers, until it ends; what the operating system
    tells the process arrives at once through a pipe (`signal.set_wakeup_fd`), and whoever watches the loop, in a
    thread of the compiled program, can read it. Outside the main thread, or where somebody else has taken SIGINT
    or the pipe, nothing is changed and `came` is False.
    """

    def __init__(self) -> None:
        self._pressed = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._before: Any = None

    def __enter__(self) -> Self:
        """Take SIGINT."""
        mine = threading.current_thread() is threading.main_thread()
        if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return self
        ends = os.pipe()
        for end in ends:
            os.set_blocking(end, False)
        old = signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
        if old != -1:
            signal.set_wakeup_fd(old)
            for end in ends:
                os.close(end)
            return self
        self._pipe = ends
        self._before = signal.signal(signal.SIGINT, lambda *_: self._pressed.set())
        return self

    def came(self) -> bool:
        """Whether Ctrl-C was pressed in this block."""
        if self._pipe is None or self._pressed.is_set():
            return self._pressed.is_set()
        try:
            told = os.read(self._pipe[0], 64)
        except BlockingIOError:
            return False
        if signal.SIGINT in told:
            self._pressed.set()
        return self._pressed.is_set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give SIGINT back."""
        if self._pipe is None:
            return
        self.came()
        signal.signal(signal.SIGINT, self._before)
        signal.set_wakeup_fd(-1)
        for end in self._pipe:
            os.close(end)
        self._pipe = None
