"""What goes wrong at the edges: values that are none, storages that are away, threads, forks, interruptions."""

import enum
import json
import math
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from nestor import search
from nestor.errors import BadArgument, NestorError
from nestor.search import TrialState
from tests.search import objectives


def made(storage=None, **settings):
    return search.create_study(storage=storage, sampler=search.RandomSampler(seed=0), **settings)


# --- what a log cannot hold is refused before it is written --------------------------------------------


def test_a_record_that_does_not_fit_leaves_the_study_as_it_was(tmp_path):
    study = made(tmp_path / "s.db", directions=["minimize", "maximize"])
    for wrong in (search.create_trial(value=1.0), search.create_trial(values=[1.0, 2.0, 3.0]), "no record"):
        with pytest.raises(BadArgument, match="add_trial"):
            study.add_trial(wrong)  # type: ignore[arg-type]
    study.add_trial(search.create_trial(values=[1.0, 2.0]))
    assert [trial.values for trial in search.load_study(storage=tmp_path / "s.db").trials] == [(1.0, 2.0)]


def test_a_complete_trial_has_a_number(storage):
    with pytest.raises(BadArgument, match="a number"):
        search.create_trial(value=math.nan)
    study = made(storage)
    study.tell(study.ask(2), [math.nan, 3.0])
    assert study.best_value == 3.0
    assert study.trials[0].state == TrialState.FAILED
    study.tell(study.ask(2), [math.inf, -math.inf])
    assert study.best_value == -math.inf


