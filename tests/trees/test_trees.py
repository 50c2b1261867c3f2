"""Trees of arrays are a vector space, whatever their shapes and dtypes."""

import dataclasses
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from nestor import trees

# Few structures, so that little is compiled: shape and dtype of every leaf.
SINGLE, DOUBLE = jnp.float32, jnp.float64
SHAPES: list[Any] = [
    ((3,), DOUBLE),
    ((), SINGLE),
    {"a": ((), DOUBLE), "b": [((2, 2), SINGLE), ((0,), DOUBLE)]},
    (((1, 3), SINGLE), None, {"z": ((2,), SINGLE)}),
    [((0, 2), SINGLE)],
]
quick = settings(max_examples=20, deadline=None)


def is_spec(node: Any) -> bool:
    return (
        isinstance(node, tuple)
        and len(node) == 2
        and isinstance(node[0], tuple)
        and node[1] in (SINGLE, DOUBLE)
    )


@st.composite
def several(draw: Any, count: int) -> tuple[Any, ...]:
    """Some trees of one random structure, with small numbers that float32 holds exactly."""
    spec = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def leaf(node: Any) -> jax.Array:
        return jnp.asarray(rng.integers(-8, 9, node[0]) / 4, node[1])

    return tuple(jax.tree.map(leaf, spec, is_leaf=is_spec) for _ in range(count))


def same(a: Any, b: Any) -> bool:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert all(x.dtype == y.dtype and x.shape == y.shape for x, y in pairs)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def flat(tree: Any) -> np.ndarray:
    parts = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return np.concatenate([np.zeros(0), *parts])


factors = st.sampled_from([0.0, 1.0, -2.0, 0.5, 3.0])

# --- a vector space ----------------------------------------------------------------------------------


@quick
@given(several(3), factors, factors)
def test_vector_space_laws(abc: Any, r: float, s: float):
    a, b, c = abc
    zero = trees.zeros_like(a)
    assert same(trees.add(a, b), trees.add(b, a))
    assert same(trees.add(trees.add(a, b), c), trees.add(a, trees.add(b, c)))
    assert same(trees.add(a, zero), a)
    assert same(trees.subtract(a, a), zero)
    assert same(trees.subtract(a, b), trees.add(a, trees.negative(b)))
    assert same(trees.scale(1.0, a), a)
    assert same(trees.scale(r, trees.scale(s, a)), trees.scale(r * s, a))
    assert same(trees.scale(r, trees.add(a, b)), trees.add(trees.scale(r, a), trees.scale(r, b)))
    assert same(trees.scale(r + s, a), trees.add(trees.scale(r, a), trees.scale(s, a)))
    assert same(trees.add_scaled(a, r, b), trees.add(a, trees.scale(r, b)))


@quick
@given(several(1), st.sampled_from([SINGLE, DOUBLE]))
def test_a_scalar_of_another_dtype_changes_no_dtype(a: Any, dtype: Any):
    (a,) = a
    factor = jnp.asarray(0.5, dtype)
    assert same(trees.scale(factor, a), trees.scale(0.5, a))
    assert same(trees.add_scaled(a, factor, a), trees.scale(1.5, a))


# --- products and norms ------------------------------------------------------------------------------


@quick
@given(several(2))
def test_products_and_norms_are_those_of_the_flat_vector(ab: Any):
    a, b = ab
    x, y = flat(a), flat(b)
    assert float(trees.dot(a, b)) == x @ y
    assert float(trees.squared_norm(a)) == x @ x
    assert float(trees.norm(a)) == pytest.approx(np.linalg.norm(x), rel=1e-6)
    assert float(trees.max_norm(a)) == np.max(np.abs(x), initial=0.0)
    assert trees.size(a) == x.size
    for number in (trees.dot(a, b), trees.squared_norm(a), trees.norm(a), trees.max_norm(a)):
        assert number.shape == ()
        assert number.dtype == trees.float_dtype(a)


