"""What each field of a `Level` promises, in float64, against loops by hand, closed forms and differences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import Graph, Level, linear
from nestor.levels import Reinforce, Smoothed
from tests.compiles import compilations

H = jnp.array([0.7, -0.4, 0.2])
Q = jnp.array([[1.0, 0.2, 0.1], [0.2, 0.8, -0.1], [0.1, -0.1, 1.2]])
C = jnp.array([0.3, -1.0, 0.5])


def low(w, h):
    """Its minimizer is not linear in h, nor its Hessian constant."""
    return 0.5 * w @ Q @ w - w @ jnp.sin(h) + 0.1 * jnp.sum(jnp.exp(h) * w**4)


def high(w, h):
    return jnp.sum((w - C) ** 2) + 0.1 * jnp.sum(h**2)


def pair(adjoint=None, steps=5, optimizer=None, h=H, **options):
    """Two levels; what is not told is plain."""
    options = {"loss": lambda p, _: low(p["w"], p["h"]), "params": jnp.zeros(3)} | options
    return {
        "w": Level(optimizer=optimizer or nestor.sgd(0.3), steps=steps, adjoint=adjoint, **options),
        "h": Level(lambda p, _: high(p["w"], p["h"]), h, nestor.sgd(0.1)),
    }


def slope(levels, start=None, **options):
    return Graph(levels).hypergradient(start=start, **options).gradient


low_slope = jax.jit(jax.grad(low))


def by_hand(w, h, steps=5, rate=0.3, momentum=0.0, velocity=None):
    """Steps of gradient descent from w: the end, and the velocity there."""
    v = jnp.zeros(3) if velocity is None else velocity
    for _ in range(steps):
        v = momentum * v + low_slope(w, h)
        w = w - rate * v
    return w, v


def memory(levels) -> int:
    """Bytes of a compiled hypergradient besides its inputs and outputs."""
    compiled = jax.jit(lambda h: slope(levels(h))).lower(H).compile()
    return compiled.memory_analysis().temp_size_in_bytes


# --- where a run of a level starts ---------------------------------------------------------------------


def test_a_start_from_above_is_differentiated():
    """As in MAML: what is learned is where the steps below begin."""
    levels = pair(nestor.Unroll(), start=lambda p: jnp.cos(p["h"]))
    through = jax.jit(jax.value_and_grad(lambda h: high(by_hand(jnp.cos(h), h)[0], h)))
    want = through(H)
    found = Graph(levels).hypergradient()
    np.testing.assert_allclose(found.loss, want[0], rtol=1e-13)
    np.testing.assert_allclose(found.gradient, want[1], rtol=1e-12)
    moved = Graph(levels).run(1)
    want = through(H - 0.1 * want[1])[1]  # from the start again, optimizer included
    np.testing.assert_allclose(slope(levels, moved), want, rtol=1e-12)
    same = pair(nestor.Unroll(), start=lambda p: jnp.cos(p["h"]), optimizer=nestor.sgd(0.3, momentum=0.5))
    want = slope(same)
    for adjoint in (nestor.Reversible(), nestor.FiniteDifference()):
        other = pair(adjoint, start=lambda p: jnp.cos(p["h"]), optimizer=nestor.sgd(0.3, momentum=0.5))
        np.testing.assert_allclose(slope(other), want, rtol=1e-6)


def ends(**options):
    """Where w is after each of four moves of a highest level that does not move."""
    levels = pair(nestor.Unroll(), optimizer=nestor.sgd(0.3, momentum=0.5), **options)
    levels["h"] = Level(levels["h"].loss, H, nestor.sgd(0.0))
    graph, run, seen = Graph(levels), None, []
    for _ in range(4):
        run = graph.run(1, start=run)
        seen.append(run.params["w"])
    return np.stack(seen)


def test_warm_and_fresh_starts():
    """Without a policy it goes on, velocity included; else it starts afresh at every k-th run."""
    w, v, warm = jnp.zeros(3), None, []
    for _ in range(4):
        w, v = by_hand(w, H, momentum=0.5, velocity=v)
        warm.append(w)
    np.testing.assert_allclose(ends(), warm, rtol=1e-12)
    np.testing.assert_allclose(ends(restart=True), [warm[0]] * 4, rtol=1e-12)
    np.testing.assert_allclose(ends(restart=3), [*warm[:3], warm[0]], rtol=1e-12)
    np.testing.assert_allclose(ends(restart=3, start=lambda p: 0 * p["h"]), [*warm[:3], warm[0]], rtol=1e-12)
    np.testing.assert_allclose(ends(start=lambda p: 0 * p["h"]), [warm[0]] * 4, rtol=1e-12)


def test_a_start_may_be_drawn():
    """Anew at every run, the same in the same run; derivatives go through it."""
    levels = pair(
        start=lambda p, key: jnp.cos(p["h"]) + jax.random.normal(key, (3,)), optimizer=nestor.sgd(0.0)
    )
    graph = Graph(levels)
    first, runs = graph.hypergradient(), [graph.run(n) for n in (1, 2)]
    drawn = first.params["w"]
    np.testing.assert_array_equal(runs[0].params["w"], drawn)
    want = jax.grad(lambda h: high(jnp.cos(h) + drawn - jnp.cos(H), h))(H)
    np.testing.assert_allclose(first.gradient, want, rtol=1e-12)
    other = runs[1].params["w"] - jnp.cos(runs[0].params["h"])
    assert jnp.all(jnp.abs(other - (drawn - jnp.cos(H))) > 1e-3)


def test_adam_counts_from_a_fresh_start():
    levels = pair(nestor.Unroll(), optimizer=nestor.adam(0.1), restart=True)
    levels["h"] = Level(levels["h"].loss, H, nestor.sgd(0.0))
    runs = [Graph(levels).run(n) for n in (1, 3)]
    np.testing.assert_array_equal(runs[0].params["w"], runs[1].params["w"])


# --- closed forms and constraints ----------------------------------------------------------------------


def test_an_answer_in_closed_form():
    """A ridge regression in the middle: exact where its answer is put in by hand."""
    answer = lambda h: jnp.linalg.solve(Q + jnp.diag(jnp.exp(h)), C)  # noqa: E731
    levels = {
        "w": Level(lambda p, _: low(p["w"], p["h"]), jnp.ones(3), answer=lambda p: answer(p["h"])),
        "h": Level(lambda p, _: high(p["w"], p["h"]), H, nestor.sgd(0.1)),
    }
    want = jax.value_and_grad(lambda h: high(answer(h), h))(H)
    found = Graph(levels).hypergradient()
    np.testing.assert_allclose(found.loss, want[0], rtol=1e-13)
    np.testing.assert_allclose(found.gradient, want[1], rtol=1e-12)
    run = Graph(levels).run(2)
    np.testing.assert_allclose(found.params["w"], answer(H), rtol=1e-13)
    assert np.isfinite(run.history.below["w"]).all()


BOUND = jnp.array([-9.0, -9.0, 0.4])  # the third entry stays at its bound


def boxed(adjoint, steps):
    return pair(adjoint, steps, project=lambda w: jnp.maximum(w, BOUND))


def test_it_is_projected_after_every_move():
    w = jnp.zeros(3)
    for _ in range(5):
        w = jnp.maximum(w - 0.3 * low_slope(w, H), BOUND)
    found = Graph(boxed(nestor.Unroll(), 5)).hypergradient()
    np.testing.assert_allclose(found.params["w"], w, rtol=1e-12)


@pytest.mark.parametrize(
    "adjoint", [nestor.Implicit(), pytest.param(nestor.Implicit(linear.GMRES()), marks=pytest.mark.slow)]
)
def test_the_derivative_of_a_constrained_answer(adjoint):
    """What is held by a constraint has no derivative; the rest has that of the smaller problem."""
    found = Graph(boxed(adjoint, 200)).hypergradient()
    np.testing.assert_allclose(found.params["w"][2], 0.4)
    np.testing.assert_allclose(found.gradient, slope(boxed(nestor.Unroll(), 200)), rtol=1e-9)


def test_gradients_are_clipped():
    levels = pair(nestor.Unroll(), 1, clip=0.2)
    levels["h"] = Level(levels["h"].loss, H, nestor.sgd(0.1), clip=jnp.asarray(0.01))
    gradient = low_slope(jnp.zeros(3), H)
    w = -0.3 * 0.2 * gradient / jnp.linalg.norm(gradient)
    run = Graph(levels).run(1)
    np.testing.assert_allclose(run.params["w"], w, rtol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(run.params["h"] - H), 0.1 * 0.01, rtol=1e-12)
    np.testing.assert_allclose(run.history.gradient_norm, 0.01, rtol=1e-12)
    np.testing.assert_array_equal(slope(pair(clip=1e9)), slope(pair()))


# --- batches -------------------------------------------------------------------------------------------


ROWS = jax.random.normal(jax.random.key(3), (24, 3)), jax.random.normal(jax.random.key(4), (24,))


def fit(adjoint=None, steps=3, **options):
    """Weights on data below."""
    loss = lambda p, b: jnp.mean(jnp.tanh(b[0] @ p["w"] - b[1]) ** 2) + jnp.sum(jnp.exp(p["h"]) * p["w"] ** 2)  # noqa: E731
    return pair(adjoint, steps, **({"loss": loss, "data": ROWS} | options))


def test_a_batch_in_parts_is_the_same_batch():
    for size in (None, 12):
        whole, parts = Graph(fit(batch_size=size)), Graph(fit(batch_size=size, accumulate=3))
        assert parts.reads == whole.reads  # the loop over the parts does not hide what is read
        one, other = whole.hypergradient(), parts.hypergradient()
        np.testing.assert_allclose(other.params["w"], one.params["w"], rtol=1e-12)
        np.testing.assert_allclose(other.gradient, one.gradient, rtol=1e-12)


def test_what_is_not_read_is_not_read_in_parts_either():
    levels = fit()
    free = {"c": Level(lambda p, _: jnp.sum(p["c"] ** 2), jnp.ones(2), nestor.sgd(0.1)), **levels}
    free["h"] = Level(
        lambda p, b: high(p["w"], p["h"]) + jnp.mean(b) * jnp.sum(p["c"]), H, nestor.sgd(0.1),
        data=ROWS[1], accumulate=2,
    )  # fmt: skip
    free["w"] = fit(accumulate=2)["w"]
    graph = Graph(free)
    assert graph.reads == {"c": ("c",), "w": ("w", "h"), "h": ("c", "w", "h")}
    assert graph.needs["w"] == ()


def test_parts_take_the_memory_of_one():
    wide = jax.random.normal(jax.random.key(5), (1000, 3))

    def levels(h, parts):
        def loss(p, b):
            return jnp.mean(jnp.tanh(b @ jnp.outer(p["w"], jnp.arange(50.0)))) + p["w"] @ p["h"]

        return pair(nestor.Unroll(), 1, h=h, loss=loss, data=wide * h[0], accumulate=parts)

    assert memory(lambda h: levels(h, 20)) < memory(lambda h: levels(h, 1)) / 5


def test_every_example_comes_once_an_epoch():
    """The mean of the rows' numbers, seen through steps of rate one: w counts what it has met."""
    loss = lambda p, b: -jnp.sum(jnp.eye(24)[b] @ p["w"]) + 0 * jnp.sum(p["h"])  # noqa: E731
    counts = lambda steps, **more: Graph(  # noqa: E731
        pair(nestor.Unroll(), steps, nestor.sgd(1.0), loss=loss, params=jnp.zeros(24), data=jnp.arange(24), **more)
        | {"h": Level(lambda p, _: jnp.sum(p["h"] ** 2) + p["w"][0], H, nestor.sgd(0.1))}
    ).run(2).params["w"]  # fmt: skip
    np.testing.assert_array_equal(
        counts(3, batch_size=4), np.ones(24)
    )  # two runs of three batches: one epoch
    np.testing.assert_array_equal(counts(6, batch_size=4), np.full(24, 2.0))
    half = counts(2, batch_size=4)
    assert sorted(half) == [0.0] * 8 + [1.0] * 16
    assert half[:16].sum() < 16
    ordered = counts(2, batch_size=4, shuffle=False)
    np.testing.assert_array_equal(ordered, [1.0] * 16 + [0.0] * 8)


