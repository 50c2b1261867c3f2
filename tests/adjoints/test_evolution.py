"""Evolution strategies: slopes of smoothed answers, in the mean and to the digit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor
from nestor import CannotDifferentiate
from nestor.adjoints import Answer, Condition, _evolution
from nestor.loops import Loop, in_segments, to_the_end
from nestor.testing import AdjointChecks

NOTHING = Condition(lambda x, inputs: x)
SIGMA = 0.1
SWING = 0.9 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
TURNS = 11
GOAL = jnp.array([1.0, -0.5])
THETA = jnp.array([0.3, -0.2])
KEY = jax.random.key(5)
SLOW = pytest.mark.slow


def swing(turns=TURNS, made=TURNS):
    """x <- A x + theta from theta; records |x - goal|^2, a quadratic of theta. Inputs are (theta, a key)."""
    return Loop(
        start=lambda inputs: (inputs[0], jnp.int32(0)),
        turn=lambda inputs, carry: (jnp.asarray(SWING) @ carry[0] + inputs[0], carry[1] + 1),
        running=lambda carry: carry[1] < made,
        bound=turns,
        seen=lambda carry: {"loss": jnp.sum((carry[0] - GOAL) ** 2), "turn": carry[1]},
    )


def read(inputs, carry, seen):
    made = jnp.arange(seen["loss"].size, dtype=jnp.int32) < carry[1]
    value = {"losses": jnp.where(made, seen["loss"], 0.0), "turns": carry[1]}
    return Answer(carry[0], value, carry[1])


def answers(loop=None, **settings):
    """The answer of the swing as a function of (theta, key)."""
    solve = nestor.Evolution(sigma=SIGMA, **settings).attach(loop or swing(), read, NOTHING)
    return lambda theta, key: solve((theta, key))


def total(**settings):
    run = answers(**settings)
    return lambda theta, key: jnp.sum(run(theta, key).value["losses"])


def by_hand(theta, turns=TURNS, truncate=None):
    """The sum of the losses in plain JAX; `truncate` cuts the derivative every so many turns."""
    x, losses = theta, 0.0
    for t in range(turns):
        if truncate and t % truncate == 0:
            x = jax.lax.stop_gradient(x)
        x = jnp.asarray(SWING) @ x + theta
        losses += jnp.sum((x - GOAL) ** 2)
    return losses


def replicates(f, count, *args):
    """The gradients of f(*args, key) for many keys: mean, standard error, and spread of one."""
    keys = jax.random.split(jax.random.key(0), count)
    rows = jax.jit(jax.vmap(lambda key: jax.grad(f)(*args, key)))(keys)
    spread = np.std(rows, axis=0, ddof=1)
    return np.mean(rows, axis=0), spread / np.sqrt(count), spread


# --- in the mean ---------------------------------------------------------------------------------------


def cubed(**settings):
    """Four turns add theta to x; the answer is c . x^3, smoothed (4 t)^3 + 3 * 4^3 t sigma^2."""
    loop = Loop(
        start=lambda inputs: (0.0 * inputs[0], jnp.int32(0)),
        turn=lambda inputs, carry: (carry[0] + inputs[0], carry[1] + 1),
        running=lambda carry: carry[1] < 4,
        bound=4,
    )
    measure = lambda inputs, carry, seen: Answer(carry[0], jnp.array([1.0, 2.0]) @ carry[0] ** 3, ())  # noqa: E731
    solve = nestor.Evolution(sigma=SIGMA, **settings).attach(loop, measure, NOTHING)
    return lambda theta, key: solve((theta, key)).value


def test_it_is_the_slope_of_the_smoothed_answer():
    closed = 4**3 * np.array([1.0, 2.0]) * 3 * (np.asarray(THETA) ** 2 + SIGMA**2)
    plain = 4**3 * np.array([1.0, 2.0]) * 3 * np.asarray(THETA) ** 2
    mean, error, _ = replicates(cubed(pairs=16), 1000, THETA)
    assert np.all(np.abs(mean - closed) < 3 * error), (mean, closed, error)
    assert np.all(np.abs(mean - plain) > 5 * error), "as biased as it should be"


def test_the_error_falls_with_the_root_of_the_number_of_pairs():
    few, many = (replicates(cubed(pairs=pairs), 400, THETA)[2] for pairs in (4, 64))
    np.testing.assert_allclose(few / many, 4.0, rtol=0.2)


def test_segments_are_unbiased_where_truncation_is_not():
    """A quadratic has the slope of its smoothed self, also when every segment is smoothed by itself."""
    exact = np.asarray(jax.grad(by_hand)(THETA))
    truncated = np.asarray(jax.grad(functools.partial(by_hand, truncate=3))(THETA))
    for segment in (None, 3):
        mean, error, _ = replicates(total(pairs=16, segment=segment), 1000, THETA)
        assert np.all(np.abs(mean - exact) < 3 * error), (segment, mean, exact, error)
        assert np.all(np.abs(mean - truncated) > 10 * error), segment


def test_a_nonlinear_reading_of_the_record_is_unbiased_too():
    def measure(inputs, carry, seen):
        return Answer(carry[0], jnp.sum(seen["loss"]) ** 2, ())

    def f(theta, key, adjoint):
        return adjoint.attach(swing(4, 4), measure, NOTHING)((theta, key)).value

    plain, persistent = (
        replicates(lambda t, k, s=s: f(t, k, nestor.Evolution(1e-3, 16, segment=s)), 1000, THETA)
        for s in (None, 1)
    )
    exact = np.asarray(jax.grad(lambda t: by_hand(t, 4) ** 2)(THETA))
    for mean, error, _ in (plain, persistent):
        assert np.all(np.abs(mean - exact) < 3 * error)


# --- to the digit --------------------------------------------------------------------------------------


def noise_of(settings, segments):
    adjoint = nestor.Evolution(**settings)
    return _evolution._Noise(
        _evolution._key(adjoint.seed, (THETA, KEY)), [THETA], adjoint.pairs, segments, None
    )


@pytest.mark.parametrize(
    ("made", "segment"),
    [
        pytest.param(made, segment, marks=() if segment == 4 else SLOW)
        for made in (TURNS, 6)
        for segment in (1, 4, 11, 50)
    ],
)
def test_it_is_algorithm_2(made, segment):
    """Persistent evolution strategies in NumPy, with the same noise: every row and the end."""
    pairs = 3
    noise = noise_of({"pairs": pairs}, -(-TURNS // segment))
    rows, end = np.zeros((TURNS, 2)), np.zeros((2, 2))
    for i in range(pairs):
        x, sum_of_noise = {1: None, -1: None}, np.zeros(2)
        for t in range(made):
            if t % segment == 0:
                e = np.asarray(noise.draw(jnp.int32(i), jnp.int32(t // segment))[0])
                sum_of_noise = sum_of_noise + e
            for sign in x:
                theta = np.asarray(THETA) + sign * SIGMA * e
                x[sign] = SWING @ (theta if t == 0 else x[sign]) + theta
            loss = {sign: np.sum((x[sign] - np.asarray(GOAL)) ** 2) for sign in x}
            rows[t] += (loss[1] - loss[-1]) / (2 * SIGMA) * sum_of_noise / pairs
        end += np.outer((x[1] - x[-1]) / (2 * SIGMA), sum_of_noise) / pairs
    run = answers(swing(TURNS, made), pairs=pairs, segment=segment)
    found = jax.jit(jax.jacrev(lambda t: (run(t, KEY).x, run(t, KEY).value["losses"])))(THETA)
    np.testing.assert_allclose(found[0], end, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[1], rows, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("segment", "batches"), [pytest.param(None, (None, 3, 100), marks=SLOW), (3, (None, 3))]
)
def test_both_modes_agree_whatever_the_batch(segment, batches):
    v, w = jnp.array([0.4, -1.1]), jnp.linspace(-1.0, 2.0, TURNS)
    found = []
    for batch in batches:
        run = answers(pairs=8, segment=segment, batch=batch)

        @jax.jit
        def both(theta, run=run):
            _, push = jax.linearize(lambda t: run(t, KEY).value["losses"], theta)
            return push(v), jax.linear_transpose(push, theta)(w)[0]

        forward, reverse = both(THETA)
        np.testing.assert_allclose(w @ forward, v @ reverse, rtol=1e-12)
        found.append(reverse)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-10)


def test_the_answer_is_that_of_the_run():
    for segment in (None, 3):
        answer = jax.jit(answers(segment=segment))(THETA, KEY)
        np.testing.assert_allclose(jnp.sum(answer.value["losses"]), by_hand(THETA), rtol=1e-12)
        assert answer.value["turns"] == TURNS


@pytest.mark.parametrize("length", [1, 2, 7, 100])
@pytest.mark.parametrize("made", [0, 5, TURNS])
def test_a_run_in_segments_is_the_run(length, made):
    loop = swing(TURNS, made)
    carry, rows, turns = in_segments(loop, lambda segment: (THETA, KEY), length)
    want_carry, want_rows = to_the_end(loop, (THETA, KEY))
    assert turns == made
    for got, want in zip(
        jax.tree.leaves((carry, rows)), jax.tree.leaves((want_carry, want_rows)), strict=True
    ):
        np.testing.assert_array_equal(got, want)


# --- seeds, lanes, orders ------------------------------------------------------------------------------


def test_seeds_and_keys_make_the_noise():
    slope, again, other = (jax.jit(jax.grad(total(pairs=4, seed=seed), argnums=0)) for seed in (0, 0, 1))
    first = slope(THETA, KEY)
    np.testing.assert_array_equal(first, again(THETA, KEY))
    assert np.all(first != other(THETA, KEY))
    assert np.all(first != slope(THETA, jax.random.key(6)))


@pytest.mark.parametrize("segment", [pytest.param(None, marks=SLOW), 4])
def test_lanes_are_what_they_are_alone(segment):
    f = total(pairs=4, segment=segment)
    thetas = jnp.stack([THETA, 2 * THETA, THETA - 1.0])
    slopes = jax.jit(jax.vmap(jax.grad(f), (0, None)))(thetas, KEY)
    alone = jax.jit(jax.grad(f))
    np.testing.assert_allclose(slopes, [alone(theta, KEY) for theta in thetas], rtol=1e-10)


@pytest.mark.parametrize("segment", [pytest.param(None, marks=SLOW), 4])
def test_second_derivatives_are_refused(segment):
    f = total(pairs=2, segment=segment)
    for outer in (jax.jacfwd, jax.jacrev):
        for inner in (jax.jacfwd, jax.jacrev):
            with pytest.raises(CannotDifferentiate, match="first derivatives"):
                jax.eval_shape(outer(inner(f)), THETA, KEY)
    # ... but not where only the answer is differentiated twice
    g = lambda theta: f(jax.lax.stop_gradient(theta), KEY) * jnp.sum(theta**2)  # noqa: E731
    np.testing.assert_allclose(jax.hessian(g)(THETA), 2 * by_hand(THETA) * np.eye(2), atol=1e-9)


def test_mixed_second_derivatives_are_refused():
    def f(a, b):
        return total(pairs=2)(jnp.stack([a, b]), KEY)

    with pytest.raises(CannotDifferentiate):
        jax.eval_shape(jax.grad(jax.grad(f), argnums=1), 0.1, 0.2)


# --- runs that diverge ---------------------------------------------------------------------------------


def fragile(limit, **settings):
    """theta + theta^2 after one turn, NaN where theta is more than `limit` away from 0.3; and theta^2."""
    loop = Loop(
        start=lambda theta: (theta, jnp.int32(0)),
        turn=lambda theta, carry: (carry[0] + theta**2, carry[1] + 1),
        running=lambda carry: carry[1] < 1,
        bound=1,
    )

    def measure(theta, carry, seen):
        lost = jnp.abs(theta - 0.3) > limit
        return Answer(carry[0], jnp.stack([jnp.where(lost, jnp.inf, carry[0]), theta**2]), ())

    return lambda theta: nestor.Evolution(SIGMA, **settings).attach(loop, measure, NOTHING)(theta).value


def test_lost_pairs_are_left_out():
    theta = jnp.asarray(0.3)
    key = _evolution._key(0, theta)
    e = np.asarray([_evolution._Noise(key, [theta], 40, 1, None).draw(i, 0)[0] for i in range(40)])
    kept = e[np.abs(e) * SIGMA < 0.15]
    assert 20 < kept.size < 40
    found = jax.jit(jax.jacrev(fragile(0.15, pairs=40)))(theta)
    np.testing.assert_allclose(found, [np.mean(1.6 * kept**2), np.mean(0.6 * e**2)], rtol=1e-10)


def test_too_many_lost_pairs_are_nan_for_that_entry_only():
    f, theta = fragile(0.05, pairs=40), jnp.asarray(0.3)
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_array_equal(np.isnan(jax.jit(derivative(f))(theta)), [True, False])
    assert np.isfinite(jax.jit(jax.grad(lambda t: f(t)[1]))(theta)), "an entry without weight does no harm"


def test_a_chaotic_run_has_a_moderate_slope():
    """The logistic map at r near 4: its exact derivative grows as 2^T."""

    def mean_of_run(adjoint):
        loop = Loop(
            start=lambda r: (0.3 + 0.0 * r, jnp.int32(0)),
            turn=lambda r, carry: (r * carry[0] * (1 - carry[0]), carry[1] + 1),
            running=lambda carry: carry[1] < 100,
            bound=100,
            seen=lambda carry: carry[0],
        )
        solve = adjoint.attach(loop, lambda r, carry, seen: Answer(carry[0], seen, ()), NOTHING)
        return lambda r: jnp.mean(solve(r).value)

    r = jnp.asarray(3.9)
    exact = jax.jit(jax.grad(mean_of_run(nestor.Unroll())))(r)
    smoothed = jax.jit(jax.grad(mean_of_run(nestor.Evolution(sigma=0.03, pairs=64))))(r)
    assert abs(exact) > 1e10
    assert abs(smoothed) < 10


# --- through the front door ----------------------------------------------------------------------------


@pytest.mark.slow  # daily: TestEvolution
def test_an_argmin():
    """The solution is t itself, so the estimate of dx/dt is the mean of e e': the identity, nearly."""
    adjoint = nestor.Evolution(sigma=0.01, pairs=2000)
    solve = lambda t: nestor.argmin(lambda x: jnp.sum((x - t) ** 2), jnp.zeros(2), adjoint=adjoint)  # noqa: E731
    np.testing.assert_allclose(solve(THETA), THETA, atol=1e-7)
    np.testing.assert_allclose(jax.jit(jax.jacrev(solve))(THETA), np.eye(2), atol=4 * np.sqrt(2 / 2000))


class TestEvolution(AdjointChecks):
    """The promises of every adjoint, as far as an estimate from 400 pairs can keep them."""

    make = staticmethod(lambda: nestor.Evolution(sigma=1e-3, pairs=400))
    second_order = False
    accuracy = 0.25