@quick
@given(several(3), factors)
def test_the_inner_product_is_bilinear_and_symmetric(abc: Any, r: float):
    a, b, c = abc
    assert trees.dot(a, b) == trees.dot(b, a)
    assert trees.dot(trees.add_scaled(a, r, b), c) == trees.dot(a, c) + r * trees.dot(b, c)
    assert trees.squared_norm(a) >= 0


def test_the_dot_of_trees_unlike_is_refused():
    with pytest.raises(ValueError, match="zip"):
        trees.dot({"a": jnp.ones(1)}, {"a": jnp.ones(1), "b": jnp.ones(1)})


def test_the_derivative_of_the_norm():
    x = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(4.0)}
    assert same(jax.grad(trees.norm)(x), jax.tree.map(lambda leaf: leaf / 5, x))
    zero = trees.zeros_like(x)
    assert same(jax.grad(trees.norm)(zero), zero), "zero, not NaN"
    assert same(jax.jvp(trees.norm, (zero,), (x,))[1], jnp.zeros(()))


def test_the_root_of_zero_has_derivative_zero():
    square = jnp.array([0.0, 4.0, jnp.nan])
    value, slope = jax.jvp(trees.root, (square,), (jnp.ones(3),))
    np.testing.assert_array_equal(value, [0.0, 2.0, jnp.nan])
    np.testing.assert_array_equal(slope[:2], [0.0, 0.25])


def test_the_largest_entry_does_not_hide_a_nan():
    for place in range(3):
        x = [jnp.asarray([1.0, 2.0]).at[place % 2].set(jnp.nan if place < 2 else 2.0), jnp.asarray(7.0)]
        assert bool(jnp.isnan(trees.max_norm(x))) == (place < 2)
    assert trees.max_norm({}) == 0
    assert trees.max_norm([jnp.zeros((0, 2))]) == 0
    assert trees.max_norm(jnp.asarray(-jnp.inf)) == jnp.inf


def test_long_products_are_summed_in_full_precision():
    x = jnp.full(4096, 1 + 2.0**-12, jnp.float32)
    exact = 4096 * float(x[0]) ** 2
    assert float(trees.dot(x, x)) == pytest.approx(exact, rel=1e-6)


# --- choosing ----------------------------------------------------------------------------------------


@quick
@given(several(2), st.booleans())
def test_select(ab: Any, condition: bool):
    a, b = ab
    assert same(trees.select(jnp.asarray(condition), a, b), a if condition else b)


def test_select_stops_a_nan_that_is_not_chosen():
    assert trees.select(True, jnp.ones(()), jnp.nan * jnp.ones(())) == 1


@quick
@given(several(1), st.sampled_from([jnp.nan, jnp.inf, -jnp.inf]))
def test_all_finite(a: Any, bad: float):
    (a,) = a
    assert bool(trees.all_finite(a))
    leaves, structure = jax.tree.flatten(a)
    for place, leaf in enumerate(leaves):
        spoilt = [*leaves[:place], jnp.full_like(leaf, bad), *leaves[place + 1 :]]
        assert bool(trees.all_finite(jax.tree.unflatten(structure, spoilt))) == (leaf.size == 0)


def test_all_finite_looks_past_what_is_no_float():
    assert bool(trees.all_finite({"n": jnp.arange(3), "key": jax.random.key(0), "yes": jnp.asarray(True)}))
    assert bool(trees.all_finite({}))


# --- flat vectors ------------------------------------------------------------------------------------


@quick
@given(several(1))
def test_ravel_there_and_back(a: Any):
    (a,) = a
    vector, back = trees.ravel(a)
    assert vector.shape == (trees.size(a),)
    assert vector.dtype == trees.float_dtype(a)
    assert np.array_equal(vector, flat(a))
    assert same(back(vector), a)
    assert same(jax.jit(lambda v: back(v))(vector), a)