def test_parameters_outlive_a_change_that_could_not_be_written(tmp_path, monkeypatch):
    study = made(tmp_path / "s.db")
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    with monkeypatch.context() as away:
        away.setattr(study.storage, "append", lambda *entries: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                trial.report(1.0, 0)
        with pytest.raises(ZeroDivisionError):
            study._channel.flush()
    study.tell(trial, 1.0)
    assert search.load_study(storage=tmp_path / "s.db").trials[0].params == {"x": x}


def test_notes_are_the_same_in_memory_and_in_a_file(storage):
    study = made(storage)
    given = {1: (2, np.float32(0.5)), "w": np.arange(3)}
    study.set_user_attr("note", given)
    trial = study.ask()
    trial.set_user_attr("note", given)
    assert study.user_attrs["note"] == trial.user_attrs["note"] == {"1": [2, 0.5], "w": [0, 1, 2]}
    with pytest.raises(BadArgument, match="JSON"):
        trial.set_user_attr("model", object())
    study.enqueue_trial({"n": np.int64(3), "w": np.ones(2)}, user_attrs={"a": np.int8(1)})
    other = study.ask()
    assert (other.suggest_int("n", 1, 5), other.suggest_array("w", np.int64(2), 0, 1).tolist()) == (3, [1, 1])


def test_choices_of_numpy_and_of_enumerations_are_found_again(tmp_path):
    class Colour(enum.StrEnum):
        RED = "red"

    class Size(enum.IntEnum):
        BIG = 3

    choices = [*np.logspace(-3, -1, 3), np.int64(4), Colour.RED, Size.BIG, np.True_, None]
    study = made(tmp_path / "s.db")
    first = study.ask().suggest_categorical("kind", choices)
    study._channel.flush()
    again = search.load_study(storage=tmp_path / "s.db", sampler=search.RandomSampler(seed=0))
    assert again.ask().suggest_categorical("kind", choices) in choices
    assert first == study.trials[0].params["kind"]
    assert search.Categorical(choices).choices == (0.001, 0.01, 0.1, 4, "red", 3, True, None)
    assert [type(one) for one in search.Categorical(choices).choices[3:6]] == [int, str, int]


@pytest.mark.parametrize("state", [TrialState.WAITING, TrialState.RUNNING, 9])
def test_a_trial_cannot_be_told_to_begin(storage, state):
    study = made(storage)
    trial = study.ask()
    with pytest.raises(BadArgument, match="COMPLETE, PRUNED"):
        study.tell(trial, state=state)
    assert study.trials[0].state == TrialState.RUNNING


def test_a_gradient_fits_the_parameters(storage):
    study = made(storage)
    trial = study.ask()
    trial.suggest_array("w", 3, 0, 1)
    trial.suggest_float("x", 0, 1)
    for wrong in ({"typo": 1.0}, {"w": [1.0]}, {"x": [1.0, 2.0]}):
        with pytest.raises(BadArgument, match="gradient"):
            trial.set_gradient(wrong)
        with pytest.raises(BadArgument, match="gradient"):
            study.tell(0, 1.0, gradient=wrong)
    study.tell(trial, 1.0, gradient={"w": np.ones(3), "x": np.ones(1)})
    assert study.trials[0].gradient == {"w": [1.0, 1.0, 1.0], "x": 1.0}


def test_what_a_trial_reports_of_one_objective_is_a_number(storage):
    study = made(storage)
    trial = study.ask()
    trial.report(np.array([0.5]), np.int64(1))
    assert study._ledger.reports == {0: {1: 0.5}}
    for value, step in (
        ("x", 1),
        (None, 1),
        ([1.0, 2.0], 1),
        (1.0, -1),
        (1.0, 0.5),
        (1.0, None),
        (1.0, math.nan),
    ):
        with pytest.raises(BadArgument, match="report"):
            trial.report(value, step)  # type: ignore[arg-type]


def test_a_name_asked_for_again_means_the_same(storage):
    trial = made(storage).ask()
    x = trial.suggest_float("x", 0, 1)
    assert trial.suggest_float("x", 0, 1) == trial.suggest_float("x", -1, 2) == x
    for again in (search.Int(0, 1), search.Float(5, 6)):
        with pytest.raises(BadArgument, match="second time"):
            trial.suggest("x", again)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda study: study.optimize(lambda trial: None, 1), "returned None"),
        (lambda study: study.optimize(lambda trial: "good", 1), "returned 'good'"),
        (lambda study: study.optimize(lambda trial: (1.0, 2.0), 1), "a number"),
        (lambda study: study.optimize(3, 1), "a function of a trial"),
        (lambda study: study.optimize(objectives.bowl, 1, callbacks=print), "into a list"),
        (lambda study: study.optimize(objectives.bowl, 1, timeout="3"), "timeout"),
        (lambda study: study.optimize(objectives.bowl, 1, timeout=-1), "timeout"),
        (lambda study: study.optimize(objectives.bowl, 1, catch=["ValueError"]), "catch"),
        (lambda study: study.tell(study.ask(), "abc"), "'values' is abc"),
        (lambda study: study.tell(study.ask(2), 1.0), "of 2 trials"),
        (lambda study: (study.ask(), study.tell(study.trials[0], 1.0)), "what ask gave"),
        (lambda study: (study.ask(), study.tell(made().ask(), 1.0)), "what ask gave"),
        (lambda study: study.ask(space={"x": (0, 1)}), "search.Float"),
        (lambda study: study.ask().suggest_float(3, 0, 1), "'name'"),
        (lambda study: study.ask().suggest_array("w", (2, -1), 0, 1), "'shape'"),
        (lambda study: study.cost(0), "'number'"),
        (lambda study: search.Float("a", 1), "real number"),
        (lambda study: search.Float(-1.7e308, 1.7e308), "finite"),
        (lambda study: search.Int(None, 3), "whole number"),
        (lambda study: search.create_study(study_name=3), "a string"),
        (lambda study: search.create_study(storage=search.FileStorage), "'storage'"),
    ],
)
def test_a_refusal_says_which_argument_and_what_to_do(call, words):
    with pytest.raises(BadArgument, match=words):
        call(made())


# --- files ---------------------------------------------------------------------------------------------


