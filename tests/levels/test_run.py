"""What `Graph.run` promises: its numbers, its reports, its end, its files, and that it can be interrupted."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import BadArgument, Graph, Level
from nestor.levels import CSVLogger, Logger, TensorBoardLogger
from tests.compiles import compilations


def rows(scale: float = 1.0):
    """Inputs of three features and a target."""
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 3))
    return jnp.asarray(scale * x), jnp.asarray(x @ [1.0, -1.0, 0.5])


def levels(scale: float = 1.0, rate: float = 0.1, top=None, bottom=None):
    """Weights on shuffled minibatches with momentum below, one log-strength a weight above."""
    held = rows(-1.0)
    lower = lambda p, b: jnp.mean((b[0] @ p["w"] - b[1]) ** 2) + jnp.sum(jnp.exp(p["s"]) * p["w"] ** 2)  # noqa: E731
    upper = lambda p, _: jnp.mean((held[0] @ p["w"] + held[1]) ** 2)  # noqa: E731
    return {
        "w": Level(
            lower, jnp.zeros(3), bottom or nestor.sgd(0.05, momentum=0.5), data=rows(scale), batch_size=4, steps=3,
        ),
        "s": Level(upper, jnp.full(3, -1.0), top or nestor.adam(rate)),
    }  # fmt: skip


def graph(**options) -> Graph:
    return Graph(levels(**options))


def alone(loss=lambda p, _: p["x"] ** 2, start=1.0, rate=0.25) -> Graph:
    return Graph({"x": Level(loss, start, nestor.sgd(rate))})


def same(a, b) -> bool:
    """Whether two trees are equal bit for bit, NaN included."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(words(x), words(y), equal_nan=True) for x, y in pairs)


def words(leaf: jax.Array) -> np.ndarray:
    key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if key else leaf)