def test_ravel_is_linear_and_its_transpose_goes_back():
    x = {"a": jnp.asarray([1.0, 2.0], SINGLE), "b": jnp.asarray(3.0, DOUBLE)}
    _, pull = jax.vjp(lambda x: trees.ravel(x)[0], x)
    assert same(
        pull(jnp.asarray([5.0, 6.0, 7.0]))[0], {"a": jnp.asarray([5.0, 6.0], SINGLE), "b": jnp.asarray(7.0)}
    )


def test_the_widest_dtype():
    assert trees.float_dtype({"a": jnp.ones(1, SINGLE)}) == SINGLE
    assert trees.float_dtype({"a": jnp.ones(1, SINGLE), "b": jnp.ones((), DOUBLE)}) == DOUBLE
    assert trees.float_dtype({"a": jnp.ones(1, SINGLE), "n": jnp.arange(2)}) == SINGLE
    assert trees.float_dtype({}) == DOUBLE
    with jax.enable_x64(False):
        assert trees.float_dtype({}) == SINGLE


def test_an_empty_tree_is_a_point():
    vector, back = trees.ravel({})
    assert vector.shape == (0,)
    assert back(vector) == {}
    assert trees.size({}) == 0
    assert trees.norm({}) == 0


@quick
@given(several(1), st.integers(1, 3))
def test_memories(a: Any, count: int):
    (a,) = a
    memory = trees.vectors_like(a, count)
    for rows, leaf in zip(jax.tree.leaves(memory), jax.tree.leaves(a), strict=True):
        assert rows.shape == (count, *leaf.shape)
        assert rows.dtype == leaf.dtype
        assert not np.any(rows)


# --- records, splits and grafts ----------------------------------------------------------------------


@trees.record
class Method:
    rate: Any
    name: str = "plain"
    order: int = dataclasses.field(default=2, metadata={"static": True})


def test_a_record_is_a_frozen_tree():
    method = Method(jnp.asarray(0.5))
    assert jax.tree.leaves(method)[0] == 0.5
    assert jax.tree.structure(method) != jax.tree.structure(Method(jnp.asarray(0.5), order=3))
    assert jax.grad(lambda m: m.rate**2)(Method(0.5, None)).rate == 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.rate = 1.0
    assert Method(1.0) == Method(1.0)
    assert hash(Method(1.0)) == hash(Method(1.0))


class Pair(NamedTuple):
    left: Any
    right: Any


rests = st.sampled_from([1, 1.0, True, "name", None, jnp.sin, (2, "x"), Method(0.5), {"k": 3}])


@quick
@given(several(1), rests, st.booleans())
def test_split_and_join(a: Any, other: Any, as_numpy: bool):
    (a,) = a
    a = jax.tree.map(np.asarray, a) if as_numpy else a
    tree = Pair(a, [other, a])
    arrays, rest = trees.split(tree)
    assert len(arrays) == 2 * len(jax.tree.leaves(a))
    joined = trees.join(arrays, rest)
    assert jax.tree.structure(joined) == jax.tree.structure(tree)
    assert same(joined.left, a)
    assert joined.right[0] == other
    _, again = trees.split(Pair(jax.tree.map(lambda leaf: leaf + leaf, a), [other, a]))
    assert rest == again
    assert hash(rest) == hash(again)


def test_what_is_no_array_tells_two_trees_apart():
    kinds = [1, 1.0, True, "1", None, np.float32(1.0)]
    keys = [trees.split(Pair(jnp.ones(1), kind))[1] for kind in kinds]
    assert len(set(keys)) == len(kinds), "1, 1.0 and True are equal in Python, and other programs here"
    assert trees.split({"a": 1})[1] != trees.split({"b": 1})[1]


def test_a_traced_leaf_is_an_array():
    found = []

    @jax.jit
    def look(rate: jax.Array) -> jax.Array:
        arrays, rest = trees.split(Method(rate))
        found.append(len(arrays))
        return trees.join([2 * arrays[0]], rest).rate

    assert look(jnp.asarray(0.5)) == 1.0
    assert found == [1]