def test_data_as_a_function_of_the_number_of_the_batch():
    batch = lambda t: jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, 4 * (t % 6), 4), ROWS)  # noqa: E731
    one = Graph(fit(data=batch)).run(2)
    other = Graph(fit(batch_size=4, shuffle=False)).run(2)
    np.testing.assert_allclose(one.params["w"], other.params["w"], rtol=1e-12)
    np.testing.assert_allclose(one.history.loss, other.history.loss, rtol=1e-12)


def test_noise_is_fresh_at_every_move_and_repeatable():
    loss = lambda p, _, key: -jax.random.normal(key) * p["w"][0] + 0 * jnp.sum(p["h"])  # noqa: E731
    levels = pair(nestor.Unroll(), 1, nestor.sgd(1.0), loss=loss, stochastic=True)
    paths = []
    for key in (0, 0, 1):
        run, seen = None, [0.0]
        for _ in range(4):
            run = Graph(levels).run(1, start=run, key=jax.random.key(key))
            seen.append(float(run.params["w"][0]))
        paths.append(np.diff(seen))
    assert len(set(paths[0].tolist())) == 4
    np.testing.assert_array_equal(paths[0], paths[1])
    assert not (paths[0] == paths[2]).any()


def test_half_precision_is_of_the_loss_alone():
    rows = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), ROWS)
    kinds = []

    def loss(p, b):
        kinds.append((p["w"].dtype, p["h"].dtype, b[0].dtype))
        return jnp.mean((b[0] @ p["w"] - b[1]) ** 2) + jnp.sum(jnp.exp(p["h"]) * p["w"] ** 2)

    def go(precision):
        single = {"params": jnp.zeros(3, jnp.float32), "h": H.astype(jnp.float32)}
        levels = pair(
            nestor.Unroll(), 3, nestor.adam(0.1), loss=loss, data=rows, precision=precision, **single
        )
        levels["h"] = Level(lambda p, _: jnp.sum((p["w"] - 1) ** 2), single["h"], nestor.sgd(0.1))
        return Graph(levels).run(3)

    full, half = go(None), go("bfloat16")
    assert kinds[0] == (jnp.float32,) * 3
    assert kinds[-1] == (jnp.bfloat16,) * 3
    for leaf in jax.tree.leaves((half.params, half.state.states)):
        assert leaf.dtype in (jnp.float32, jnp.int32)
    np.testing.assert_allclose(half.history.loss, full.history.loss, rtol=2e-2)
    assert not (half.history.loss[1:] == full.history.loss[1:]).any()