# --- numbers -------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_a_loop():
    """Full batches, alternating by hand: three steps below by gradient, one above through them."""
    x, y = rows()
    held = rows(-1.0)
    low = lambda w, s: jnp.mean((x @ w - y) ** 2) + jnp.sum(jnp.exp(s) * w**2)  # noqa: E731

    def answer(s, w):
        for _ in range(3):
            w = w - 0.05 * jax.grad(low)(w, s)
        return w

    def above(s, w):
        w = answer(s, w)
        return jnp.mean((held[0] @ w + held[1]) ** 2), w

    step = jax.jit(jax.value_and_grad(above, has_aux=True))
    s, w, losses, norms, below = jnp.full(3, -1.0), jnp.zeros(3), [], [], []
    for _ in range(4):
        (loss, w), slope = step(s, w)
        s = s - 0.3 * slope
        losses.append(loss)
        norms.append(jnp.linalg.norm(slope))
        below.append(low(w, s))
    there = levels(top=nestor.sgd(0.3), bottom=nestor.sgd(0.05))
    there["w"] = dataclasses.replace(there["w"], batch_size=None)
    run = Graph(there).run(4)
    np.testing.assert_allclose(run.params["w"], w, rtol=1e-12)
    np.testing.assert_allclose(run.params["s"], s, rtol=1e-12)
    np.testing.assert_allclose(run.history.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(run.history.gradient_norm, norms, rtol=1e-12)
    np.testing.assert_allclose(run.history.below["w"], below, rtol=1e-12)
    assert np.isnan(run.history.validation).all()
    assert (run.status.name, int(run.steps), run.success) == ("FINISHED", 4, True)
    assert np.isinf(run.best_validation_loss)
    assert same(run.best, run.params)


def test_going_on_is_one_longer_run():
    """Batches, momentum, Adam's moments and the random key included."""
    key = jax.random.key(7)
    whole = graph().run(6, key=key)
    first = graph().run(2, key=key)
    rest = graph().run(4, start=first)
    assert same(rest.params, whole.params)
    assert same(rest.state, whole.state)
    np.testing.assert_array_equal(np.r_[first.history.loss, rest.history.loss], whole.history.loss)
    assert not same(graph().run(6).params, whole.params)  # another key
    here = graph().hypergradient(start=first)
    np.testing.assert_allclose(here.loss, whole.history.loss[2], rtol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(here.gradient), whole.history.gradient_norm[2], rtol=1e-12)
    first_of_all = graph().hypergradient(key=key)
    np.testing.assert_allclose(first_of_all.loss, whole.history.loss[0], rtol=1e-12)


def test_a_start_of_another_graph_is_refused():
    other = graph(top=nestor.sgd(0.1)).run(1)
    for start in (other, alone().run(1), "here"):
        for use in (
            lambda start: graph().run(2, start=start),
            lambda start: graph().hypergradient(start=start),
        ):
            with pytest.raises(BadArgument, match="argument 'start'"):
                use(start)


def test_a_fresh_graph_compiles_nothing_and_is_never_stale():
    first = graph().run(3)
    with compilations() as count:
        again = graph().run(3)
        scaled = graph(scale=2.0).run(3)
        other = graph(rate=0.2).run(3)
        keyed = graph().run(3, key=jax.random.key(3))
        graph().hypergradient()
    assert count.number <= 2  # the hypergradient, once
    assert same(again.params, first.params)
    for run in (scaled, other, keyed):
        assert not same(run.params, first.params)
    twice = alone(lambda p, _: 2 * p["x"] ** 2).run(1)
    assert float(twice.params["x"]) == 0.0  # another program is another loss
    assert float(alone().run(1).params["x"]) == 0.5


# --- reports -------------------------------------------------------------------------------------------


def test_a_callback_sees_the_run():
    seen = []
    run = graph().run(5, callback=seen.append, report_every=2, validation=lambda p: jnp.sum(p["w"] ** 2))
    assert [(r.step, r.steps) for r in seen] == [(2, 5), (4, 5), (5, 5)]
    for report in seen:
        at = report.step - 1
        assert set(report.metrics) == {"w/loss", "s/loss", "s/gradient_norm", "validation", "best_validation"}
        assert report.metrics["s/loss"] == run.history.loss[at]
        assert report.metrics["s/gradient_norm"] == run.history.gradient_norm[at]
        assert report.metrics["w/loss"] == run.history.below["w"][at]
        assert report.metrics["validation"] == run.history.validation[at]
    assert same(seen[-1].params, run.params)
    np.testing.assert_array_equal(np.isfinite(run.history.below["w"]), [False, True, False, True, True])


def test_who_looks_on_changes_nothing():
    plain = graph().run(5)
    watched = graph().run(5, callback=lambda report: None)
    assert same(plain.history, watched.history)
    assert np.isfinite(plain.history.below["w"]).all()  # a hundredth of the run is one step


@pytest.mark.parametrize("how", ["true", "StopIteration", "Ctrl-C", "signal"])
def test_a_run_is_stopped(how: str, tmp_path: Path):
    def stop(report):
        if report.step < 4:
            return None
        if how == "StopIteration":
            raise StopIteration
        if how == "Ctrl-C":
            raise KeyboardInterrupt
        if how == "signal":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return True

    file = tmp_path / "run.npz"
    run = graph().run(9, callback=stop, report_every=2, checkpoint=file, checkpoint_every=9)
    assert (run.status.name, int(run.steps), run.history.loss.shape) == ("STOPPED", 4, (4,))
    whole = graph().run(9)
    np.testing.assert_array_equal(run.history.loss, whole.history.loss[:4])
    rest = graph().run(9, checkpoint=file)  # what was saved goes on
    assert (rest.status.name, int(rest.steps)) == ("FINISHED", 9)
    assert same(rest.params, whole.params)


def test_a_run_that_nobody_looks_at_is_stopped():
    steps = 1_000_000
    there = Graph({"x": Level(lambda p, _: jnp.sum(p["x"] ** 2), jnp.ones(3000), nestor.sgd(1e-9))})
    timer = threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT))
    there.run(steps, callback=lambda report: True)  # compiled now
    timer.start()
    run = there.run(steps)
    assert run.status.name == "STOPPED"
    assert 100 < int(run.steps) < steps
    np.testing.assert_allclose(run.params["x"][0], (1 - 2e-9) ** int(run.steps), rtol=1e-9)


