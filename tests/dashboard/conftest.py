import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest


class Served:
    """A dashboard in a process of its own, as `nestor dashboard` starts it."""

    def __init__(self, storage, port="0"):
        words = [sys.executable, "-m", "nestor", "dashboard", str(storage), "--port", port]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert "http://" in line, line + self.process.stderr.read()
        self.address = line[line.index("http://") : line.index(" (Ctrl-C")]

    def get(self, path, *, headers=None, method="GET", **query):
        """Status, headers and content of a reply."""
        address = f"{self.address}{path}?{urllib.parse.urlencode(query)}" if query else self.address + path
        asked = urllib.request.Request(address, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30) as reply:
                return reply.status, reply.headers, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def ask(self, what, **query):
        """What an address of the page's own tells."""
        status, _, content = self.get(f"api/{what}", **query)
        assert status == 200, content
        return json.loads(content)

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def serving():
    """Starts dashboards, and ends them."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    with contextlib.ExitStack() as stack:

        def start(storage, port="0"):
            served = Served(storage, port)
            stack.callback(served.close)
            return served

        yield start
