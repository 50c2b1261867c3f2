"""Schedules: their values against optax and NumPy, and a derivative in every number."""

import doctest
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nestor
from nestor import schedules, trees
from tests.compiles import compilations

STEPS = np.array([0, 1, 3, 7, 8, 10, 14, 16, 25, 60], np.int32)
RATE, PEAK = 0.37, jnp.array(0.4)

# Each with what optax makes of the same numbers.
OPTAX = {
    "constant": (schedules.Constant(RATE), optax.constant_schedule(RATE)),
    "exponential": (schedules.Exponential(0.5, 0.9), optax.exponential_decay(0.5, 1, 0.9)),
    "exponential every": (schedules.Exponential(0.5, 0.3, every=12), optax.exponential_decay(0.5, 12, 0.3)),
    "cosine": (schedules.Cosine(0.5, 20), optax.cosine_decay_schedule(0.5, 20)),
    "cosine to an end": (schedules.Cosine(0.5, 20, 0.05), optax.cosine_decay_schedule(0.5, 20, alpha=0.1)),
    "warmup": (
        schedules.Warmup(schedules.Cosine(0.5, 15, 0.1), 5, 0.2),
        optax.warmup_cosine_decay_schedule(0.2, 0.5, 5, 20, 0.1),
    ),
    "warmup of a table": (
        schedules.Warmup(schedules.PerStep([0.5, 0.4, 0.1]), 8),
        optax.join_schedules(
            [
                optax.linear_schedule(0.0, 0.5, 8),
                lambda t: jnp.array([0.5, 0.4, 0.1])[jnp.minimum(t, 2).astype(int)],
            ],
            [8],
        ),
    ),
    "linear": (schedules.PiecewiseLinear([0, 20], [0.5, 0.1]), optax.linear_schedule(0.5, 0.1, 20)),
    "piecewise linear": (
        schedules.PiecewiseLinear([0, 5, 20], [0.5, 0.25, 0.5]),
        optax.piecewise_interpolate_schedule("linear", 0.5, {5: 0.5, 20: 2.0}),
    ),
    "per block": (
        schedules.PerBlock([0.5, 0.05, 0.005], 8),
        optax.piecewise_constant_schedule(0.5, {8: 0.1, 16: 0.1}),
    ),
}

EVERY = {name: ours for name, (ours, _) in OPTAX.items()} | {
    "inverse time": schedules.InverseTime(0.5, 0.1),
    "per step": schedules.PerStep(np.linspace(0.5, 0.1, 9)),
    "warmup of a decay": schedules.Warmup(schedules.InverseTime(0.5, 0.3), 4.5, 0.01),
    "grouped": schedules.Grouped({"a": schedules.Cosine(0.3, 9), "b": (0.1, jnp.array([0.3, 0.2]))}),
    "called": schedules.as_schedule(lambda t: PEAK / (1 + t), "test", "rate"),
}


def values_at(schedule, steps):
    """All values in one compiled program; a tree as one number."""

    def one(step):
        return sum(jnp.sum(leaf) * (k + 1.0) for k, leaf in enumerate(jax.tree.leaves(schedule(step))))

    return jax.vmap(one)(jnp.asarray(steps))


@pytest.mark.parametrize("name", OPTAX)
def test_values_are_those_of_optax(name):
    ours, theirs = OPTAX[name]
    with jax.numpy_dtype_promotion("standard"):  # of an integer step optax makes a float32
        wanted = [float(theirs(jnp.float64(step))) for step in STEPS]
    np.testing.assert_allclose(values_at(ours, STEPS), wanted, rtol=1e-12, atol=1e-15)


def test_values_by_hand():
    t = STEPS.astype(float)
    np.testing.assert_allclose(values_at(EVERY["inverse time"], STEPS), 0.5 / (1 + 0.1 * t), rtol=1e-14)
    table = np.linspace(0.5, 0.1, 9)
    np.testing.assert_array_equal(values_at(EVERY["per step"], STEPS), table[np.minimum(STEPS, 8)])
    hype = schedules.Exponential(0.5, np.exp(-0.1))
    np.testing.assert_allclose(values_at(hype, STEPS), 0.5 * np.exp(-0.1 * t), rtol=1e-13)


