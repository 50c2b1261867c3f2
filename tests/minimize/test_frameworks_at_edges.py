"""What PyTorch and TensorFlow cannot follow is refused or differenced, and never taken for a slope of zero."""

import numpy as np
import pytest

import nestor


class InTorch:
    def __init__(self):
        self.torch = pytest.importorskip("torch")

    def zeros(self, n, dtype="float64"):
        return self.torch.zeros(n, dtype=getattr(self.torch, dtype))

    def wide(self, x):
        return x.double()

    def square(self, x):
        return ((x - 2.0) ** 2).sum()

    def constant(self, value):
        return self.torch.tensor(value)

    def deaf(self, x):
        return x.detach()


class InTensorFlow:
    def __init__(self):
        self.tf = pytest.importorskip("tensorflow")

    def zeros(self, n, dtype="float64"):
        return self.tf.zeros(n, dtype)

    def wide(self, x):
        return self.tf.cast(x, "float64")

    def square(self, x):
        return self.tf.reduce_sum((x - 2.0) ** 2)

    def constant(self, value):
        return self.tf.constant(value)

    def deaf(self, x):
        return self.tf.constant(x.numpy())


@pytest.fixture(params=[InTorch, InTensorFlow], ids=["torch", "tensorflow"])
def its(request):
    return request.param()


def numbers(x):
    return np.asarray(x).astype(float)


def test_a_value_that_cannot_be_followed_is_refused(its):
    """TensorFlow says zero where it knows no derivative: every start would be a solution."""
    for fun in (
        lambda x: its.square(its.deaf(x)),
        lambda x: its.constant(1.0),
        lambda x: float(its.square(its.deaf(x))),
    ):
        for method in ("BFGS", "trust-exact"):
            with pytest.raises(nestor.BadArgument, match="cannot follow"):
                nestor.minimize(fun, its.zeros(2), method=method)


def test_it_may_be_minimized_without_derivatives(its):
    fun = lambda x: float(its.square(its.deaf(x)))  # noqa: E731
    for options in ({"method": "Nelder-Mead"}, {"method": "COBYQA"}, {"jac": "2-point"}):
        solution = nestor.minimize(fun, its.zeros(2), **options)
        np.testing.assert_allclose(numbers(solution.x), 2.0, atol=1e-3)
        assert type(solution.x) is type(its.zeros(2))


def test_a_cliff_of_infinity_is_walked_around(its):
    """A constant where there is no value is no mistake: nothing is asked of its derivative."""
    fun = lambda x: its.square(x) if x[0] < 2.5 else float("inf")  # noqa: E731
    far = nestor.minimize(lambda x: fun(3 * x), its.zeros(2), method="BFGS")
    np.testing.assert_allclose(numbers(far.x), 2 / 3, atol=1e-4)


def test_a_constraint_that_cannot_be_followed_is_differenced(its):
    for fun in (
        lambda x: float(numbers(its.deaf(x)).sum()) - 1.0,
        lambda x: its.deaf(x)[:1] - 0.5,
        lambda x: [x[0] - x[1]],
        lambda x: 1,
    ):
        solution = nestor.minimize(
            its.square, its.zeros(2), constraints={"type": "eq", "fun": fun}, tol=1e-6, raise_on_failure=False
        )
        assert solution.success == (fun(its.zeros(2)) != 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_numbers_stay_in_the_box(its, dtype):
    seen = []

    def fun(x):
        seen.append(numbers(its.wide(its.deaf(x) if isinstance(its, InTorch) else x)).max())
        return its.square(its.wide(x))

    solution = nestor.minimize(fun, its.zeros(2, dtype), bounds=(-0.1, 0.1))
    assert max(seen) <= 0.1
    assert dtype in str(solution.x.dtype)


def test_scalars_of_numpy_come_back(its):
    fun = lambda p: its.square(p["a"]) + its.wide(p["s"]) ** 2 + its.wide(p["f"]) ** 2  # noqa: E731
    x = nestor.minimize(fun, {"a": its.zeros(2), "s": np.float32(1), "f": 1.0}).x
    assert (type(x["s"]), type(x["f"])) == (np.float32, float)


def test_odd_values_and_holders_are_refused(its):
    for value in (None, "a", 1j):
        with pytest.raises(nestor.BadArgument, match="fun"):
            nestor.minimize(lambda x, value=value: value, its.zeros(2))
    with pytest.raises(nestor.BadArgument, match=r"shape \(2,\)"):
        nestor.minimize(lambda x: x, its.zeros(2))


def test_modes_of_pytorch_do_not_matter():
    its = InTorch()
    torch = its.torch
    hessian = {"method": "trust-exact"}
    for mode in (torch.no_grad, torch.inference_mode):
        for options in ({}, hessian, {"method": "trust-krylov"}):
            with mode():
                solution = nestor.minimize(its.square, torch.zeros(2), **options)
            np.testing.assert_allclose(solution.x.numpy(), 2.0, atol=1e-4)


def test_modules_sparse_tensors_and_backward_are_explained():
    its = InTorch()
    torch = its.torch
    with pytest.raises(nestor.BadArgument, match="named_parameters"):
        nestor.minimize(lambda m: 0.0, torch.nn.Linear(2, 1))
    with pytest.raises(nestor.BadArgument, match="to_dense"):
        nestor.minimize(its.square, torch.eye(2).to_sparse())

    def fun(x):
        loss = its.square(x)
        loss.backward()
        return loss

    with pytest.raises(nestor.BadArgument, match="backward"):
        nestor.minimize(fun, torch.zeros(2))


def test_parameters_keep_what_is_asked_of_them():
    its = InTorch()
    torch = its.torch
    net = torch.nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    start, before = dict(net.named_parameters()), net.weight.detach().clone()
    fun = lambda p: its.square(torch.func.functional_call(net, p, torch.eye(2)))  # noqa: E731
    x = nestor.minimize(fun, start).x
    assert [p.requires_grad for p in x.values()] == [True, False]
    assert all(type(p) is torch.nn.Parameter for p in x.values())
    assert torch.equal(net.weight, before)