# --- optimizers ----------------------------------------------------------------------------------------


RATES = jnp.log(jnp.array([0.2, 0.3, 0.1]))


def rated(rates, adjoint, make):
    levels = pair(adjoint, 4, lambda p: make(jnp.exp(p["r"])), loss=lambda p, _: low(p["w"], H))
    del levels["h"]
    return levels | {"r": Level(lambda p, _: high(p["w"], H), rates, nestor.sgd(0.1))}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda r: nestor.sgd(r[0], momentum=r[2]), marks=pytest.mark.slow),
        lambda r: nestor.sgd(r),
        lambda r: nestor.adam(r[0], eps=1e-3),
    ],
    ids=["momentum", "a schedule", "adam"],
)
def test_a_rate_is_learned_from_above(make):
    loss = jax.jit(lambda rates: Graph(rated(rates, nestor.Unroll(), make)).hypergradient().loss)
    want = [(8 * (loss(RATES + e) - loss(RATES - e)) - loss(RATES + 2 * e) + loss(RATES - 2 * e)) / 12e-3
            for e in 1e-3 * jnp.eye(3)]  # fmt: skip
    for adjoint, tol in (
        (nestor.Unroll(), 1e-8),
        (nestor.Reversible(), 1e-4),
    ):  # 1e-5 where steps have no memory
        found = slope(rated(RATES, adjoint, make))
        np.testing.assert_allclose(found, want, rtol=tol, atol=1e-10)
    assert Graph(rated(RATES, None, make)).feels["w"] == ("r",)


