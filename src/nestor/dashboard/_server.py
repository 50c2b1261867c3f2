"""The server of the page: a few addresses that can be read, and none that can be written to."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.resources
import json
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nestor.dashboard import _replies
from nestor.errors import BadArgument, MissingExtra, NestorError
from nestor.search import FollowedStudy, Follower, Storage

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_HEADERS = {
    # The page runs its own scripts and nothing else; what a study holds is text, never a script.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_EVERYWHERE = ("0.0.0.0", "::", "")


def serve(
    storage: Any, *, host: str = "127.0.0.1", port: int = 8080, announce: Callable[[str], Any] = print
) -> None:
    """Show the studies of a storage on a live page, until Ctrl-C.

    The page only looks: nothing of a study can be changed through it. It needs no internet. There is no password:
    whoever reaches the port sees the studies, so by default only this machine does.

    Args:
        storage: a file that is there, ``"sqlite:///path"``, another URL that `create_study` takes, or a storage.
        host: the address to listen at; ``"0.0.0.0"`` for every network of the machine.
        port: the port, from 0 to 65535; 0 takes a free one.
        announce: called once with a line that says where the page is.

    Raises:
        BadArgument: there is no such file, or the port is out of range. MissingExtra: starlette or uvicorn is not
        installed. NestorError: the port is taken, or the address is none of this machine.

    >>> from nestor import dashboard
    >>> dashboard.serve("no-such-file.db")
    Traceback (most recent call last):
      ...
    nestor.errors.BadArgument: dashboard: argument 'storage' is no-such-file.db; it must be a file that is there.
    Do this: give the path of a study's file, as create_study(storage=...) had it.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise BadArgument("dashboard", "port", got=port, want="from 0 to 65535", do="pass port=8080")
    page = application(storage, host=host)
    uvicorn = _needed("uvicorn")

    class Server(uvicorn.Server):
        """Says where it is once it answers."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            announce(f"Studies of {_shown(storage)} at {where} (Ctrl-C ends it)")

    quiet = {"log_level": "warning", "access_log": False, "lifespan": "off", "ws": "none"}
    server = Server(uvicorn.Config(page, loop="asyncio", http="h11", server_header=False, **quiet))
    with _listening(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        where = f"http://{shown}:{listening.getsockname()[1]}/"
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def application(storage: Any, *, host: str = "127.0.0.1") -> Any:
    """The page as an ASGI application, for a server of your own.

    Args:
        storage: as in `serve`.
        host: as in `serve`; requests that were made to another name than this one's, or the loopback's, are refused,
            so that no other site's script can read the studies through a name that it controls.

    Returns:
        A Starlette application.

    Raises:
        BadArgument: there is no such file. MissingExtra: starlette is not installed.

    >>> import pathlib, tempfile
    >>> from nestor import dashboard, search
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "study.db"
    >>> study = search.create_study(storage=path, study_name="mine")
    >>> sorted(route.path for route in dashboard.application(path).routes)[:2]
    ['/', '/api/changes']
    """
    _check_there(storage)
    needed = ("applications", "middleware", "middleware.gzip", "routing")
    applications, middleware, gzip, routing = (_needed(f"starlette.{name}") for name in needed)
    follower = Follower(storage)
    title = _shown(storage)

    def studies(request: Any) -> Any:
        nested = request.query_params.get("nested") == "1"
        return _reply(lambda: {"storage": title, **_replies.studies(follower, nested)})

    def about(answer: Callable[[FollowedStudy, Any], Any]) -> Callable[[Any], Any]:
        """An address that tells something about the study which the request names."""

        def endpoint(request: Any) -> Any:
            asked = request.query_params

            def found() -> Any:
                followed = follower.study(asked.get("study", ""))
                if asked.get("id") not in (None, followed.identity):
                    return {"again": True}  # another study has the name now
                return answer(followed, asked)

            return _reply(found)

        return endpoint

    told = {
        "summary": lambda followed, asked: _replies.summary(followed),
        "changes": lambda followed, asked: _replies.changes(followed, _whole(asked.get("after", "0"))),
        "trial": lambda followed, asked: _replies.trial(follower, followed, _whole(asked.get("number", ""))),
        "curves": lambda followed, asked: _replies.curves(followed),
        "importance": lambda followed, asked: _replies.shares(followed),
    }
    routes = [routing.Route(f"/{name}" if name != "index.html" else "/", _file(name)) for name in _files()]
    routes.append(routing.Route("/api/studies", studies))
    routes += [routing.Route(f"/api/{name}", about(answer)) for name, answer in told.items()]
    guards = [
        middleware.Middleware(_Guard, host=host),
        middleware.Middleware(gzip.GZipMiddleware, minimum_size=1000, compresslevel=5),
    ]
    return applications.Starlette(routes=routes, middleware=guards)


class _Guard:
    """Refuses requests made to a name that is not this server's, and adds headers to every reply."""

    def __init__(self, app: Any, host: str):
        self._app = app
        shown = f"[{host}]" if ":" in host else host
        self._names = None if host in _EVERYWHERE else {shown, *_LOOPBACK}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), text.encode()) for name, text in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        asked = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = asked.rpartition(":")[0] if asked.rpartition(":")[2].isdigit() else asked
        if self._names is not None and name.lower() not in self._names:
            refusal = _response("This name is not the dashboard's.\n", "text/plain", status_code=400)
            await refusal(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)