def test_an_end_is_not_hidden_by_a_callback(tmp_path: Path):
    """A run that has ended by itself when its callback wants to stop it."""
    file = tmp_path / "run.npz"
    run = alone().run(2, callback=lambda report: report.step == 2, checkpoint=file)
    assert run.status.name == "FINISHED"
    assert alone().run(2, checkpoint=file).status.name == "FINISHED"
    lost = alone(lambda p, _: jnp.log(p["x"] - 0.5)).run(
        9, callback=lambda r: r.step == 2, raise_on_failure=False
    )
    assert lost.status.name == "NOT_FINITE"


def test_an_exception_of_a_callback_passes():
    def fails(report):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        alone().run(3, callback=fails)


def test_a_progress_bar(capsys):
    alone().run(3, progress=True)
    text = capsys.readouterr().err
    assert "x: 100%" in text
    assert "3/3" in text
    assert "loss=0.0625" in text


# --- loggers -------------------------------------------------------------------------------------------


def test_a_csv_file_is_written_and_continued(tmp_path: Path):
    file = tmp_path / "deep" / "run.csv"
    first = graph().run(2, logger=CSVLogger(file), report_every=1)
    graph().run(3, logger=CSVLogger(file), report_every=2, start=first)
    with file.open(newline="") as opened:
        lines = list(csv.DictReader(opened))
    assert [line["step"] for line in lines] == ["1", "2", "2", "3"]
    assert [float(line["s/loss"]) for line in lines[:2]] == np.asarray(first.history.loss).tolist()
    assert [float(line["w/loss"]) for line in lines[:2]] == np.asarray(first.history.below["w"]).tolist()


def test_a_csv_file_of_something_else_is_refused(tmp_path: Path):
    file = tmp_path / "run.csv"
    file.write_text("step,other\n1,2\n")
    with pytest.raises(BadArgument, match="no column 'x/loss'"):
        alone().run(2, logger=CSVLogger(file))
    assert file.read_text() == "step,other\n1,2\n"
    file.write_text("")
    alone().run(2, logger=CSVLogger(file))
    assert file.read_text().splitlines()[0] == "step,x/loss,x/gradient_norm"


def test_a_logger_of_the_users_own():
    class Mine:
        def __init__(self):
            self.seen, self.closed = [], 0

        def __bool__(self):  # such as an empty list that is logged to
            return False

        def log(self, step, metrics):
            self.seen.append((step, metrics["x/loss"]))

        def close(self):
            self.closed += 1

    mine = Mine()
    assert isinstance(mine, Logger)
    alone().run(4, logger=mine, report_every=2)
    assert (mine.seen, mine.closed) == ([(2, 0.25), (4, 0.015625)], 1)


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(nestor.MissingExtra, match=r"nestor\[tensorboard\]"):
            TensorBoardLogger(tmp_path)
    pytest.importorskip("tensorboardX")
    alone().run(2, logger=TensorBoardLogger(tmp_path / "events"), report_every=1)
    written = b"".join(path.read_bytes() for path in (tmp_path / "events").iterdir())
    assert written.count(b"x/loss") == 2


# --- validation, and how a run ends --------------------------------------------------------------------


def test_the_best_is_kept_and_patience_ends():
    """x falls by halves from 1; the best validation is at x = 1/4."""
    validation = lambda p: (p["x"] - 0.26) ** 2  # noqa: E731
    run = alone().run(20, validation=validation, validate_every=1)
    assert (run.status.name, float(run.best["x"])) == ("FINISHED", 0.25)
    np.testing.assert_allclose(run.best_validation_loss, 0.01**2, rtol=1e-10)
    np.testing.assert_allclose(
        run.history.validation, [(0.5 ** (t + 1) - 0.26) ** 2 for t in range(20)], rtol=1e-10
    )
    early = alone().run(20, validation=validation, validate_every=1, patience=3)
    assert (early.status.name, int(early.steps), float(early.best["x"])) == ("OVERFITTED", 5, 0.25)
    assert early.success
    assert float(early.params["x"]) == 0.5**5
    assert early.history.loss.shape == (5,)
    rare = alone().run(7, validation=validation, validate_every=3)
    np.testing.assert_array_equal(
        np.isnan(rare.history.validation), [True, True, False, True, True, False, False]
    )