@pytest.mark.parametrize("name", EVERY)
def test_derivatives_in_every_number(name):
    """Against central differences, at steps between the kinks."""
    schedule, steps = EVERY[name], np.array([0, 2, 9, 13], np.int32)
    vector, back = trees.ravel(schedule)
    rate = jax.jit(lambda v: values_at(back(v), steps))
    jacobian = jax.jit(jax.jacrev(rate))(vector)
    assert jnp.all(jnp.isfinite(jacobian))
    np.testing.assert_allclose(jax.jit(jax.jacfwd(rate))(vector), jacobian, atol=1e-12)
    if name in ("per block", "warmup of a table"):  # whole steps: a constant in the length, but for jumps
        vector, jacobian = vector[:3], jacobian[:, :3]
        rest = trees.ravel(schedule)[0][3:]
        full = rate
        rate = lambda v: full(jnp.concatenate([v, rest]))  # noqa: E731
    if name == "piecewise linear":  # a knot at the step 0 is a kink
        jacobian = jacobian.at[0, 0].set(0.0)
    for k in range(len(vector)):
        unit = jnp.zeros_like(vector).at[k].set(1e-6)
        difference = (rate(vector + unit) - rate(vector - unit)) / 2e-6
        if name in ("linear", "piecewise linear"):
            difference, column = difference[1:], jacobian[1:, k]
        else:
            column = jacobian[:, k]
        np.testing.assert_allclose(column, difference, rtol=1e-7, atol=1e-8, err_msg=f"number {k}")


def test_tables_are_differentiable_in_their_own_values_alone():
    slope = jax.grad(lambda s: s(jnp.int32(1)))(schedules.PerStep([3.0, 2.0, 1.0]))
    np.testing.assert_array_equal(slope.values, [0.0, 1.0, 0.0])
    slope = jax.grad(lambda s: s(jnp.int32(9)))(schedules.PerBlock([3.0, 2.0], 4))
    np.testing.assert_array_equal(slope.values, [0.0, 1.0])
    assert slope.length == 0.0


@pytest.mark.parametrize("name", schedules.__all__)
def test_examples_run(name):
    example = doctest.DocTestParser().get_doctest(
        inspect.getdoc(getattr(schedules, name)) or "", {}, name, None, None
    )
    assert example.examples or name == "Schedule"
    said = []
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)


def test_second_derivatives():
    rate = lambda decay: schedules.InverseTime(1.0, decay)(jnp.int32(3))  # noqa: E731
    assert float(jax.grad(jax.grad(rate))(0.5)) == pytest.approx(2 * 9 / 2.5**3)


def test_another_number_compiles_nothing():
    solve = jax.jit(lambda schedule, step: schedule(step))
    first, second = schedules.Cosine(0.1, 100), schedules.Cosine(0.2, 50)
    step = jnp.int32(3)
    solve(first, step).block_until_ready()
    with compilations() as count:
        solve(second, step).block_until_ready()
    assert count.number == 0


def test_numbers_keep_the_dtype_of_the_arrays():
    assert schedules.Cosine(0.1, 10)(3).dtype == jnp.float64
    assert schedules.Cosine(jnp.float32(0.1), 10)(jnp.int32(3)).dtype == jnp.float32
    assert schedules.Warmup(schedules.Constant(jnp.float32(0.1)), 10)(jnp.int32(3)).dtype == jnp.float32
    assert schedules.PerStep(jnp.arange(3))(1).dtype == jnp.float64


