"""The dashboard at 10,000 finished trials of 10 parameters: what an idle poll and the first paint cost its server.

The peer is optuna-dashboard over Optuna's journal file, the fastest of its storages; asked for what its page asks for.
Linux: CPU time is read from /proc.
"""

import json
import os
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from _search import as_line

from nestor import search
from nestor.search import FrozenTrial, TrialState

NAMES = [f"x{k}" for k in range(10)]
FILES = ("", "style.css", "page.js", "data.js", "charts.js", "pictures.js", "table.js")


def our_study(path, count):
    draw = random.Random(0).random
    study = search.create_study(storage=path, study_name="s")
    domains = dict.fromkeys(NAMES, search.Float(0.0, 1.0))
    study.add_trials(
        FrozenTrial(
            *(k, TrialState.COMPLETE, (draw(),), {name: draw() for name in NAMES}, domains),
            *({}, {}, None, None, None, 1e9 + k, 1e9 + k + 1, 1),
        )
        for k in range(count)
    )


def peer_study(path, count):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draw = random.Random(0).random
    backend = optuna.storages.journal.JournalFileBackend(path)
    study = optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name="s")
    domains = dict.fromkeys(NAMES, optuna.distributions.FloatDistribution(0.0, 1.0))
    for _ in range(count):
        params = {name: draw() for name in NAMES}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=domains, value=draw()))


class Server:
    """A dashboard in a process of its own."""

    def __init__(self, words, port):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, **quiet)
        self.address = f"http://127.0.0.1:{port}/"
        for _ in range(600):
            try:
                self.get("")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        sys.exit(f"{words} does not answer")

    def get(self, path):
        """How many bytes come over the line, headers included, and the content as it came."""
        asked = urllib.request.Request(self.address + path, headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(asked, timeout=600) as reply:
            content = reply.read()
            heads = sum(len(name) + len(text) + 4 for name, text in reply.headers.items())
            packed = reply.headers.get("content-encoding") == "gzip"
        return heads + len(content), content, packed

    def tell(self, path):
        """The same as JSON."""
        import gzip

        size, content, packed = self.get(path)
        return size, json.loads(gzip.decompress(content) if packed else content)

    def cpu(self):
        """Seconds of CPU so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def poll(self, path, times):
        """CPU seconds of a request, and its bytes."""
        before = self.cpu()
        for _ in range(times):
            size = self.get(path)[0]
        return (self.cpu() - before) / times, size

    def close(self):
        self.process.terminate()
        self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def first_paint(server):
    """Bytes until the first picture, bytes until all trials are there, and the address of an idle poll."""
    painted = sum(server.get(name)[0] for name in FILES) + server.get("api/studies")[0]
    size, summary = server.tell("api/summary?study=s")
    painted += size
    whole, place, more = painted, 0, True
    while more:
        size, told = server.tell(f"api/changes?study=s&id={summary['id']}&after={place}")
        painted += size if place == 0 else 0
        whole += size
        place, more = told["place"], told.get("more")
    return painted, whole, f"api/changes?study=s&id={summary['id']}&after={place}"


def main(count, rounds):
    peers_command()
    with tempfile.TemporaryDirectory() as folder:
        ours_at, peers_at = (str(pathlib.Path(folder) / name) for name in ("s.db", "s.log"))
        our_study(ours_at, count)
        port = free_port()
        ours = Server([sys.executable, "-m", "nestor", "dashboard", ours_at, "--port", str(port)], port)
        peer_study(peers_at, count)
        port = free_port()
        peer = Server([peers_command(), peers_at, "--port", str(port)], port)
        try:
            report(count, rounds, ours, peer)
        finally:
            ours.close()
            peer.close()


def peers_command():
    """The command of optuna-dashboard, beside this Python or on the path."""
    beside = pathlib.Path(sys.executable).with_name("optuna-dashboard")
    found = str(beside) if beside.exists() else shutil.which("optuna-dashboard")
    return found or sys.exit(
        "This benchmark compares with optuna-dashboard.\nDo this: pip install optuna-dashboard"
    )


def report(count, rounds, ours, peer):
    before = ours.cpu()
    painted, whole, idle = first_paint(ours)
    first_cpu = ours.cpu() - before
    before = peer.cpu()
    asked = ("dashboard", "static/bundle.js", "api/meta", "api/studies", "api/studies/0?after=0")
    peers_first = sum(peer.get(path)[0] for path in asked)
    peers_first_cpu = peer.cpu() - before
    pairs = []
    for _ in range(rounds):
        mine = ours.poll(idle, 100)
        pairs.append((mine, peer.poll(f"api/studies/0?after={count}", 3)))
    as_line(
        "at 10,000 trials an idle poll costs the server under 5 ms of CPU and 1 kB, the first paint 2 MB",
        statistics.median(mine[0] for mine, _ in pairs),
        statistics.median(other[0] for _, other in pairs),
        unit="CPU s a poll",
        poll_bytes=[pairs[0][0][1], pairs[0][1][1]],
        first_paint_bytes=[painted, peers_first],
        all_trials_bytes=whole,
        first_load_cpu_s=[round(first_cpu, 3), round(peers_first_cpu, 3)],
        trials=count,
        rounds=rounds,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000, 5)
