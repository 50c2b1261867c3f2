"""Hoisting and interning: same code is one program, whatever it closes over; other code never is."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nestor
from nestor.programs import Program, hoist

X = jnp.array([0.3, -1.2, 0.8])


# --- programs that are one -------------------------------------------------------------------------


@jax.custom_jvp
def twice_sloped(x):
    return jnp.sin(x)


twice_sloped.defjvps(lambda t, out, x: 2.0 * jnp.cos(x) * t)


@jax.custom_vjp
def thrice_sloped(x):
    return jnp.sin(x)


thrice_sloped.defvjp(lambda x: (jnp.sin(x), x), lambda x, t: (3.0 * jnp.cos(x) * t,))


def _scan(a, x):
    return jax.lax.scan(lambda c, row: (c + jnp.tanh(row * x), None), x, jnp.stack([a, 2.0 * a]))[0]


def _while(a, x):
    return jax.lax.while_loop(lambda c: jnp.sum(c) < 3.0, lambda c: c + jnp.abs(a) + 0.1, x)


def _cond(a, x):
    return jax.lax.cond(jnp.sum(a) > 0, lambda v: v * a, lambda v: v - a, x)


def _nested(a, x):
    return x * nestor.argmin(lambda y: jnp.sum((y - a * x) ** 2), jnp.zeros(3), solver=nestor.Newton())


def _linear_solve(a, x):
    return jnp.linalg.solve(jnp.eye(3) * 4.0 + jnp.outer(a, a), x)


BODIES = {
    "arithmetic": lambda a, x: a * x**2 + 1.0,
    "relu": lambda a, x: jax.nn.relu(a * x),
    "gelu": lambda a, x: jax.nn.gelu(a * x),
    "softplus": lambda a, x: jax.nn.softplus(a * x),
    "logsumexp": lambda a, x: jax.nn.logsumexp(a * x),
    "softmax": lambda a, x: jax.nn.softmax(a + x),
    "norm": lambda a, x: jnp.linalg.norm(x - a),
    "where": lambda a, x: jnp.where(x > a, x, jnp.sin(a)),
    "index": lambda a, x: x[jnp.argsort(a)] * 2.0,
    "matmul": lambda a, x: jnp.outer(a, x) @ x,
    "cumsum": lambda a, x: jnp.cumsum(a * x),
    "sort": lambda a, x: jnp.sort(a * x),
    "vmap": lambda a, x: jax.vmap(lambda p, q: jnp.tanh(p) * q)(a, x),
    "grad": lambda a, x: jax.grad(lambda z: jnp.sum(jnp.sin(a * z)))(x),
    "hessian": lambda a, x: jax.hessian(lambda z: jnp.sum(jnp.sin(a * z)))(x) @ x,
    "custom_jvp": lambda a, x: twice_sloped(a * x),
    "custom_vjp": lambda a, x: thrice_sloped(a * x),
    "vmap of custom_jvp": lambda a, x: jax.vmap(twice_sloped)(a * x),
    "vmap of custom_vjp": lambda a, x: jax.vmap(thrice_sloped)(a * x),
    "jit": lambda a, x: jax.jit(lambda v: jnp.sin(v) * a)(x),
    "jit of custom_vjp": lambda a, x: jax.jit(lambda v: thrice_sloped(v) * a)(x),
    "checkpoint": lambda a, x: jax.checkpoint(lambda v: jnp.sin(v) * a)(x),
    "scan": _scan,
    "while": _while,
    "fori": lambda a, x: jax.lax.fori_loop(0, 3, lambda i, c: jnp.cos(c * a), x),
    "cond": _cond,
    "switch": lambda a, x: jax.lax.switch(1, [jnp.sin, jnp.cos], x * a),
    "linear solve": _linear_solve,
    "random": lambda a, x: x * jax.random.normal(jax.random.key(0), (3,)) + a,
    "stop_gradient": lambda a, x: x * jax.lax.stop_gradient(a * x),
    "tree": lambda a, x: {"p": a * x, "q": (jnp.sum(x),)},
    "nested argmin": _nested,
}


def closed(body, a):
    return lambda x: body(a, x)


def same(got, want):
    for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


# Right, but compiled again for new data: an inner jit keeps what it captured as constants of its own, and the rule
# of a batched custom_vjp is made anew at every trace. A known limit of speed, not of truth.
_NOT_SHARED = {"jit", "jit of custom_vjp", "vmap of custom_vjp"}


def shared(names):
    limit = pytest.mark.xfail(reason="known limit: the program is not shared", strict=True)
    return [pytest.param(name, marks=limit) if name in _NOT_SHARED else name for name in names]


@pytest.mark.parametrize("name", shared(BODIES))
def test_fresh_closures_share_the_program_and_keep_their_data(name):
    body = BODIES[name]
    data = [jnp.array([0.5, 1.5, -0.7]), jnp.array([1.0, -2.0, 0.25])]
    functions = [closed(body, a) for a in data]
    hoisted = [hoist(function, X) for function in functions]
    assert hoisted[0][0] is hoisted[1][0]
    assert isinstance(hoisted[0][0], Program)
    for function, (program, captured) in zip(functions, hoisted, strict=True):
        same(program(captured, X), function(X))


@pytest.mark.parametrize("name", shared(sorted(set(BODIES) - {"nested argmin"})))
def test_a_program_differentiates_as_its_function(name):
    """In the argument and in what was captured; forwards, and backwards where the function can."""
    a, body = jnp.array([0.5, 1.5, -0.7]), BODIES[name]
    program, _ = hoist(closed(body, jnp.array([1.0, -2.0, 0.25])), X)

    def direct(a, x):
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(body(a, x))])

    def through(a, x):
        fresh, captured = hoist(closed(body, a), x)
        assert fresh is program
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(fresh(captured, x))])

    if "custom_vjp" not in name:
        same(jax.jvp(through, (a, X), (X, a)), jax.jvp(direct, (a, X), (X, a)))
    if name != "while":
        same(jax.jacrev(through, (0, 1))(a, X), jax.jacrev(direct, (0, 1))(a, X))


def test_a_nested_argmin_shares_under_every_transformation():
    """Fresh inner closures over tracers of jit, grad and vmap are still one outer program."""
    seen = []

    def outer(a):
        program, captured = hoist(closed(_nested, a), X)
        seen.append(program)
        return jnp.sum(program(captured, X))

    a = jnp.array([0.5, 1.5, -0.7])
    outer(a)
    jax.jit(outer)(a)
    jax.grad(outer)(a)
    jax.vmap(outer)(jnp.stack([a, a]))
    assert all(program is seen[0] for program in seen)


def test_captured_tracers_are_inputs():
    def f(a):
        program, captured = hoist(lambda x: jnp.sum(a * x**2), X)
        return program(captured, X)

    np.testing.assert_allclose(jax.jit(jax.grad(f))(X), X**2)
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(jnp.eye(3)), jnp.broadcast_to(X**2, (3, 3)))


def test_shapes_dtypes_and_trees_of_the_argument_make_another_program():
    def fun(x):
        return jax.tree.map(lambda leaf: leaf * 2, x)

    arguments = [
        X,
        X[:2],
        X.astype(jnp.float32),
        X[:, None],
        {"a": X},
        {"b": X},
        (X,),
        [X],
        (X, X),
        jnp.array([1, 2, 3]),
    ]
    programs = [hoist(fun, x)[0] for x in arguments]
    assert len(set(programs)) == len(arguments)
    with pytest.raises(TypeError, match="traced for"):
        programs[0]([], {"a": X})


# --- programs that are not one ---------------------------------------------------------------------


def with_jvp(rule):
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(rule)
    return f


def with_vjp(forward, backward):
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(forward, backward)
    return f


def _forward(x):
    return jnp.sin(x), x


SLOPES = {
    "plain": jnp.sin,
    **{f"jvp {c}": with_jvp(lambda p, t, c=c: (jnp.sin(*p), c * t[0])) for c in (1.0, 2.0)},
    **{f"vjp {c}": with_vjp(_forward, lambda x, t, c=c: (c * t,)) for c in (3.0, 4.0)},
    "vjp, other forward": with_vjp(lambda x: (jnp.sin(x), 2.0 * x), lambda x, t: (x * t,)),
    "vjp, first forward": with_vjp(_forward, lambda x, t: (x * t,)),
    "jit of jvp": jax.jit(with_jvp(lambda p, t: (jnp.sin(*p), 5.0 * t[0]))),
    "checkpoint of jvp": jax.checkpoint(with_jvp(lambda p, t: (jnp.sin(*p), 6.0 * t[0]))),
    "vmap of jvp": lambda x: jax.vmap(with_jvp(lambda p, t: (jnp.sin(*p), 7.0 * t[0])))(x[None])[0],
    "scan of jvp": lambda x: jax.lax.scan(
        lambda c, _: (with_jvp(lambda p, t: (jnp.sin(*p), 8.0 * t[0]))(c), None), x, None, length=1
    )[0],
}


@pytest.mark.parametrize("name", SLOPES)
def test_the_same_primal_with_another_rule_keeps_its_own_derivative(name):
    for other in SLOPES:  # all of them interned first, in this order
        hoist(lambda x, f=SLOPES[other]: f(x), jnp.float64(0.7))
    f = SLOPES[name]
    program, captured = hoist(lambda x: f(x), jnp.float64(0.7))
    got = jax.grad(lambda x: program(captured, x))(jnp.float64(0.7))
    np.testing.assert_allclose(got, jax.grad(f)(0.7))


NEAR = {
    **{f"literal {c}": lambda x, c=c: jnp.sum(x * c) for c in np.linspace(0.1, 3.0, 20)},
    "literal zero": lambda x: jnp.sum(jnp.arctan2(x, 0.0)),
    "literal minus zero": lambda x: jnp.sum(jnp.arctan2(x, -0.0)),
    "literal nan": lambda x: jnp.sum(jnp.where(x > 5.0, math.nan, x)),
    "literal inf": lambda x: jnp.sum(jnp.where(x > 5.0, math.inf, x)),
    "next float": lambda x: jnp.sum(x * math.nextafter(0.1, 1.0)),
    "sin": lambda x: jnp.sum(jnp.sin(x)),
    "cos": lambda x: jnp.sum(jnp.cos(x)),
    "max": lambda x: jnp.max(x),
    "min": lambda x: jnp.min(x),
    "axis 0": lambda x: jnp.sum(jnp.cumsum(jnp.outer(x, x), axis=0) * jnp.arange(3.0)[:, None]),
    "axis 1": lambda x: jnp.sum(jnp.cumsum(jnp.outer(x, x), axis=1) * jnp.arange(3.0)[:, None]),
    "reverse": lambda x: jnp.sum(jax.lax.cumsum(x, reverse=True) * x),
    "forward": lambda x: jnp.sum(jax.lax.cumsum(x) * x),
    "power 3": lambda x: jnp.sum(x**3),
    "power 2": lambda x: jnp.sum(x**2),
    "order ab": lambda x: jnp.sum(x[0] - x[1]),
    "order ba": lambda x: jnp.sum(x[1] - x[0]),
    "scan forward": lambda x: jax.lax.scan(lambda c, e: (c * 0.5 + e, None), 0.0, x)[0],
    "scan backward": lambda x: jax.lax.scan(lambda c, e: (c * 0.5 + e, None), 0.0, x, reverse=True)[0],
    "scan inner literal": lambda x: jax.lax.scan(lambda c, e: (c * 0.25 + e, None), 0.0, x)[0],
    "while under 3": lambda x: jnp.sum(jax.lax.while_loop(lambda c: jnp.sum(c) < 3.0, lambda c: c + 1.0, x)),
    "while under 9": lambda x: jnp.sum(jax.lax.while_loop(lambda c: jnp.sum(c) < 9.0, lambda c: c + 1.0, x)),
    "cond": lambda x: jax.lax.cond(x[0] > 0, jnp.sum, jnp.prod, x),
    "cond, other way": lambda x: jax.lax.cond(x[0] > 0, jnp.prod, jnp.sum, x),
    "jit literal 2": lambda x: jax.jit(lambda v: jnp.sum(v) * 2.0)(x),
    "jit literal 4": lambda x: jax.jit(lambda v: jnp.sum(v) * 4.0)(x),
    "float32 inside": lambda x: jnp.sum(x.astype(jnp.float32)).astype(x.dtype),
    "bfloat16 inside": lambda x: jnp.sum(x.astype(jnp.bfloat16)).astype(x.dtype),
    "precision highest": lambda x: jnp.dot(x, x, precision="highest"),
    "precision default": lambda x: jnp.dot(x, x),
    "key 1": lambda x: jnp.sum(x * jax.random.normal(jax.random.key(1), (3,))),
    "key 2": lambda x: jnp.sum(x * jax.random.normal(jax.random.key(2), (3,))),
    "nested, one": lambda x: nestor.argmin(
        lambda y: (y - jnp.sum(x)) ** 2, 0.0, solver=nestor.Newton(), on_failure="keep"
    ),
    "nested, other": lambda x: nestor.argmin(
        lambda y: (y + jnp.sum(x)) ** 2, 0.0, solver=nestor.Newton(), on_failure="keep"
    ),
}


def test_near_identical_programs_are_never_confused():
    programs = {name: hoist(fun, X) for name, fun in NEAR.items()}
    for one, other in itertools.combinations(NEAR, 2):
        assert programs[one][0] is not programs[other][0], (one, other)
    for name, fun in NEAR.items():
        program, captured = programs[name]
        same(program(captured, X), fun(X))
        assert hoist(lambda x, fun=fun: fun(x), X)[0] is program, name


def test_captures_are_told_apart_by_shape_and_dtype():
    values = [jnp.float64(2.0), jnp.float32(2.0), jnp.ones(3), jnp.ones((1, 3)), jnp.int32(2)]
    programs = [hoist(lambda x, a=a: jnp.sum(x) * jnp.sum(a).astype(x.dtype), X)[0] for a in values]
    assert len(set(programs)) == len(values)


# --- random programs -------------------------------------------------------------------------------

_UNARY = [jnp.sin, jnp.tanh, jax.nn.relu, jax.nn.softplus, jnp.square, twice_sloped]
_BINARY = [jnp.add, jnp.multiply, jnp.maximum]


def expressions():
    leaf = st.one_of(
        st.just(("x",)), st.just(("a",)), st.sampled_from([0.5, 1.0, 2.0]).map(lambda c: ("c", c))
    )
    unary = lambda child: st.tuples(st.integers(0, len(_UNARY) - 1), child)  # noqa: E731
    binary = lambda child: st.tuples(st.integers(0, len(_BINARY) - 1), child, child)  # noqa: E731
    return st.recursive(leaf, lambda child: unary(child) | binary(child), max_leaves=5)


def evaluate(expression, a, x):
    head = expression[0]
    if head == "x":
        return x
    if head == "a":
        return a
    if head == "c":
        return jnp.full_like(x, expression[1])
    arguments = [evaluate(child, a, x) for child in expression[1:]]
    return _UNARY[head](*arguments) if len(arguments) == 1 else _BINARY[head](*arguments)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(expressions(), expressions(), st.floats(-2, 2), st.floats(-2, 2))
def test_random_programs(one, other, p, q):
    """Equal expressions are one program whatever the data; different expressions keep their own numbers."""
    a, b = jnp.full(3, p), jnp.full(3, q)
    first, captured = hoist(lambda x: evaluate(one, a, x), X)
    again, captured_again = hoist(lambda x: evaluate(one, b, x), X)
    third, captured_third = hoist(lambda x: evaluate(other, a, x), X)
    assert first is again
    same(first(captured, X), evaluate(one, a, X))
    same(again(captured_again, X), evaluate(one, b, X))
    same(third(captured_third, X), evaluate(other, a, X))
    texts = [str(jax.make_jaxpr(lambda x, e=e: evaluate(e, a, x))(X)) for e in (one, other)]
    assert (texts[0] == texts[1]) == (first is third)


# --- nothing is stale ------------------------------------------------------------------------------

_FACTOR = 1.0


def test_a_changed_global_is_another_program():
    global _FACTOR

    def fun(x):
        return jnp.sum(x) * _FACTOR

    for _FACTOR in (1.0, 5.0, 1.0):
        program, captured = hoist(fun, X)
        same(program(captured, X), fun(X))


def test_a_changed_array_is_another_input():
    a = np.array([1.0, 2.0, 3.0])

    def fun(x):
        return jnp.sum(x * a)

    first, captured = hoist(fun, X)
    before = first(captured, X)
    a[:] = 0.0
    second, captured = hoist(fun, X)
    same(second(captured, X), 0.0)
    assert float(before) != 0.0


def test_a_bounded_number_is_remembered():
    """Many programs come and go; the early ones are made again without error."""
    fun = lambda c: lambda x: x * c  # noqa: E731
    first, _ = hoist(fun(-1.0), jnp.float64(1.0))
    for c in range(1200):
        hoist(fun(float(c)), jnp.float64(1.0))
    again, captured = hoist(fun(-1.0), jnp.float64(1.0))
    same(again(captured, jnp.float64(3.0)), -3.0)
    same(first([], jnp.float64(3.0)), -3.0)