def test_a_file_that_is_no_study_is_refused_and_none_is_made_by_looking(tmp_path):
    text = tmp_path / "text.db"
    text.write_text("no database at all " * 100)
    with sqlite3.connect(tmp_path / "half.db") as connection:
        connection.execute("CREATE TABLE schema (x)")
    connection.close()
    for wrong in (text, tmp_path, text / "study.db", tmp_path / "half.db"):
        with pytest.raises(NestorError, match="Do this"):
            search.create_study(storage=wrong)
    missing = tmp_path / "missing.db"
    for look in (
        lambda: search.load_study(storage=missing),
        lambda: search.load_study(storage=f"sqlite:///{missing}"),
        lambda: search.delete_study(study_name="a", storage=missing),
        lambda: search.copy_study(from_study_name="a", from_storage=missing, to_storage=None),
    ):
        with pytest.raises(BadArgument, match=r"missing\.db"):
            look()
    assert search.study_names(missing) == []
    assert not missing.exists()


@pytest.mark.parametrize(
    "text", ["", "hello\n", "[1]\n", '{"nestor_study": 2}\n', '{"nestor_study": 1}\n{"do": "stop"}']
)
def test_only_what_export_wrote_is_imported(tmp_path, text):
    (tmp_path / "s.jsonl").write_text(text)
    with pytest.raises(BadArgument, match="import_study"):
        search.import_study(tmp_path / "s.jsonl")
    with pytest.raises(BadArgument, match="No such file"):
        search.import_study(tmp_path / "none.jsonl")


def test_a_deleted_study_takes_the_studies_inside_it_along(storage):
    for _ in range(2):
        outer = made(storage, study_name="outer")
        inner = search.create_study(parent=outer.ask())
        search.create_study(parent=inner.ask(), study_name="deep")
        assert search.study_names(storage) == ["outer", "outer/0", "outer/0/0/deep"]
        search.delete_study(study_name="outer", storage=storage)
        assert search.study_names(storage) == []


def test_a_copy_costs_what_the_studies_inside_it_cost(storage):
    study = made(storage, study_name="outer")
    study.optimize(objectives.nested, n_trials=2)
    copy = search.copy_study(
        from_study_name="outer", from_storage=storage, to_storage=storage, to_study_name="copy"
    )
    assert copy.cost() == study.cost() == 4 + 10 + 4


def test_a_study_is_pickled(storage):
    study = made(storage)
    study.optimize(objectives.bowl, n_trials=3)
    study.ask()
    again = pickle.loads(pickle.dumps(study))
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]
    again.optimize(objectives.bowl, n_trials=1)
    memory = isinstance(storage, search.MemoryStorage)
    assert len(again.trials) == (4 if memory else 5)  # nobody runs what ran in a copy of the memory
    assert len(study.trials) == (4 if memory else 5)


def test_a_table_has_its_columns_without_trials_too():
    pytest.importorskip("pandas")
    study = made(directions=["minimize", "maximize"])
    study.set_metric_names(["loss", "speed"])
    empty = study.trials_dataframe()
    assert [*empty.columns[:3]] == ["number", "values_loss", "values_speed"]
    study.tell(study.ask(), [1.0, 2.0])
    assert study.trials_dataframe()["values_speed"].tolist() == [2.0]


# --- threads, forks, and what ends a trial in the middle -----------------------------------------------


def test_threads_share_a_study(storage):
    study, wrong = made(storage), []

    def work():
        try:
            for _ in range(25):
                trial = study.ask()
                study.tell(trial, trial.suggest_float(f"x{trial.number % 5}", 0, 1))
        except Exception as error:
            wrong.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 100
    alone = made()
    for trial in alone.ask(100):
        assert {f"x{trial.number % 5}": trial.suggest_float(f"x{trial.number % 5}", 0, 1)} == (
            study.trials[trial.number].params
        )


