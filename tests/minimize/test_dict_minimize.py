"""Programs in the style of dict-minimize run by changing their import: three of them, in every framework."""

from collections import OrderedDict

import numpy as np
import pytest
import scipy.optimize

import nestor


def numpys():
    from nestor.minimize.numpy_api import minimize

    rosen, der = scipy.optimize.rosen, scipy.optimize.rosen_der

    def fun(p, shift):
        return rosen(p["x_half_a"] - shift) + rosen(p["x_half_b"] - shift)

    def both(p, shift):
        grads = OrderedDict((name, der(entry - shift)) for name, entry in p.items())
        return fun(p, shift), grads

    return minimize, np.array, fun, both


def jaxs():
    import jax
    import jax.numpy as jnp

    from nestor.minimize.jax_api import minimize

    def fun(p, shift):
        rosen = lambda x: jnp.sum(100.0 * (x[1:] - x[:-1] ** 2.0) ** 2.0 + (1 - x[:-1]) ** 2.0)  # noqa: E731
        return rosen(p["x_half_a"] - shift) + rosen(p["x_half_b"] - shift)

    return minimize, jnp.array, fun, jax.value_and_grad(fun)


def torchs():
    torch = pytest.importorskip("torch")
    from nestor.minimize.torch_api import minimize

    def fun(p, shift):
        rosen = lambda x: (100.0 * (x[1:] - x[:-1] ** 2.0) ** 2.0 + (1 - x[:-1]) ** 2.0).sum()  # noqa: E731
        return rosen(p["x_half_a"] - shift) + rosen(p["x_half_b"] - shift)

    def both(p, shift):
        value = fun(p, shift)
        grads = torch.autograd.grad(value, [p["x_half_a"], p["x_half_b"]])
        return value, OrderedDict(zip(p, grads, strict=True))

    return minimize, torch.tensor, fun, both


def tensorflows():
    tf = pytest.importorskip("tensorflow")
    from nestor.minimize.tensorflow_api import minimize

    def fun(p, shift):
        def rosen(x):
            return tf.reduce_sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

        return rosen(p["x_half_a"] - shift) + rosen(p["x_half_b"] - shift)

    def both(p, shift):
        with tf.GradientTape() as tape:
            tape.watch(list(p.values()))
            value = fun(p, shift)
        return value, OrderedDict(zip(p, tape.gradient(value, list(p.values())), strict=True))

    return minimize, tf.constant, fun, both


@pytest.fixture(params=[numpys, jaxs, torchs, tensorflows], ids=lambda make: make.__name__)
def program(request):
    return request.param()


@pytest.mark.parametrize("own_gradient", [True, False])
def test_a_shifted_rosenbrock_split_in_two(program, own_gradient):
    minimize, array, fun, both = program
    start = OrderedDict(x_half_a=array([0.2, -0.4, 0.1]), x_half_b=array([0.5, 0.1, 0.3, -0.2, 0.9]))
    seen = []
    x = minimize(
        both if own_gradient else fun,
        start,
        args=(-1.0,),
        method="L-BFGS-B",
        callback=lambda p: seen.append(list(p)),
    )
    assert type(x) is OrderedDict
    assert list(x) == ["x_half_a", "x_half_b"] == seen[0]
    for name in x:
        assert type(x[name]) is type(start[name])
        np.testing.assert_allclose(np.asarray(x[name]), 0.0, atol=2e-2)


@pytest.mark.parametrize("sides", ["both", "upper"])
def test_a_bounded_image(program, sides):
    minimize, array, _, _ = program
    image = np.linspace(-2, 2, 12).reshape(3, 4)
    start = {"pixels": array(np.zeros((3, 4)))}
    lower = {"pixels": array(np.full((3, 4), -1.0))} if sides == "both" else None
    x = minimize(
        lambda p: (
            ((p["pixels"] - array(image)) ** 2).sum() if hasattr(p["pixels"], "sum") else _sum(p, image)
        ),
        start,
        lb_dict=lower,
        ub_dict={"pixels": array(np.full((3, 4), 1.0))},
    )
    low = -1.0 if sides == "both" else -9.0
    assert type(x) is dict
    np.testing.assert_allclose(np.asarray(x["pixels"]), np.clip(image, low, 1.0), atol=1e-4)


def _sum(p, image):
    import tensorflow as tf

    return tf.reduce_sum((p["pixels"] - tf.constant(image)) ** 2)


def test_an_unconverged_point_comes_with_a_warning():
    from nestor.minimize.numpy_api import minimize

    with pytest.warns(UserWarning, match="OUT_OF_STEPS"):
        x = minimize(
            lambda p: scipy.optimize.rosen(p["x"]),
            {"x": np.array([-1.2, 1.0])},
            method="BFGS",
            options={"maxiter": 3},
        )
    assert x["x"].shape == (2,)


def test_maxiter_is_an_option_of_all_methods_and_disp_of_most():
    """dict-minimize's own tests give `maxiter` to TNC, its README `disp` to L-BFGS-B; SciPy knows neither by now."""
    from nestor.minimize.numpy_api import minimize

    steps = []
    for method, options in (("TNC", {"maxiter": 2}), ("L-BFGS-B", {"maxiter": 2, "disp": True})):
        steps.clear()
        with pytest.warns(UserWarning, match="OUT_OF_STEPS"):
            minimize(
                lambda p: (scipy.optimize.rosen(p["x"]), {"x": scipy.optimize.rosen_der(p["x"])}),
                {"x": np.array([-1.2, 1.0])},
                method=method,
                options=options,
                callback=lambda p: steps.append(1),
            )
        assert len(steps) == 2


def test_the_front_ends_hang_on_the_function():
    from nestor.minimize.torch_api import minimize

    assert nestor.minimize.torch_api.minimize is minimize
    assert callable(nestor.minimize)
