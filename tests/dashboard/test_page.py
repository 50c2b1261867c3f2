"""The page in a real Chromium, while a study runs in another process: `make test-chromium`."""

import csv
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from nestor import search
from tests.dashboard import chromium, running

pytestmark = [
    pytest.mark.skipif(
        chromium.executable() is None, reason="Chromium is not installed; .ci/chromium installs it"
    ),
    pytest.mark.slow,
]
NUMBERS = "[...document.querySelectorAll('.body .row')].map(row => Number(row.dataset.number))"


class Worker:
    """A study in another process, some trials at a time."""

    def __init__(self, path: Path):
        words = [sys.executable, running.__file__, str(path)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, trials: int) -> tuple[int, float, int]:
        """How many trials there are then, the best value, and whose it is."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{trials}\n")
        self._process.stdin.flush()
        size, best, number = self._process.stdout.readline().split()
        return int(size), float(best), int(number)

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture
def page(tmp_path):
    """A browser with a page; the console must have said nothing wrong at the end."""
    opened = chromium.Page(tmp_path / "profile")
    yield opened
    errors = opened.errors
    opened.close()
    assert not errors, "\n".join(errors)


@pytest.fixture
def worker(tmp_path):
    started = Worker(tmp_path / "study.db")
    started.run(20)
    yield started
    started.close()


def at(served, *names: object) -> str:
    return served.address + "#/" + "/".join(quote(str(name), safe="") for name in names)


def best(page) -> float:
    return float(page.wait("document.querySelector('#best-value')?.dataset.value", patience=60))


def test_it_follows_a_study_that_runs(serving, page, worker, tmp_path):
    served = serving(tmp_path / "study.db")
    page.go(served.address)
    page.wait("document.querySelector('td.right')?.textContent", lambda text: text == "20")
    page.click("table.studies a")
    page.wait("document.querySelector('h1')?.textContent", lambda text: text == running.NAME)
    count = "document.querySelector('#trials .big, #trials.big')?.textContent"
    page.wait(count, lambda text: text == "20")
    for more in (1, 30):
        size, value, number = worker.run(more)
        page.wait(count, lambda text, size=size: text == str(size))
        assert best(page) == value
        assert f"trial {number}" in page.text()
    page.wait("document.querySelectorAll('#importance .share').length", lambda found: found == 5)
    assert page.evaluate("document.querySelector('canvas').dataset.points") != "0"
    page.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert page.evaluate("window.broken") is None


def test_the_table_sorts_filters_and_is_saved(serving, page, worker, tmp_path):
    served = serving(tmp_path / "study.db")
    page.go(at(served, running.NAME, "trials"))
    assert page.wait(NUMBERS, len)[:3] == [19, 18, 17]
    study = search.load_study(storage=tmp_path / "study.db")
    wanted = sorted(study.trials, key=lambda trial: trial.params["x"])
    page.click('[data-key="x"]')
    page.wait(NUMBERS, lambda found: found[:5] == [trial.number for trial in wanted[:5]])
    page.click('[data-key="x"]')
    page.wait(NUMBERS, lambda found: found[:5] == [trial.number for trial in wanted[:-6:-1]])
    page.click("#filter")
    page.type("state=complete kind=ridge x<0.5")
    kept = {
        trial.number
        for trial in study.trials_with(search.TrialState.COMPLETE)
        if trial.params["kind"] == "ridge" and trial.params["x"] < 0.5
    }
    page.wait(NUMBERS, lambda found: set(found) == kept)
    assert page.evaluate("document.querySelector('#count').textContent") == f"{len(kept)} of 20 trials"
    page.save_downloads(tmp_path)
    page.click("#csv")
    end = time.monotonic() + 30
    while not (files := list(tmp_path.glob("*.csv"))) and time.monotonic() < end:
        time.sleep(0.05)
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["number"]) for row in rows} == kept
    assert all(float(row["value"]) == study.trials[int(row["number"])].value for row in rows)
    page.evaluate("document.querySelector('#filter').value = ''")
    page.click("#filter")
    page.type("colour=red")
    page.wait("document.querySelector('.wrong').textContent", lambda text: "colour" in text)


def test_every_part_and_a_trial(serving, page, worker, tmp_path):
    served = serving(tmp_path / "study.db")
    page.go(at(served, running.NAME))
    for part, points in (("slice", 15), ("parallel", 15), ("curves", 100), ("timeline", 20)):
        page.click(f'.tabs a[href$="{part}"]')
        drawn = "Number(document.querySelector('main canvas')?.dataset.points || 0)"
        page.wait(drawn, lambda found, points=points: found >= points)
    page.click('.tabs a[href$="trials"]')
    page.click('.row[data-number="17"]')
    page.wait("document.querySelector('#drawer h2')?.textContent", lambda text: text == "Trial 17")
    text = page.evaluate("document.querySelector('#drawer').innerText")
    for part in ("<img src=x onerror='window.broken=1'> went wrong", "<script>", "rate", "start", "Curve"):
        assert part in text
    page.click("#close")
    page.wait("document.querySelector('#drawer')?.hidden")
    assert page.evaluate("window.broken") is None
    assert page.evaluate("document.querySelector('main').querySelectorAll('b, img, script').length") == 0


def test_light_and_dark_and_narrow(serving, page, worker, tmp_path):
    served = serving(tmp_path / "study.db")
    page.go(at(served, running.NAME))
    best(page)
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    corner = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 1, 1).data]"
    assert min(page.evaluate(ground)) > 200
    page.dark(True)
    page.wait(ground, lambda colour: max(colour) < 60)
    assert page.evaluate(corner)[3] == 0  # the picture lies on the card's own ground
    page.resize(390, 800)
    page.wait("document.documentElement.scrollWidth", lambda width: width <= 390)


def test_gradients_and_several_objectives(serving, page, tmp_path):
    path = tmp_path / "study.db"
    sloped = search.create_study(storage=path, study_name="sloped", sampler=search.RandomSampler(seed=0))
    trial = sloped.ask()
    x = trial.suggest_float("x", -1, 1)
    sloped.tell(trial, x * x, gradient={"x": 0.625})
    two = search.create_study(
        storage=path,
        study_name="two",
        directions=["minimize", "maximize"],
        sampler=search.RandomSampler(seed=0),
    )
    two.optimize(lambda trial: (trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0, 1)), n_trials=30)
    served = serving(path)
    page.go(at(served, "sloped", "trials", 0))
    page.wait(
        "document.querySelector('#drawer')?.innerText || ''",
        lambda text: "Gradient" in text and "0.625" in text,
    )
    page.go(at(served, "two"))
    label = "document.querySelector('canvas')?.getAttribute('aria-label')"
    page.wait(label, lambda text: text == f"Pareto front: {len(two.best_trials)} of 30 trials")
    assert "History of value 1" in page.text()
    two.set_metric_names(["loss", "speed"])
    page.wait("document.body.innerText", lambda text: "History of loss" in text)


def test_a_study_that_is_not_there(serving, tmp_path):
    search.create_study(storage=tmp_path / "study.db", study_name="mine")
    served = serving(tmp_path / "study.db")
    page = chromium.Page(tmp_path / "profile")
    try:
        page.go(at(served, "yours"))
        page.wait(
            "document.querySelector('[role=alert]')?.innerText",
            lambda text: "no study 'yours'" in (text or ""),
        )
        search.create_study(storage=tmp_path / "study.db", study_name="yours")
        page.wait("document.querySelector('h1')?.textContent", lambda text: text == "yours")
        assert all("404" in error for error in page.errors), page.errors
    finally:
        page.close()


def test_a_server_that_goes_and_comes_back(serving, tmp_path):
    study = search.create_study(storage=tmp_path / "study.db", study_name="mine")
    study.tell(study.ask(), 0.5)
    served = serving(tmp_path / "study.db")
    page = chromium.Page(tmp_path / "profile")
    try:
        page.go(at(served, "mine"))
        assert best(page) == 0.5
        served.process.terminate()
        served.process.wait(timeout=30)
        page.wait("document.querySelector('#live').textContent", lambda text: "gone" in text)
        assert best(page) == 0.5
        study.tell(study.ask(), 0.25)
        serving(tmp_path / "study.db", port=served.address.rstrip("/").rpartition(":")[2])
        page.wait("document.querySelector('#best-value').dataset.value", lambda text: text == "0.25")
    finally:
        page.close()


def test_figures_filters_and_files_of_the_table(serving, page, tmp_path):
    study = search.create_study(storage=tmp_path / "study.db", study_name="mine")
    for kind, note in (("a b", "=1+1"), ("c", 'say "no", twice')):
        trial = study.ask()
        trial.suggest_categorical("kind", ["a b", "c"])
        trial.set_user_attr("note", note)
        trial.set_user_attr("kind of it", kind)
        study.tell(trial, -1.5)
    page.go(at(serving(tmp_path / "study.db"), "mine", "trials"))
    page.wait(NUMBERS, lambda found: found == [1, 0])
    page.evaluate(
        "Promise.all([import('./table.js'), import('./data.js')]).then(([table, data]) => {"
        " window.columns = table.columnsOf(nestor.study); window.table = table; window.data = data; })"
    )
    kept = "nestor.study.known.filter(table.filterOf(%r, columns).holds).map(trial => trial.number)"
    for text, numbers in (
        ("", [0, 1]),
        ("value<-1 value>=-1.5", [0, 1]),
        ("value>-1.5", []),
        ('"kind of it=a b"', [0]),
        ("note~TWICE", [1]),
        ("twice", [1]),
        ("number!=0", [1]),
        ("state=complete", [0, 1]),
        ("duration>1e9", []),
    ):
        assert page.evaluate(kept % text) == numbers, text
    lines = page.evaluate("table.asCsv(nestor.study.known, columns)").split("\r\n")
    assert "'=1+1" in lines[1]  # no formula
    assert '"say ""no"", twice"' in lines[2]
    assert ",-1.5," in lines[1]
    shown = "[0, 3, 1e-12, 123456.789, 0.1 + 0.2, 1e9, Infinity, NaN, null, 'x'].map(v => data.figure(v))"
    assert page.evaluate(shown) == ["0", "3", "1e-12", "123457", "0.3", "1e+9", "∞", "nan", "", "x"]
    spans = "[0, 2e-5, 0.5, 119.9, 600, 86400, 1e6].map(v => data.seconds(v))"
    assert page.evaluate(spans) == ["0 s", "20 µs", "500 ms", "120 s", "10 min", "24 h", "11.6 days"]


def test_studies_inside_trials(serving, page, tmp_path):
    outer = search.create_study(
        storage=tmp_path / "study.db", study_name="outer", sampler=search.RandomSampler()
    )
    for number in range(30):
        trial = outer.ask()
        inner = search.create_study(parent=trial)
        inner.tell(inner.ask(), float(number))
        outer.tell(trial, float(number))
    served = serving(tmp_path / "study.db")
    page.go(served.address)
    rows = (
        "[...document.querySelectorAll('tr[data-study]')].filter(row => row.children[2].textContent).length"
    )
    page.wait(rows, lambda found: found == 1)
    page.click("#nested")
    page.wait(rows, lambda found: found == 31)
    page.go(at(served, "outer", "trials", 7))
    page.click("#drawer a[href$='outer%2F7']")
    page.wait("document.querySelector('h1')?.textContent", lambda text: text == "outer/7")
    assert best(page) == 7.0


def test_a_study_that_took_the_name_of_another(serving, page, tmp_path):
    """Seen even where the page missed the moment when there was none."""
    path = tmp_path / "study.db"
    study = search.create_study(storage=path, study_name="mine", sampler=search.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    page.go(at(serving(path), "mine"))
    assert best(page) == study.best_value
    search.delete_study(study_name="mine", storage=path)
    other = search.create_study(storage=path, study_name="mine", directions=["minimize", "maximize"])
    for k in range(3):
        other.tell(other.ask(), [float(k), float(k)])
    label = "document.querySelector('canvas')?.getAttribute('aria-label')"
    page.wait(label, lambda text: text == "Pareto front: 3 of 3 trials")


def test_words_that_mean_something_to_scripts(serving, page, tmp_path):
    """Choices named inf and nan; parameters and notes named as columns, as parts of objects, or with operators."""
    study = search.create_study(storage=tmp_path / "study.db", study_name="mine")
    for norm in ("inf", "nan", "2"):
        study.enqueue_trial({"norm": norm, "duration": 7.0, "net:rate": 0.5})
        trial = study.ask()
        trial.suggest_categorical("norm", ["inf", "nan", "2"])
        trial.suggest_float("duration", 0, 10)
        trial.suggest_float("net:rate", 0, 1)
        if trial.number:
            trial.set_user_attr("constructor", "noted")
        study.tell(trial, float(trial.number))
    served = serving(tmp_path / "study.db")
    page.go(at(served, "mine", "trials"))
    page.wait(NUMBERS, len)
    page.evaluate(
        "import('./table.js').then((table) => {"
        " window.columns = table.columnsOf(nestor.study); window.table = table; })"
    )
    kept = "nestor.study.known.filter(table.filterOf(%r, columns).holds).map(trial => trial.number)"
    for text, numbers in (
        ("norm=inf", [0]),
        ("norm=nan", [1]),
        ("duration>5", []),
        ('"param duration=7"', [0, 1, 2]),
        ("net:rate<1", [0, 1, 2]),
        ("net:rate~9", []),
        ("constructor=noted", [1, 2]),
        ("12:99:99", []),
    ):
        assert page.evaluate(kept % text) == numbers, text
    assert page.evaluate("table.filterOf('net=1', columns).wrong")
    assert "function" not in page.evaluate("table.asCsv(nestor.study.known, columns)")
    page.go(at(served, "mine", "slice"))
    drawn = "[...document.querySelectorAll('main canvas')].map(canvas => Number(canvas.dataset.points))"
    page.wait(drawn, lambda found: found == [3, 3, 3])
    page.go(at(served, "mine", "constructor"))
    page.wait("document.querySelector('#best-value')?.dataset.value", lambda text: text == "0")


def test_a_study_of_which_all_is_pruned(serving, page, tmp_path):
    study = search.create_study(storage=tmp_path / "study.db", study_name="mine")
    for value in (90.0, 70.0):
        trial = study.ask()
        trial.report(value, step=1)
        study.tell(trial, state=search.TrialState.PRUNED)
    page.go(at(serving(tmp_path / "study.db"), "mine"))
    page.wait("document.querySelector('canvas')?.dataset.points", lambda found: found == "2")
    high = "import('./pictures.js').then(({history}) => history(nestor.study, 0).picture.spec().y.high)"
    assert page.evaluate(high) == 90.0


def test_a_row_keeps_the_focus_of_the_keyboard(serving, page, tmp_path):
    path = tmp_path / "study.db"
    study = search.create_study(storage=path, study_name="mine", sampler=search.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=100)
    page.go(at(serving(path), "mine", "trials"))
    page.wait(NUMBERS, len)
    focused = "document.activeElement.dataset.number || document.activeElement.id"
    page.evaluate("document.querySelector('.row[data-number=\"95\"]').focus()")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    page.wait(NUMBERS, lambda found: found[0] == 100)
    assert page.evaluate(focused) == "95"
    page.key("Enter")
    page.wait("document.querySelector('#drawer h2')?.textContent", lambda text: text == "Trial 95")
    assert page.evaluate(focused) == "close"
    page.key("Escape")
    page.wait("document.querySelector('#drawer')?.hidden")
    assert page.evaluate(focused) == "95"
    assert page.evaluate("document.querySelector('.table').getAttribute('aria-rowcount')") == "102"


def test_a_storage_that_is_away_for_a_while(serving, tmp_path):
    """What was read stays on the page."""
    path = tmp_path / "study.db"
    study = search.create_study(storage=path, study_name="mine")
    study.tell(study.ask(), 0.5)
    served = serving(path)
    page = chromium.Page(tmp_path / "profile")
    try:
        page.go(at(served, "mine"))
        assert best(page) == 0.5
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE log RENAME TO elsewhere")
        page.wait("document.querySelector('#live').textContent", lambda text: "storage" in text)
        assert best(page) == 0.5
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE elsewhere RENAME TO log")
        page.wait("document.querySelector('#live').textContent", lambda text: text == "live")
        assert all("500" in error for error in page.errors), page.errors
    finally:
        page.close()
