"""Functions of JAX as functions of PyTorch: values, memory, derivatives of every kind, and errors."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nestor

torch = pytest.importorskip("torch")


def ridge(features, labels, strength):
    """The weights of a ridge regression, by an inner optimization."""

    def loss(w):
        return jnp.sum((features @ w - labels) ** 2) + strength * jnp.sum(w**2)

    return nestor.argmin(loss, jnp.zeros(features.shape[1]), solver=nestor.Newton(), tol=1e-10)


def ridge_by_hand(features, labels, strength):
    matrix = features.T @ features + strength * torch.eye(features.shape[1], dtype=torch.float64)
    return torch.linalg.solve(matrix, features.T @ labels)


@pytest.fixture
def data():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(6, 2, generator=random, dtype=torch.float64)
    labels = torch.randn(6, generator=random, dtype=torch.float64)
    strength = torch.tensor(0.3, dtype=torch.float64)
    return features, labels, strength


def scaled_sine(a, b, times=2.0):
    """A tree in, a tree out, an integer among the results, and a number that is no tensor."""
    return {"wave": jnp.sin(a * b["k"]) * times, "where": jnp.argmax(a)}


def vector(seed, n=3):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_solution_map_and_its_derivatives_are_those_of_the_closed_form(data):
    fit = nestor.torch.layer(ridge)
    for leaf in data:
        leaf.requires_grad_()
    ours, theirs = fit(*data), ridge_by_hand(*data)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)

    def second(fun):
        first = torch.autograd.grad(fun(*data).square().sum(), data, create_graph=True)
        total = sum(leaf.square().sum() for leaf in first)
        return *first, *torch.autograd.grad(total, data)

    for mine, by_hand in zip(second(fit), second(ridge_by_hand), strict=True):
        torch.testing.assert_close(mine, by_hand, rtol=1e-7, atol=1e-7)


def test_pytorch_itself_checks_the_derivatives():
    f = nestor.torch.layer(scaled_sine)
    inputs = (vector(0).requires_grad_(), vector(1).requires_grad_())
    wave = lambda a, k: f(a, {"k": k})["wave"]  # noqa: E731
    assert torch.autograd.gradcheck(wave, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(wave, inputs)


def test_trees_integers_and_static_arguments():
    f = nestor.torch.layer(scaled_sine)
    a = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64, requires_grad=True)
    out = f(a, {"k": a.detach()}, times=5)
    assert set(out) == {"wave", "where"}
    assert out["where"].item() == 1
    assert not out["where"].requires_grad
    torch.testing.assert_close(out["wave"], 5 * torch.sin(a * a.detach()))

    chosen = nestor.torch.layer(lambda x, i, mask: jnp.where(mask, x[i], 0.0))
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    chosen(x, torch.tensor([1, 1, 0]), torch.tensor([True, True, False])).sum().backward()
    assert x.grad.tolist() == [0.0, 2.0]

    with_arrays = nestor.torch.layer(lambda x, y, z: x + y + z)
    result = with_arrays(torch.ones(2, dtype=torch.float64), jnp.ones(2), np.ones(2))
    assert result.tolist() == [3.0, 3.0]


def test_inputs_that_are_not_read_have_no_gradient():
    f = nestor.torch.layer(lambda a, b: 2 * a)
    a, b = vector(0).requires_grad_(), vector(1).requires_grad_()
    f(a, b).sum().backward()
    assert a.grad.tolist() == [2.0, 2.0, 2.0]
    assert b.grad is None


def test_nothing_is_kept_without_gradients():
    f = nestor.torch.layer(lambda a: a * 2)
    a = vector(0).requires_grad_()
    with torch.no_grad():
        assert not f(a).requires_grad
    assert not f(a.detach()).requires_grad


def test_functional_transforms():
    f = nestor.torch.layer(scaled_sine)
    a, k = vector(0), vector(1)
    wave = lambda a: f(a, {"k": k})["wave"]  # noqa: E731
    jacobian = torch.diag(2 * k * torch.cos(a * k))
    torch.testing.assert_close(torch.func.jacrev(wave)(a), jacobian)
    torch.testing.assert_close(torch.func.jacfwd(wave)(a), jacobian)
    hessian = torch.diag(-2 * k**2 * torch.sin(a * k))
    torch.testing.assert_close(torch.func.hessian(lambda a: wave(a).sum())(a), hessian)
    batch = torch.stack([a, 2 * a], dim=1)
    lanes = torch.func.vmap(torch.func.grad(lambda a: wave(a).sum()), in_dims=1)(batch)
    torch.testing.assert_close(lanes, 2 * k * torch.cos(batch.T * k))


def test_complex_numbers_follow_pytorch():
    f = nestor.torch.layer(lambda z: z * z * jnp.conj(z))
    z = torch.tensor([1.0 + 2.0j, 0.5 - 1.0j], dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(f, (z,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (z,))


def test_memory_is_shared_where_nobody_else_can_write_to_it():
    from nestor.torch._tensors import array_from, tensors_from

    x = torch.zeros(64, dtype=torch.float64)
    with jax.enable_x64(True):
        array = array_from("test", "x", x)
        assert array.unsafe_buffer_pointer() == x.data_ptr()
        fresh = array + 1.0
        (back,) = tensors_from([fresh], [array])
        assert back.data_ptr() == fresh.unsafe_buffer_pointer()
        (copy,) = tensors_from([array], [array])
        assert copy.data_ptr() != x.data_ptr()


def test_writing_in_place_is_never_seen_elsewhere():
    same = nestor.torch.layer(lambda x: (x, x))
    x = torch.zeros(3, dtype=torch.float64)
    first, second = same(x)
    first.add_(1.0)
    assert x.tolist() == second.tolist() == [0.0, 0.0, 0.0]

    square = nestor.torch.layer(lambda x: x**2)
    x = vector(0).requires_grad_()
    middle = x * 1.0
    result = square(middle)
    middle.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


@pytest.mark.parametrize(
    "view", [lambda t: t.T, lambda t: t[1:], lambda t: t[:1].expand(4, 3), lambda t: t[:, ::2]]
)
def test_views_are_copied_where_they_must_be(view):
    t = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    double = nestor.torch.layer(lambda x: 2 * x)
    assert torch.equal(double(view(t)), 2 * view(t))


def test_precision_is_that_of_the_tensors_whatever_jax_is_set_to():
    f = nestor.torch.layer(lambda x: jnp.exp(x) * jnp.ones(2))
    with jax.enable_x64(False):
        x = torch.tensor([0.5, 0.25], dtype=torch.float64, requires_grad=True)
        out = f(x)
        assert out.dtype == torch.float64
        out.sum().backward()
        torch.testing.assert_close(x.grad, torch.exp(x.detach()), rtol=1e-15, atol=0)
        assert f(torch.zeros(2)).dtype == torch.float32
        index = nestor.torch.layer(lambda x, i: x[i])
        assert index(torch.arange(3.0), torch.tensor(2)).item() == 2.0
        with pytest.raises(nestor.BadArgument, match="must be within 32 bits"):
            index(torch.arange(3.0), torch.tensor(2**40))
    assert f(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


class Denoiser(torch.nn.Module):
    """Least squares with a learned penalty."""

    def __init__(self):
        super().__init__()
        self.log_strength = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.solve = nestor.torch.layer(denoised)

    def forward(self, noisy):
        return self.solve(noisy, self.log_strength)


def denoised(noisy, log_strength):
    penalty = lambda y: jnp.sum(jnp.exp(log_strength) * y**2)  # noqa: E731
    return nestor.argmin(lambda y: jnp.sum((y - noisy) ** 2) + penalty(y), noisy, solver=nestor.Newton())


def test_a_module_trains_with_an_optimizer_and_can_be_saved():
    model = Denoiser()
    noisy = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    target = torch.tensor([0.5, 0.5, 2.0], dtype=torch.float64)  # noisy / (1 + exp(log_strength))
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (model(noisy) - target).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    torch.testing.assert_close(model(noisy), target, rtol=1e-4, atol=1e-4)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(noisy), model(noisy))


def test_a_training_run_is_a_layer():
    def trained(rate):
        loss = lambda w, *_: jnp.sum((w - 1.0) ** 2)  # noqa: E731
        data = lambda step: jnp.zeros(1)  # noqa: E731
        return nestor.train(loss, jnp.zeros(2), data, optimizer=nestor.sgd(rate), steps=3).params

    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    out = nestor.torch.layer(trained)(rate)
    (slope,) = torch.autograd.grad(out[0], rate)
    assert float(out[0].detach()) == pytest.approx(1 - 0.8**3)
    assert float(slope) == pytest.approx(6 * 0.8**2)


def test_a_solution_can_be_looked_at():
    solve = nestor.torch.layer(
        lambda x: nestor.minimize(lambda y: (y - x) ** 2, x * 0.0, solver=nestor.Newton())
    )
    solution = solve(torch.tensor(2.0, dtype=torch.float64))
    assert isinstance(solution, nestor.Solution)
    assert solution.success
    assert float(solution.x) == pytest.approx(2.0)


def test_a_mistake_is_explained():
    with pytest.raises(nestor.BadArgument, match="argument 'f' is 3"):
        nestor.torch.layer(3)
    with pytest.raises(nestor.BadArgument, match="argument 'f' is a module") as error:
        nestor.torch.layer(torch.nn.Linear(1, 1))
    assert "as_jax" in str(error.value)
    f = nestor.torch.layer(lambda x, y: x)
    x = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(nestor.BadArgument, match=r"argument 'args\[1\]\['a'\]' is a module"):
        f(x, {"a": torch.nn.Linear(1, 1)})
    with pytest.raises(nestor.BadArgument, match=r"argument 'kwargs\['y'\]' is .*hashable"):
        f(x, y={1, 2})
    with pytest.raises(nestor.BadArgument, match="on the device 'meta'"):
        f(torch.zeros(2, device="meta"), 1)
    with pytest.raises(nestor.BadArgument, match=r"layout torch\.sparse_coo"):
        f(x.to_sparse(), 1)
    with pytest.raises(nestor.BadArgument, match="branches on the value"):
        nestor.torch.layer(lambda x: x if x > 0 else -x)(torch.tensor(1.0))
    with pytest.raises(nestor.BadArgument, match="returns a str"):
        nestor.torch.layer(lambda x: "no")(x)
    y = nestor.torch.layer(lambda x: 2 * x)(x.requires_grad_())
    with pytest.raises(nestor.BadArgument, match=r"torch\.func\.jacrev"):
        torch.autograd.grad(y, x, torch.eye(2, dtype=torch.float64), is_grads_batched=True)


def test_a_second_call_compiles_nothing():
    from tests.compiles import compilations

    f = nestor.torch.layer(lambda x: jnp.sin(x) * 2)
    f(vector(0).requires_grad_()).sum().backward()
    with compilations() as count:
        f(vector(1).requires_grad_()).sum().backward()
        nestor.torch.layer(lambda x: jnp.sin(x) * 2)(vector(2).requires_grad_()).sum().backward()
    assert count.number == 0


def test_arrays_of_numpy_of_all_kinds_and_what_is_no_tensor():
    double = nestor.torch.layer(lambda x: x * 2)
    for array in (np.arange(6.0).reshape(2, 3).T[::-1], np.ones(2, ">f8"), np.array(3.0)):
        np.testing.assert_array_equal(double(array), 2 * array)
    with pytest.raises(nestor.BadArgument, match="traced"):
        jax.jit(lambda x: double(x))(jnp.ones(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(nestor.BadArgument, match="dequantize"):
        double(quantized)