def test_groups_have_options_of_their_own():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    loss = lambda p, _: jnp.sum(p["w"]["a"] ** 2) + jnp.sum(p["w"]["b"] ** 2)  # noqa: E731
    run = Graph({"w": Level(loss, params, nestor.sgd({"a": 0.25, "b": 0.0}))}).run(1)
    np.testing.assert_array_equal(run.params["w"]["a"], [0.5, 0.5])
    np.testing.assert_array_equal(run.params["w"]["b"], [1.0, 1.0])
    parts = optax.multi_transform(
        {"fast": optax.sgd(0.25), "slow": optax.sgd(0.0)}, {"a": "fast", "b": "slow"}
    )
    other = Graph({"w": Level(loss, params, parts)}).run(1)
    np.testing.assert_array_equal(other.params["w"]["a"], [0.5, 0.5])
    np.testing.assert_array_equal(other.params["w"]["b"], [1.0, 1.0])


# --- parameters of every kind --------------------------------------------------------------------------


def test_an_equinox_model_and_its_common_start():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(3, "scalar", 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    loss = lambda p, b: jnp.mean((jax.vmap(p["net"])(b[0]) - b[1]) ** 2)  # noqa: E731
    levels = {
        "net": Level(loss, model, nestor.sgd(0.1), data=ROWS, steps=2, start=lambda p: p["common"]),
        "common": Level(loss, model, nestor.adam(0.01), data=ROWS),
    }
    run = Graph(levels).run(3)
    assert run.params["net"].activation is model.activation
    arrays, rest = eqx.partition(model, eqx.is_array)

    def by_hand(arrays):
        fitted = arrays
        own = lambda a: loss({"net": eqx.combine(a, rest)}, ROWS)  # noqa: E731
        for _ in range(2):
            fitted = jax.tree.map(lambda a, g: a - 0.1 * g, fitted, jax.grad(own)(fitted))
        return own(fitted)

    found = Graph(levels).hypergradient()
    want = jax.value_and_grad(by_hand)(arrays)
    np.testing.assert_allclose(found.loss, want[0], rtol=1e-12)
    for got, leaf in zip(jax.tree.leaves(found.gradient), jax.tree.leaves(want[1]), strict=True):
        np.testing.assert_allclose(got, leaf, rtol=1e-9, atol=1e-13)


def test_leaves_that_are_no_arrays_pass():
    params = {"w": jnp.zeros(3), "power": 2, "mask": jnp.array([1, 0, 1]), "name": "mine"}

    def loss(p, _):
        own = p["w"]
        return low(own["w"] * own["mask"].astype(float), p["h"]) + 0.1 * jnp.sum(own["w"] ** own["power"])

    levels = pair(
        nestor.Unroll(), 2, loss=loss, params=params,
        start=lambda p: {**params, "w": p["h"]}, project=lambda w: {**w, "w": jnp.minimum(w["w"], 0.3)},
    )  # fmt: skip
    levels["h"] = Level(lambda p, _: high(p["w"]["w"], p["h"]), H, nestor.sgd(0.1))
    run = Graph(levels).run(2)
    assert (run.params["w"]["name"], run.params["w"]["power"]) == ("mine", 2)
    np.testing.assert_array_equal(run.params["w"]["mask"], [1, 0, 1])
    assert float(run.params["w"]["w"][0]) <= 0.3
    assert Graph(levels).hypergradient("w").gradient["name"] is None


# --- adjoints: the steps -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(nestor.sgd(0.1, momentum=0.9), id="sgd"),
        pytest.param(nestor.adam(0.05, eps=1e-3), id="adam", marks=pytest.mark.slow),
    ],
)
def test_reversed_steps_are_unrolled_steps(optimizer):
    """At the start, and in the midst of a run: with warm velocities, moments and step counts."""
    made = lambda adjoint: pair(adjoint, 12, optimizer)  # noqa: E731
    here = Graph(made(nestor.Unroll())).run(2)
    for start in (None, here):
        want, found = slope(made(nestor.Unroll()), start), slope(made(nestor.Reversible()), start)
        np.testing.assert_allclose(found, want, rtol=1e-6)
    there = Graph(made(nestor.Reversible())).run(3)
    np.testing.assert_allclose(there.params["w"], Graph(made(nestor.Unroll())).run(3).params["w"], rtol=1e-7)