def test_numbers_that_are_lost():
    bad = alone(lambda p, _: jnp.log(p["x"]), 0.3)
    with pytest.raises(nestor.SolveFailed, match=r"Graph.run") as caught:
        bad.run(9)
    run = caught.value.solution
    kept = bad.run(9, raise_on_failure=False)
    for outcome in (run, kept):
        assert outcome.status.name == "NOT_FINITE"
        assert not outcome.success
        assert np.isfinite(outcome.params["x"])
        assert not np.isfinite(outcome.history.loss[-1])
        assert np.isfinite(outcome.history.loss[:-1]).all()
    assert f"outer step {int(run.steps) - 1}." in str(caught.value)


def test_a_move_to_infinity_is_seen_when_it_is_made():
    """The loss and its gradient were finite; where the move leads is not."""
    run = alone(rate=1e308, start=2.0).run(1, raise_on_failure=False)
    assert (run.status.name, float(run.params["x"])) == ("NOT_FINITE", 2.0)


def test_numbers_lost_below():
    there = levels(bottom=nestor.sgd(1e200))
    run = Graph(there).run(3, raise_on_failure=False)
    assert run.status.name == "NOT_FINITE"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))


# --- files ---------------------------------------------------------------------------------------------


def test_an_interrupted_run_is_resumed_exactly(tmp_path: Path):
    file = tmp_path / "deep" / "run.npz"
    validation = lambda p: jnp.sum(p["w"] ** 2)  # noqa: E731
    whole = graph().run(10, validation=validation)

    def kill(report):
        if report.step == 7:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        graph().run(
            10, validation=validation, checkpoint=file, checkpoint_every=3, callback=kill, report_every=1
        )
    steps = []
    again = graph().run(
        10, validation=validation, checkpoint=file, checkpoint_every=3, callback=lambda r: steps.append(r.step),
    )  # fmt: skip
    assert steps == [7, 8, 9, 10]  # from where it was saved, whoever looks on
    assert same(again, whole)
    assert same(graph().run(10, validation=validation, checkpoint=file), whole)  # finished: read, not run


def test_a_foreign_checkpoint_is_refused(tmp_path: Path):
    file = tmp_path / "run.npz"
    graph().run(3, checkpoint=file)
    saved = file.read_bytes()
    twice = levels()
    twice["s"] = dataclasses.replace(twice["s"], loss=lambda p, b, f=twice["s"].loss: 2 * f(p, b))
    refused = {
        "data": lambda: graph(scale=2.0).run(3, checkpoint=file),
        "rate": lambda: graph(rate=0.2).run(3, checkpoint=file),
        "steps": lambda: graph().run(4, checkpoint=file),
        "key": lambda: graph().run(3, checkpoint=file, key=jax.random.key(1)),
        "patience": lambda: graph().run(3, checkpoint=file, validation=lambda p: p["w"][0], patience=1),
        "start": lambda: graph().run(3, checkpoint=file, start=graph().run(1)),
        "loss": lambda: Graph(twice).run(3, checkpoint=file),
    }
    for name, call in refused.items():
        with pytest.raises(BadArgument, match="argument 'checkpoint'"):
            call()
        assert file.read_bytes() == saved, name
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(BadArgument, match="cannot be resumed"):
        graph().run(3, checkpoint=file)


KILLED = """
import os, signal, sys
from tests import conftest  # strict numbers as here
from tests.levels.test_run import graph

def kill(report):
    if report.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)

graph().run(8, checkpoint=sys.argv[1], checkpoint_every=2, callback=kill, report_every=1)
"""


