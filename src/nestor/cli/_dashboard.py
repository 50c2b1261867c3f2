"""`nestor dashboard`: what can be typed, and the page it opens."""

from __future__ import annotations

import argparse
from typing import Any

ABOUT = """\
Show the studies of a file (or of another storage) on a live page: trials as they come, a table to sort and
filter, pictures, one trial in detail. The page only looks: nothing can be changed through it. It works without
internet.
Needs: pip install 'nestor[dashboard]'"""

EXAMPLES = """\
examples:
  nestor dashboard study.db                 the studies of a file, at http://127.0.0.1:8080
  nestor dashboard study.db --port 0        at a free port
  nestor dashboard study.db --host 0.0.0.0  for every network of this machine; there is no password

From elsewhere, rather keep it to this machine and come by ssh -L 8080:127.0.0.1:8080 MACHINE.
Ctrl-C ends it."""


def add(rooms: Any, form: dict[str, Any]) -> Any:
    """Let the command be typed; its parser."""
    parser = rooms.add_parser(
        "dashboard",
        prog="nestor dashboard",
        help="a live page over the studies of a file",
        description=ABOUT,
        epilog=EXAMPLES,
        **form,
    )
    parser.add_argument("storage", metavar="STORAGE", help="a file of studies, or the URL of a storage")
    parser.add_argument("-h", "--help", action="help", help="print this help")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)"
    )
    parser.add_argument(
        "--port", type=_port, default=8080, metavar="N", help="port (8080); 0 takes a free one"
    )
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from nestor.dashboard import serve  # what it needs is imported when it is asked for

    serve(
        options.storage, host=options.host, port=options.port, announce=lambda line: print(line, flush=True)
    )
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a whole number from 0 to 65535")
    return int(text)