@pytest.mark.slow
def test_reversed_minibatches_are_the_same():
    made = lambda adjoint: fit(adjoint, 7, batch_size=4, optimizer=nestor.sgd(0.1, momentum=0.8), clip=0.5)  # noqa: E731
    here = Graph(made(nestor.Unroll())).run(1)
    np.testing.assert_allclose(
        slope(made(nestor.Reversible()), here), slope(made(nestor.Unroll()), here), rtol=1e-6
    )


def test_reversed_steps_take_little_memory():
    def bytes_of(adjoint, steps):
        loss = lambda p, _: jnp.sum(jnp.cosh(p["w"] - jnp.sum(p["h"])))  # noqa: E731

        def made(h):
            levels = pair(adjoint, steps, nestor.sgd(0.01, momentum=0.98), loss=loss, params=jnp.zeros(500))
            return levels | {
                "h": Level(lambda p, _: jnp.sum(p["w"] ** 2) + jnp.sum(p["h"]), h, nestor.sgd(0.1))
            }

        return memory(made)

    few, many = bytes_of(nestor.Reversible(), 40), bytes_of(nestor.Reversible(), 160)
    unrolled = bytes_of(nestor.Unroll(), 160)
    assert many < 1.5 * few
    assert many < unrolled / 8


def test_the_last_steps_alone():
    def want(last):
        def loss(h):
            w = jax.lax.stop_gradient(by_hand(jnp.zeros(3), h, 5 - last)[0])
            return high(by_hand(w, h, last)[0], h)

        return jax.grad(loss)(H)

    np.testing.assert_allclose(slope(pair(nestor.Truncate(2))), want(2), rtol=1e-12)
    np.testing.assert_allclose(slope(pair(nestor.Truncate(9))), want(5), rtol=1e-12)
    np.testing.assert_allclose(slope(pair(nestor.OneStep())), want(1), rtol=1e-12)