FORKED = """
import multiprocessing, sys
from nestor import search

study = search.create_study(storage=search.FileStorage(sys.argv[1], lease=60.0), sampler=search.RandomSampler(seed=0))
study.ask()
with study._channel._saying, study.storage._lock:  # as a thread might hold them in that moment
    child = multiprocessing.get_context("fork").Process(target=lambda: study.tell(study.ask(), 1.0))
    child.start()
child.join(timeout=30)
print(child.exitcode, [trial.state.name for trial in study.trials])
print(len({entry["by"] for _, entry in study.storage.read(study._identity, 0) if entry["do"] == "ask"}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_a_worker_of_its_own(tmp_path):
    """In a program without JAX, which warns of forks."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "s.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout.splitlines() == ["0 ['RUNNING', 'COMPLETE']", "2"], done.stderr


def leaves(trial):
    sys.exit(3)


@pytest.mark.parametrize("batch", [None, 2])
def test_a_trial_that_leaves_the_program_is_given_back(storage, batch):
    study = made(storage)
    with pytest.raises(SystemExit):
        study.optimize(leaves, n_trials=2, batch=batch)
    assert {trial.state for trial in study.trials} == {TrialState.WAITING}


def test_ctrl_c_while_asking_gives_the_trials_back(storage):
    import signal

    study = made(storage)

    class Interrupted(search.RandomSampler):
        def __call__(self, asked, name, domain):
            signal.raise_signal(signal.SIGINT)
            return super().__call__(asked, name, domain)

    study.sampler = Interrupted(seed=0)
    with pytest.raises(KeyboardInterrupt):
        study.ask(3, space={"w": search.Array((2,), 0, 1)})
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_waits_for_what_was_asked_for_and_not_told(storage, workers):
    study = made(storage)
    study.ask()
    study.optimize(objectives.bowl, total=3, n_workers=workers)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING] + [TrialState.COMPLETE] * 2
    with pytest.raises(NestorError, match="trial 0"):
        study.optimize(objectives.bowl, n_trials=2, ordered=1)


