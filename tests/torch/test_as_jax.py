"""Modules of PyTorch as functions of JAX: values, derivatives of every kind, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor

torch = pytest.importorskip("torch")


def by_hand(params, x):
    hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"][None])
    return hidden @ params["2.weight"].T + params["2.bias"][None]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    layers = (torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    return torch.nn.Sequential(*layers).double()


@pytest.fixture(scope="module")
def model(net):
    return nestor.torch.as_jax(net)


X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))


def close(a, b, tol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tol, atol=tol), a, b)


def square(f):
    return lambda params: jnp.sum(f(params, X) ** 2)


def test_values(net, model):
    assert set(model.params) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    close(model(model.params, X), net(torch.tensor(np.asarray(X))).detach().numpy())
    close(jax.jit(model)(model.params, X), by_hand(model.params, X))


@pytest.mark.parametrize(
    "derivative",
    [
        pytest.param(lambda f: jax.value_and_grad(square(f)), id="grad"),
        pytest.param(lambda f: jax.jacfwd(square(f)), id="forwards"),
        pytest.param(lambda f: jax.jacfwd(jax.grad(square(f))), id="forwards over reverse"),
        pytest.param(lambda f: jax.jacrev(jax.grad(square(f))), id="reverse over reverse"),
        pytest.param(lambda f: jax.jacrev(jax.jacfwd(square(f))), id="reverse over forwards"),
    ],
)
def test_derivatives_are_those_of_the_same_model_in_jax(model, derivative):
    close(derivative(model)(model.params), derivative(by_hand)(model.params))


def test_a_gradient_is_a_finite_difference(model):
    grad = jax.grad(square(model))(model.params)
    key, step = "0.weight", 1e-6
    for place in ((0, 0), (2, 1)):
        ends = [
            square(model)({**model.params, key: model.params[key].at[place].add(sign * step)})
            for sign in (1, -1)
        ]
        assert float(grad[key][place]) == pytest.approx(float((ends[0] - ends[1]) / (2 * step)), rel=1e-7)


def test_lanes(model):
    several = jnp.stack([X, 2 * X])

    def slopes(f):
        return jax.vmap(jax.grad(lambda params, x: jnp.sum(f(params, x))), (None, 0))(model.params, several)

    close(slopes(model), slopes(by_hand))
    whole = lambda f: jax.grad(lambda p: jnp.sum(jax.vmap(f, (None, 0))(p, several) ** 2))(model.params)  # noqa: E731
    close(whole(model), whole(by_hand))


def test_lanes_of_lanes():
    f = nestor.torch.as_jax(lambda a, b: torch.sin(a) * b**2)
    mine = lambda a, b: jnp.sin(a) * b**2  # noqa: E731
    a, b = jnp.arange(1.0, 4.0), jnp.arange(2.0, 4.0)

    def slopes(f):
        table = jax.vmap(jax.vmap(f, (None, 0)), (0, None))
        return jax.grad(lambda a, b: jnp.sum(table(a, b) ** 2), (0, 1))

    close(slopes(f)(a, b), slopes(mine)(a, b))
    close(jax.jacfwd(slopes(f))(a, b), jax.jacfwd(slopes(mine))(a, b))


def test_lanes_that_pytorch_cannot_batch_go_one_by_one():
    f = nestor.torch.as_jax(lambda x: x * 2 if x > 0 else -x)
    assert jax.vmap(f)(jnp.asarray([-1.0, 3.0])).tolist() == [1.0, 6.0]
    assert jax.vmap(jax.grad(f))(jnp.asarray([-1.0, 3.0])).tolist() == [-1.0, 2.0]


def test_a_function_with_a_tree_integers_and_a_static_argument():
    def fun(tree, power, *, shift):
        return {"up": tree["a"] ** power + shift, "most": tree["a"].argmax()}

    f = nestor.torch.as_jax(fun)
    x = jnp.asarray([1.0, 3.0, 2.0])
    out = f({"a": x}, 2, shift=1)
    assert int(out["most"]) == 1
    close(out["up"], x**2 + 1)
    close(jax.grad(lambda x: jnp.sum(f({"a": x}, 3, shift=0)["up"]))(x), 3 * x**2)


def test_complex_numbers_and_half_precision():
    f = nestor.torch.as_jax(lambda z: z * z.abs())
    mine = lambda z: z * jnp.abs(z).astype(complex)  # noqa: E731
    z, v = jnp.asarray([1.0 + 2.0j, 0.5 - 1.0j]), jnp.asarray([0.3 - 1.0j, 1.0 + 0.0j])
    close(jax.jvp(f, (z,), (v,)), jax.jvp(mine, (z,), (v,)))
    close(jax.vjp(f, z)[1](v), jax.vjp(mine, z)[1](v))
    half = nestor.torch.as_jax(lambda x: x * 2)(jnp.ones(2, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert half.tolist() == [2.0, 2.0]


def test_a_model_stands_in_an_argmin(model):
    def hyper(f):
        def best(log_strength):
            penalty = lambda p: jnp.exp(log_strength) * sum(jnp.sum(leaf**2) for leaf in p.values())  # noqa: E731
            loss = lambda p: jnp.mean((f(p, X) - X[:, :1]) ** 2) + penalty(p)  # noqa: E731
            return nestor.argmin(loss, model.params, tol=1e-9)

        return jax.value_and_grad(lambda s: jnp.sum(best(s)["0.bias"] ** 2))(-1.0)

    close(hyper(model), hyper(by_hand), 1e-6)


def test_buffers_are_left_alone():
    net = torch.nn.BatchNorm1d(2).double()
    before = net.running_mean.clone()
    f = nestor.torch.as_jax(net)
    out = jax.jit(f)(f.params, X)
    close(jnp.mean(out, axis=0), jnp.zeros(2))
    assert torch.equal(net.running_mean, before)


def test_it_works_in_both_directions_whatever_jax_is_set_to():
    inside = nestor.torch.as_jax(torch.tanh)
    f = nestor.torch.layer(lambda x: jnp.sum(inside(x) * x))
    with jax.enable_x64(False):
        x = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
        f(x).backward()
        assert f(x).dtype == torch.float64
    exact = torch.tanh(x.detach()) + x.detach() * (1 - torch.tanh(x.detach()) ** 2)
    torch.testing.assert_close(x.grad, exact, rtol=1e-14, atol=0)
    with jax.enable_x64(False):
        assert nestor.torch.as_jax(lambda x: x.double())(jnp.ones(1)).dtype == jnp.float32


def test_repeated_solves_compile_once(model):
    from tests.compiles import compilations

    solve = lambda x: nestor.minimize(lambda p: jnp.mean((model(p, x) - 1.0) ** 2), model.params)  # noqa: E731
    solve(X)
    with compilations() as count:
        solve(X + 0.0)
    assert count.number <= 1  # the addition


def test_a_mistake_is_explained():
    with pytest.raises(nestor.BadArgument, match="argument 'module' is 3"):
        nestor.torch.as_jax(3)
    with pytest.raises(nestor.BadArgument, match="returns nothing"):
        nestor.torch.as_jax(lambda x: None)(X)
    with pytest.raises(nestor.BadArgument, match="returns 3"):
        nestor.torch.as_jax(lambda x: 3)(X)
    with pytest.raises(nestor.BadArgument, match="hashable"):
        nestor.torch.as_jax(lambda x, y: x)(X, {1, 2})
    with pytest.raises(nestor.BadArgument, match="on the device 'meta'"):
        nestor.torch.as_jax(torch.nn.Linear(1, 1, device="meta"))


def test_short_numbers_tensors_and_copies():
    import pickle

    short = nestor.torch.as_jax(torch.nn.Linear(2, 1).bfloat16())
    assert short.params["weight"].dtype == jnp.bfloat16
    assert short(short.params, jnp.ones((1, 2), jnp.bfloat16)).dtype == jnp.bfloat16
    double = nestor.torch.as_jax(torch.nn.Softplus())
    np.testing.assert_allclose(double({}, torch.zeros(2)), np.log(2.0), rtol=1e-6)  # a tensor is an array
    again = pickle.loads(pickle.dumps(nestor.torch.as_jax(torch.nn.Linear(2, 1))))
    assert again(again.params, jnp.ones((1, 2), jnp.float32)).shape == (1, 1)


def test_parameters_are_those_of_then():
    net = torch.nn.Linear(64, 64)
    model = nestor.torch.as_jax(net)
    before = np.array(model.params["weight"])
    with torch.no_grad():
        net.weight.add_(1.0)
    np.testing.assert_array_equal(model.params["weight"], before)


def test_names_and_shapes_that_do_not_fit_are_refused(model):
    with pytest.raises(nestor.BadArgument, match="wieght"):
        nestor.torch.as_jax(torch.nn.Linear(2, 1))({"wieght": jnp.ones((1, 2))}, jnp.ones((1, 2)))
    assert model({}, X).shape == (4, 1)  # all as the module has them
    select = nestor.torch.as_jax(lambda x: x[x >= 0])
    with pytest.raises(Exception, match=r"on zeros"):
        jax.block_until_ready(select(jnp.asarray([-1.0, 1.0, 2.0])))