def test_a_tree_is_put_together_as_it_was():
    rate = schedules.Warmup(schedules.Cosine(0.1, 10), 3)
    axes = jax.tree.map(lambda leaf: 0, rate)
    assert jax.tree.leaves(axes) == [0, 0, 0, 0, 0]
    many = jax.tree.map(lambda leaf: leaf * jnp.ones(4), rate)
    assert jax.vmap(lambda s: s(jnp.int32(5)), in_axes=(axes,))(many).shape == (4,)
    grouped = schedules.Grouped({"a": 0.1})
    assert jax.tree.structure(jax.tree.map(lambda leaf: leaf + 1, grouped)) == jax.tree.structure(grouped)


def test_numbers_made_inside_a_trace_are_numbers():
    seen = []

    @jax.jit
    def solve(peak):
        rate = schedules.Cosine(peak, 10)
        seen.append(rate.steps)
        return rate(jnp.int32(5))

    assert float(solve(0.5)) == pytest.approx(0.25)
    assert not isinstance(seen[0], jax.core.Tracer)


def test_it_shows_numbers():
    assert repr(schedules.Cosine(0.1, 100)) == "Cosine(start=0.1, steps=100, end=0)"


# --- as_schedule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0.1, schedules.Constant),
        (1, schedules.Constant),
        (np.float32(0.1), schedules.Constant),
        (jnp.asarray(0.1), schedules.Constant),
        (np.linspace(0.1, 0.2, 4), schedules.PerStep),
        ({"a": 0.1, "b": schedules.Cosine(0.1, 3)}, schedules.Grouped),
        ([0.1, 0.2], schedules.Grouped),
        (optax.cosine_decay_schedule(0.1, 10), schedules.Called),
        (lambda t: 2, schedules.Called),
        (schedules.PerBlock([0.1], 3), schedules.PerBlock),
        (jax.tree_util.Partial(lambda peak, t: peak, 0.1), jax.tree_util.Partial),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:30],
)
def test_what_a_schedule_can_be_made_of(value, kind):
    assert type(schedules.as_schedule(value, "train", "rate")) is kind


@pytest.mark.parametrize(
    ("value", "name", "got"),
    [
        ("0.1", "rate", "'0.1' (str)"),
        (True, "rate", "True (bool)"),
        (None, "rate", "None"),
        (float("nan"), "rate", "nan"),
        (jnp.ones((2, 2)), "rate", "an array of shape (2, 2)"),
        (jnp.ones(2, bool), "rate", "an array of dtype bool"),
        (np.zeros(0), "rate", "an array of shape (0,)"),
        (schedules.Cosine, "rate", "the class Cosine"),
        ({}, "rate", "{}"),
        ({"a": "x"}, "rate['a']", "'x' (str)"),
        ({"a": None}, "rate['a']", "None"),
        (lambda t: 0.1 if t < 3 else 0.2, "rate", "a function that cannot be traced"),
        (lambda t: jnp.ones(2), "rate", "a function of the step that returns"),
        (lambda: 0.1, "rate", "a function that cannot be traced"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:30],
)
def test_what_is_refused(value, name, got):
    with pytest.raises(nestor.BadArgument) as caught:
        schedules.as_schedule(value, "train", "rate")
    said = str(caught.value)
    assert f"train: argument '{name}' is {got}" in said, said
    assert "Do this:" in said


def test_tables_of_another_shape_are_refused():
    with pytest.raises(nestor.BadArgument, match="one value for each step"):
        schedules.PiecewiseLinear([0, 1, 2], [0.1, 0.2])(0)
    with pytest.raises(nestor.BadArgument, match="at least one value"):
        schedules.PerStep([])(0)


def test_a_function_is_traced_once_for_all_its_data():
    """What it closes over is an input: another array is the same program."""

    def rate(peak):
        return schedules.as_schedule(lambda t: peak / (1.0 + t), "train", "rate")

    first, second = rate(jnp.asarray(0.1)), rate(jnp.asarray(0.2))
    assert first.program is second.program
    assert float(jax.grad(lambda peak: rate(peak)(jnp.int32(1)))(0.3)) == 0.5