def test_forward_mode():
    """The level above is differentiated forwards: the same numbers as backwards."""
    found, want = Graph(pair(nestor.Forward())).hypergradient(), Graph(pair(nestor.Unroll())).hypergradient()
    np.testing.assert_allclose(found.gradient, want.gradient, rtol=1e-12)
    np.testing.assert_array_equal(found.params["w"], want.params["w"])
    np.testing.assert_allclose(
        Graph(pair(nestor.Forward())).run(3).params["h"],
        Graph(pair(nestor.Unroll())).run(3).params["h"],
        rtol=1e-12,
    )


def test_the_default_adjoint():
    assert Graph(pair(None, 10)).describe().splitlines()[2].split()[4] == "Unroll()"
    assert Graph(pair(None, 11)).describe().splitlines()[2].split()[4] == "Implicit()"
    np.testing.assert_allclose(slope(pair(None, 300)), slope(pair(nestor.Unroll(), 300)), rtol=1e-9)


def three(adjoint, restart=True, a=None):
    """c above b above a, none of them converged."""
    losses = {
        "a": lambda p, _: 0.5 * p["a"] @ Q @ p["a"] - p["a"] @ jnp.tanh(p["b"] + p["c"]),
        "b": lambda p, _: jnp.sum((p["b"] - 1) ** 2 * p["a"]) + jnp.sum(p["b"] ** 4) + p["b"] @ p["c"],
        "c": lambda p, _: jnp.sum((p["a"] + p["b"] - C) ** 2) + 0.5 * jnp.sum(p["c"] ** 2),
    }
    return {
        "a": Level(
            losses["a"], jnp.zeros(3), nestor.sgd(0.4), steps=3, adjoint=a or adjoint, restart=restart
        ),
        "b": Level(losses["b"], jnp.ones(3) / 2, nestor.sgd(0.1), steps=2, adjoint=adjoint, restart=restart),
        "c": Level(losses["c"], H, nestor.sgd(0.1)),
    }


@functools.cache
def three_by_hand(fresh: bool):
    """The gradient for c; where a run goes on from the one before, its start is a constant."""
    loss = {name: level.loss for name, level in three(None).items()}

    def a_run(a, b, c):
        for _ in range(3):
            a = a - 0.4 * jax.grad(lambda a: loss["a"]({"a": a, "b": b, "c": c}, None))(a)
        return a

    def value(c):
        b, start = jnp.ones(3) / 2, jnp.zeros(3)
        for _ in range(2):
            of_b = lambda b, start=start: loss["b"]({"a": a_run(start, b, c), "b": b, "c": c}, None)  # noqa: E731
            after = jax.lax.stop_gradient(a_run(start, b, c))
            b = b - 0.1 * jax.grad(of_b)(b)
            start = start if fresh else after
        return loss["c"]({"a": a_run(start, b, c), "b": b, "c": c}, None)

    return jax.jit(jax.grad(value))(H)


@pytest.mark.parametrize(
    ("adjoint", "tol"),
    [
        pytest.param(nestor.Unroll(), 1e-12, id="unroll"),
        pytest.param(nestor.Forward(), 1e-12, id="forward", marks=pytest.mark.slow),
        pytest.param(nestor.Checkpoint(), 1e-12, id="checkpoint", marks=pytest.mark.slow),
        pytest.param(nestor.Checkpoint(slots=2), 1e-12, id="slots", marks=pytest.mark.slow),
        pytest.param(nestor.FiniteDifference(), 1e-7, id="differences"),
        pytest.param(nestor.Truncate(3), 1e-12, id="truncate", marks=pytest.mark.slow),
    ],
)
def test_three_levels_through_their_steps(adjoint, tol: float):
    np.testing.assert_allclose(slope(three(adjoint)), three_by_hand(True), rtol=tol)


@pytest.mark.slow
def test_three_levels_with_two_adjoints():
    np.testing.assert_allclose(
        slope(three(nestor.Unroll(), a=nestor.FiniteDifference())), three_by_hand(True), rtol=1e-7
    )


def test_three_levels_with_reversed_steps_at_the_bottom():
    np.testing.assert_allclose(
        slope(three(nestor.Unroll(), a=nestor.Reversible())), three_by_hand(True), rtol=1e-4
    )


def test_where_a_run_goes_on_from_is_a_constant():
    np.testing.assert_allclose(slope(three(nestor.Unroll(), restart=False)), three_by_hand(False), rtol=1e-12)