def _reply(answer: Callable[[], Any]) -> Any:
    """An answer as JSON; what went wrong as a message that the page shows."""
    status = 200
    try:
        told = answer()
    except BadArgument as error:
        told, status = {"error": str(error)}, 400
    except NestorError as error:
        told, status = {"error": str(error)}, 404
    except Exception as error:  # a storage that is away or busy, for example: the page says so and asks again
        logging.getLogger("nestor.dashboard").exception("No answer")
        told, status = {"error": f"{type(error).__name__}: {error}"}, 500
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Half a character, as in the name of a file that is no UTF-8, becomes its escape, which JSON has too.
    content = text.encode("utf-8", "backslashreplace")
    return _response(content, "application/json", status_code=status, headers={"cache-control": "no-store"})


def _response(content: str | bytes, kind: str, **more: Any) -> Any:
    return _needed("starlette.responses").Response(content, media_type=kind, **more)


def _files() -> list[str]:
    folder = importlib.resources.files("nestor.dashboard") / "page"
    return sorted(entry.name for entry in folder.iterdir() if Path(entry.name).suffix in _KINDS)


def _file(name: str) -> Callable[[Any], Any]:
    """The address of one file of the page, which is read once."""
    content = (importlib.resources.files("nestor.dashboard") / "page" / name).read_bytes()

    async def endpoint(request: Any) -> Any:
        return _response(content, _KINDS[Path(name).suffix], headers={"cache-control": "no-cache"})

    return endpoint


def _whole(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise BadArgument("dashboard", "after", got=text, want="a whole number", do="pass after=0")
    return int(text)


def _check_there(storage: Any) -> None:
    """Refuse a file that is not there: opening it would make it."""
    text = os.fspath(storage) if isinstance(storage, str | os.PathLike) else None
    if text is None and isinstance(storage, Storage):
        return
    if text is not None and "://" in text and not text.startswith("sqlite:///"):
        return  # whoever opens it says what is wrong
    path = Path((text or "").removeprefix("sqlite:///"))
    want = "a file that is there"
    if text and path.is_file():
        with path.open("rb") as file:
            if file.read(16) == b"SQLite format 3\x00":
                return
        want = "a file of studies"
    do = "give the path of a study's file, as create_study(storage=...) had it"
    raise BadArgument("dashboard", "storage", got=storage if text is None else text, want=want, do=do)


def _shown(storage: Any) -> str:
    """What a storage is called on the page: without passwords and folders."""
    if isinstance(storage, str) and "://" in storage and not storage.startswith("sqlite:///"):
        scheme, _, rest = storage.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
    if isinstance(storage, str | os.PathLike):
        return Path(os.fspath(storage).removeprefix("sqlite:///")).name
    path = getattr(storage, "path", None)
    return type(storage).__name__ if path is None else Path(path).name


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens; or what to do where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    if os.name != "nt":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        others = port + 1 if 1024 <= port < 65535 else 8081
        do = f"take another port, --port {others}, or 0 for any free one"
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            do = "take an address of this machine, such as --host 127.0.0.1"
        raise NestorError(
            f"The dashboard cannot listen at port {port} of {host}: {error.strerror}.\nDo this: {do}"
        ) from error
    return listening


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(module.partition(".")[0], "dashboard", "the dashboard") from error