def test_a_run_that_was_killed_is_resumed_exactly(tmp_path: Path):
    file = tmp_path / "run.npz"
    flags = {"XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = subprocess.run(
        [sys.executable, "-c", KILLED, str(file)], env={**os.environ, **flags}, check=False
    ).returncode
    assert code == -signal.SIGKILL
    assert file.exists()
    steps = []
    again = graph().run(8, checkpoint=file, callback=lambda report: steps.append(report.step))
    assert steps == [5, 6, 7, 8]
    assert same(again, graph().run(8))
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


# --- transformations of JAX ----------------------------------------------------------------------------


def test_inside_jit_and_vmap():
    run = lambda rate: graph(rate=rate).run(3, validation=lambda p: jnp.sum(p["w"] ** 2))  # noqa: E731
    rates = jnp.array([0.1, 0.3])
    many = jax.jit(jax.vmap(run))(rates)
    assert many.history.loss.shape == (2, 3)
    for i, rate in enumerate(rates):
        want = run(rate)
        for got, leaf in zip(jax.tree.leaves(many.params), jax.tree.leaves(want.params), strict=True):
            np.testing.assert_allclose(got[i], leaf, rtol=1e-10)
        np.testing.assert_allclose(many.best_validation_loss[i], want.best_validation_loss, rtol=1e-10)
        assert int(many.code[i]) == int(want.code)


def test_lanes_end_each_at_its_own_step():
    validation = lambda p: (p["x"] - 0.26) ** 2  # noqa: E731
    go = lambda start: alone(start=start).run(12, validation=validation, validate_every=1, patience=2)  # noqa: E731
    starts = [1.0, 8.0, 0.01]
    many = jax.vmap(go)(jnp.array(starts))
    for i, start in enumerate(starts):
        one = go(start)
        assert (int(many.steps[i]), int(many.code[i])) == (int(one.steps), int(one.code))
        np.testing.assert_array_equal(many.best["x"][i], one.best["x"])
    assert len(set(many.steps.tolist())) == 3


def test_inside_a_trace_nobody_looks_on():
    for name, value in {
        "callback": print,
        "checkpoint": "a",
        "progress": True,
        "logger": CSVLogger("a"),
        "compiler_options": {"xla_cpu_use_fusion_emitters": False},
    }.items():
        with pytest.raises(BadArgument, match=f"argument '{name}'"):
            jax.jit(lambda x, more: alone(start=x).run(2, **more).params["x"], static_argnums=1)(
                1.0, Some({name: value})
            )


def test_options_of_the_compiler_change_how_it_compiles_and_nothing_else():
    plain = alone(start=3.0).run(5)
    lean = alone(start=3.0).run(5, compiler_options={"xla_cpu_use_fusion_emitters": False})
    np.testing.assert_allclose(lean.params["x"], plain.params["x"], rtol=1e-12)
    with pytest.raises(Exception, match="no_such_option"):  # XLA's own words
        alone(start=3.0).run(5, compiler_options={"no_such_option": True})


class Some(dict):
    """A dictionary that can be hashed: by what it is."""

    def __hash__(self):
        return id(self)


def test_its_derivative_is_refused_with_a_remedy():
    for transform in (jax.grad, jax.jacfwd):
        with pytest.raises(nestor.CannotDifferentiate, match="level above the highest one"):
            transform(lambda x: alone(start=x).run(2).params["x"])(1.0)
    assert (
        float(jax.grad(lambda x: alone(start=jax.lax.stop_gradient(x)).run(2).params["x"] * x)(1.0)) == 0.25
    )


def test_a_hypergradient_is_differentiable():
    """h -> w = 3 h after convergence; upper (w - 1)^2: the gradient 2 (3 h - 1) 3, its derivative 18."""

    def slope(h):
        there = {
            "w": Level(lambda p, _: (p["w"] - 3 * p["h"]) ** 2, 0.0, nestor.sgd(0.5), steps=2),
            "h": Level(lambda p, _: (p["w"] - 1) ** 2, h, nestor.sgd(0.1)),
        }
        return Graph(there).hypergradient().gradient

    np.testing.assert_allclose(slope(2.0), 30.0, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(slope)(2.0), 18.0, rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(slope)(2.0), 18.0, rtol=1e-12)