def test_the_hypergradient_of_a_level_in_the_middle():
    loss = {name: level.loss for name, level in three(None).items()}

    def value(b):
        a = jnp.zeros(3)
        for _ in range(3):
            a = a - 0.4 * jax.grad(lambda a: loss["a"]({"a": a, "b": b, "c": H}, None))(a)
        return loss["b"]({"a": a, "b": b, "c": H}, None)

    want = jax.value_and_grad(value)(jnp.ones(3) / 2)
    found = Graph(three(nestor.Unroll())).hypergradient("b")
    np.testing.assert_allclose(found.loss, want[0], rtol=1e-12)
    np.testing.assert_allclose(found.gradient, want[1], rtol=1e-12)
    np.testing.assert_array_equal(found.params["c"], H)


def test_an_implicit_level_above_one_in_forward_mode_is_refused():
    """Its linear solve needs the transpose."""
    with pytest.raises(nestor.CannotDifferentiate, match=r"Forward\(\)"):
        slope(three(nestor.Implicit(), a=nestor.Forward()))


def test_levels_of_several_precisions():
    """float32 below float64: each keeps its own."""
    levels = pair(
        nestor.Unroll(),
        2,
        loss=lambda p, _: low(p["w"].astype(float), p["h"]),
        params=jnp.zeros(3, jnp.float32),
    )
    levels["h"] = Level(lambda p, _: high(p["w"].astype(float), p["h"]), H, nestor.adam(0.1))
    run = Graph(levels).run(2)
    assert (run.params["w"].dtype, run.params["h"].dtype, run.history.loss.dtype) == (
        jnp.float32,
        float,
        float,
    )
    want = Graph(pair(nestor.Unroll(), 2)).hypergradient()
    for adjoint in (nestor.Unroll(), nestor.Implicit(), nestor.SAMA(eps=1e-2)):
        levels["w"] = dataclasses.replace(levels["w"], adjoint=adjoint)
        found = Graph(levels).hypergradient()
        assert found.gradient.dtype == float
        np.testing.assert_allclose(found.loss, want.loss, rtol=1e-5)
        assert np.isfinite(found.gradient).all()


# --- levels that are only evaluated --------------------------------------------------------------------


def mean_slope(levels, count: int):
    """The mean of a hypergradient over random keys, and its standard error."""
    keys = jax.random.split(jax.random.key(11), count)
    graph = Graph(levels)
    found = np.asarray(jax.jit(jax.vmap(lambda key: graph.hypergradient(key=key).gradient))(keys))
    return found.mean(0), found.std(0) / count**0.5