@settings(max_examples=6, deadline=None)
@given(several(2))
def test_a_graft_has_these_numbers_and_those_derivatives(ab: Any):
    a, b = ab

    def grafted(t: jax.Array) -> Any:
        carrier = jax.tree.map(lambda leaf: leaf * jnp.sin(t).astype(leaf.dtype), b)
        return trees.graft(trees.scale(jax.lax.stop_gradient(t) ** 2, a), carrier)

    t = jnp.asarray(2.0)
    value, tangent = jax.jvp(grafted, (t,), (jnp.ones(()),))
    assert same(value, trees.scale(4.0, a))
    wanted = np.cos(2.0) * flat(b)
    np.testing.assert_allclose(flat(tangent), wanted, rtol=1e-6)

    def total(t: jax.Array) -> jax.Array:
        sums = [jnp.sum(leaf).astype(DOUBLE) for leaf in jax.tree.leaves(grafted(t))]
        return sum(sums, jnp.zeros(()))

    np.testing.assert_allclose(jax.grad(total)(t), np.sum(wanted), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(
        jax.grad(jax.grad(total))(t), -np.sin(2.0) * np.sum(flat(b)), rtol=1e-6, atol=1e-12
    )


def test_a_graft_drops_the_derivative_of_the_value():
    assert jax.grad(lambda x: trees.graft(x**2, 5.0 * x))(3.0) == 5.0
    assert trees.graft(jnp.asarray(1.0), jnp.asarray(jnp.nan)) == 1.0


def test_stop_gradient_lets_pass_what_is_no_array():
    tree = {"a": jnp.ones(2), "name": "x", "n": 3}
    assert trees.stop_gradient(tree)["name"] == "x"
    assert trees.stop_gradient(tree)["n"] == 3
    assert jax.grad(lambda x: trees.stop_gradient({"a": x})["a"] * x)(3.0) == 3.0


def test_a_linear_map_has_the_transpose_it_was_given_and_derivatives_of_any_order():
    def f(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c * x["a"]) + x["b"], None), x["a"], None, length=5)[0]

    used = []

    @jax.custom_jvp
    def g(x):
        return f(x)

    @g.defjvp
    def rule(primals, tangents):
        ((x,), (dx,)) = primals, tangents
        out = g(x)

        def pull(cotangent):
            used.append("pull")
            return jax.vjp(f, x)[1](cotangent)[0]

        return out, trees.linear_map(lambda d: jax.jvp(f, (x,), (d,))[1], pull, dx, out)

    x = {"a": jnp.array([0.3, 0.5]), "b": jnp.array([0.1, -0.2])}
    total = lambda h: lambda a: jnp.sum(h({**x, "a": a}) ** 3)  # noqa: E731
    for modes in [(jax.jacrev,), (jax.jacfwd,), (jax.jacrev, jax.jacrev), (jax.jacfwd, jax.jacrev)]:
        got, want = total(g), total(f)
        for mode in modes:
            got, want = mode(got), mode(want)
        np.testing.assert_allclose(got(x["a"]), want(x["a"]), rtol=1e-12, atol=1e-14)
    assert used
    reverse_of_forward = jax.jacrev(jax.jacfwd(total(g)))(x["a"])
    np.testing.assert_allclose(reverse_of_forward, jax.hessian(total(f))(x["a"]), rtol=1e-12, atol=1e-14)
    many = jnp.stack([x["a"], 2 * x["a"]])
    np.testing.assert_allclose(
        jax.vmap(jax.grad(total(g)))(many), jax.vmap(jax.grad(total(f)))(many), rtol=1e-12
    )


def test_an_array_is_taken_as_it_is_now():
    """A NumPy array becomes one of JAX's at once: what is written into it later is not seen."""
    room = np.zeros(4096 + 16, np.float32)
    aligned = room[(-room.ctypes.data // 4) % 16 :][:4096]  # such memory a transfer would share
    taken = trees.as_array(aligned)
    aligned[:] = 7.0
    np.testing.assert_array_equal(taken, np.zeros(4096))
    assert not trees.as_array(np.float64(2.0)).weak_type
    assert trees.as_array([1, 2]).shape == (2,)