def test_programs_that_share_a_total_in_batches_make_no_trial_too_many(tmp_path):
    made(tmp_path / "s.db")

    def program():
        study = search.load_study(storage=tmp_path / "s.db", sampler=search.RandomSampler(seed=0))
        study.optimize(objectives.batched, total=21, batch=4)

    threads = [threading.Thread(target=program) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = search.load_study(storage=tmp_path / "s.db").trials
    assert len(trials) == 21
    assert all(trial.state.is_finished for trial in trials)


def test_errors_that_look_like_a_lost_connection_are_raised_here(tmp_path):
    study = made(tmp_path / "s.db")
    with pytest.raises(EOFError, match="truncated"):
        study.optimize(objectives.truncated, n_trials=4, n_workers=2)
    study.optimize(objectives.with_children, n_trials=5, n_workers=2, catch=EOFError)
    assert study.trials[-1].value == 1.0


def test_an_executor_stops_at_the_first_error():
    from concurrent.futures import ThreadPoolExecutor

    def wrong_first(trial):
        if trial.number == 0:
            raise KeyError("no such thing")
        return objectives.slow_bowl(trial)

    study = made()
    with ThreadPoolExecutor(2) as threads, pytest.raises(KeyError):
        study.optimize(wrong_first, n_trials=2000, n_workers=2, executor=threads)
    assert len(study.trials) < 100


def test_a_trial_that_waits_to_be_promoted_has_not_ended(storage):
    seen = []
    study = made(storage, pruner=search.SuccessiveHalvingPruner(1, 2, promote=True))

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        for step in range(trial.restored or 0, 4):
            trial.checkpoint(step + 1)
            trial.report(x, step + 1)
            if trial.should_prune():
                raise search.TrialPruned
        return x

    study.optimize(objective, n_trials=8, callbacks=[lambda study, trial: seen.append(trial)])
    assert all(trial.state.is_finished for trial in seen)
    assert len({trial.number for trial in seen}) == len(seen) < 8


def test_exports_are_read_back_with_what_is_no_number(storage, tmp_path):
    study = made(storage, study_name="größe 🎉")
    trial = study.ask()
    trial.suggest_float("größe", 0, 1)
    trial.set_user_attr("ключ", "\u2028\u0085")
    for step, value in enumerate((math.nan, math.inf, -math.inf)):
        trial.report(value, step)
    study.tell(trial, -math.inf)
    study.export(tmp_path / "s.jsonl")
    assert all(json.loads(line) for line in (tmp_path / "s.jsonl").read_text().split("\n") if line)
    again = search.import_study(tmp_path / "s.jsonl", storage=storage, study_name="again")
    assert repr(again.trials[0]) == repr(study.trials[0])


def test_a_trial_that_has_ended_gets_no_more_parameters(storage):
    study = made(storage)
    trial = study.ask()
    study.tell(trial, 1.0)
    assert 0 <= trial.suggest_float("x", 0, 1) <= 1
    trial.report(1.0, 1)
    assert study.trials[0].params == study.trials[0].reports == {}


@pytest.mark.parametrize("slow_one_first", [True, False])
def test_a_value_belongs_to_the_parameters_of_its_worker(tmp_path, slow_one_first):
    """A slow worker loses its trial to another while both suggest; whoever tells first is heard, as a whole."""

    def opened(seed):
        storage = search.FileStorage(tmp_path / "s.db", lease=0.2)
        return search.create_study(
            storage=storage, study_name="s", load_if_exists=True, sampler=search.RandomSampler(seed=seed)
        )

    slow = opened(0)
    lost = slow.ask()
    x = lost.suggest_float("x", 0, 1)
    slow._channel.close()  # it gives no more signs of life, as one that is swapped out
    time.sleep(0.25)
    other = opened(1)
    found = other.ask()
    assert found.number == lost.number == 0
    mine, theirs = found.suggest_float("y", 0, 1), lost.suggest_float("y", 0, 1)
    other._channel.flush()
    slow._channel.flush()  # too late: the trial is another's
    lost.suggest_float("only", 0, 1)
    tells = [(slow, lost, 10.0), (other, found, 20.0)]
    for study, trial, value in tells if slow_one_first else tells[::-1]:
        study.tell(trial, value)
    whole = search.load_study(storage=tmp_path / "s.db").trials
    for trial in (whole[0], slow.trials[0], other.trials[0]):
        if slow_one_first:
            assert (trial.value, trial.params["x"], trial.params["y"], len(trial.params)) == (
                10.0,
                x,
                theirs,
                3,
            )
        else:
            assert (trial.value, trial.params["y"], "only" in trial.params) == (20.0, mine, False)


def test_one_who_only_looks_waits_for_no_writer_and_makes_no_file(tmp_path):
    made(tmp_path / "s.db", study_name="s").optimize(objectives.bowl, n_trials=2)
    writer = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    assert len(search.load_study(storage=tmp_path / "s.db").trials) == 2
    assert search.Follower(tmp_path / "s.db").names() == ["s"]
    assert time.monotonic() - begun < 60.0  # SQLite would wait twice as long for the lock
    writer.close()
    with pytest.raises(BadArgument, match=r"none\.db"):
        search.Follower(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_an_objective_that_a_worker_cannot_import_is_named():
    from nestor.search._pool import _found

    with pytest.raises(NestorError, match="top of a module"):
        _found(pickle.dumps(objectives.bowl, protocol=0).replace(b"bowl", b"none"))


def test_a_parent_is_a_trial_under_way():
    study = made()
    study.optimize(objectives.bowl, n_trials=1)
    with pytest.raises(BadArgument, match="'parent'"):
        search.create_study(parent=study.best_trial)  # type: ignore[arg-type]