@pytest.mark.parametrize("segment", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_evolution_is_the_slope_of_the_smoothed_answer(segment):
    """An answer that is linear in h: smoothing changes nothing, so the mean is the exact derivative."""
    loss = lambda p, _: 0.5 * p["w"] @ Q @ p["w"] - p["w"] @ p["h"]  # noqa: E731
    made = lambda adjoint: pair(adjoint, 4, loss=loss)  # noqa: E731
    want = slope(made(nestor.Unroll()))
    mean, error = mean_slope(made(nestor.Evolution(pairs=4, segment=segment)), 2000)
    np.testing.assert_array_less(np.abs(mean - want), 5 * error)
    assert (error < 0.1 * np.abs(want).max()).all()


def test_evolution_looks_in_new_directions_at_every_move():
    levels = pair(nestor.Evolution(pairs=1), 2)
    levels["h"] = Level(lambda p, _: jnp.sum((p["w"] - C) ** 2) + 0 * jnp.sum(p["h"]), H, nestor.sgd(0.0))
    first = slope(levels)
    second = slope(levels, Graph(levels).run(1))
    cosine = first @ second / jnp.linalg.norm(first) / jnp.linalg.norm(second)
    assert abs(float(cosine)) < 0.999
    np.testing.assert_array_equal(first, slope(levels))


def evaluated(gradient, loss, start, **options):
    """A highest level that is only evaluated, with an answer below."""
    return {
        "w": Level(
            lambda p, _: jnp.sum((p["w"] - p["x"]) ** 2), jnp.zeros_like(start), nestor.sgd(0.5), steps=1
        ),
        "x": Level(loss, start, nestor.sgd(0.1), gradient=gradient, **options),
    }


def test_smoothed_gradients_are_unbiased():
    """Of a quadratic of the answer w = x: smoothed by a Gaussian it has the same gradient."""
    levels = evaluated(Smoothed(sigma=0.3, pairs=2), lambda p, _: p["w"] @ Q @ p["x"] - C @ p["w"], H)
    mean, error = mean_slope(levels, 3000)
    np.testing.assert_array_less(np.abs(mean - (2 * Q @ H - C)), 5 * error)
    run = Graph(levels).run(1)
    np.testing.assert_allclose(run.params["w"], H, rtol=1e-12)  # they answer to x itself, not to a trial
    np.testing.assert_allclose(run.history.loss[0], H @ Q @ H - C @ H, rtol=1e-12)


def test_smoothed_gradients_of_a_step():
    """A loss without a derivative: the mean slope of sign is the Gaussian density."""
    levels = evaluated(Smoothed(sigma=1.0, pairs=4), lambda p, _: jnp.sum(jnp.sign(p["w"])), H)
    mean, error = mean_slope(levels, 3000)
    np.testing.assert_array_less(
        np.abs(mean - 2 * np.exp(-(np.asarray(H) ** 2) / 2) / (2 * np.pi) ** 0.5), 5 * error
    )


def test_the_noise_of_a_loss_is_not_that_of_its_estimator():
    """E (x . e)^2 has the gradient 2 x; with the same e for both it would come out five times as long."""
    loss = lambda p, _, key: (p["w"] @ jax.random.normal(key, (1, 3))[0]) ** 2  # noqa: E731
    levels = evaluated(Smoothed(sigma=0.1, pairs=1), loss, H, stochastic=True)
    mean, error = mean_slope(levels, 4000)
    np.testing.assert_array_less(np.abs(mean - 2 * H), 5 * error)


def bits(phi, key):
    return (jax.random.uniform(key, phi.shape, phi.dtype) < jax.nn.sigmoid(phi)).astype(phi.dtype)


def log_prob(phi, a):
    return jnp.sum(a * jax.nn.log_sigmoid(phi) + (1 - a) * jax.nn.log_sigmoid(-phi))


@pytest.mark.parametrize("samples", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_reinforce_is_unbiased(samples: int):
    """Against the sum over all draws, with an answer below that is a function of the draw."""
    loss = lambda w: (w[0] - 2 * w[1] + 3 * w[0] * w[1] * w[2]) ** 2 + 1.0  # noqa: E731
    levels = evaluated(
        Reinforce(bits, log_prob, samples=samples), lambda p, _: loss(p["w"]) + 0 * p["x"][0], H
    )
    every = jnp.stack(jnp.meshgrid(*[jnp.array([0.0, 1.0])] * 3, indexing="ij"), -1).reshape(8, 3)

    def expected(phi):
        return sum(jnp.exp(log_prob(phi, a)) * loss(a) for a in every)

    mean, error = mean_slope(levels, 4000)
    np.testing.assert_array_less(np.abs(mean - jax.grad(expected)(H)), 5 * error)
    run = Graph(levels).run(1)
    assert set(np.unique(run.params["w"])) <= {0.0, 1.0}  # the answer to a draw
    again = Graph(levels)
    with compilations() as count:
        again.run(1)
    assert count.number == 0


def test_reinforce_finds_the_best_bits():
    loss = lambda p, _: jnp.sum((p["w"] - jnp.array([1.0, 0.0, 1.0])) ** 2) + 0 * p["x"][0]  # noqa: E731
    levels = evaluated(Reinforce(bits, log_prob), loss, jnp.zeros(3))
    levels["x"] = Level(loss, jnp.zeros(3), nestor.adam(0.3), gradient=Reinforce(bits, log_prob))
    np.testing.assert_array_equal(Graph(levels).run(40).params["x"] > 0, [True, False, True])


@pytest.mark.parametrize(
    "gradient",
    [
        pytest.param(Smoothed(0.1, 3), id="smoothed", marks=pytest.mark.slow),
        pytest.param(Reinforce(bits, log_prob, 3), id="reinforce"),
    ],
)
def test_derivatives_cross_a_level_that_is_only_evaluated(gradient):
    """With the same noise the steps of the level are a smooth function of what stands above it."""
    loss = lambda p, _: jnp.sum((p["w"] - jnp.sin(p["h"])) ** 2 * jnp.exp(p["h"]))  # noqa: E731
    made = lambda adjoint: pair(adjoint, 3, loss=loss, gradient=gradient, params=C)  # noqa: E731
    want = slope(made(nestor.FiniteDifference(step=1e-3)))
    assert jnp.linalg.norm(want - 0.2 * H) > 0.01
    np.testing.assert_allclose(slope(made(nestor.Unroll())), want, rtol=1e-6)
