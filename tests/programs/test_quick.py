"""Programs compiled by XLA's older way of making loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nestor.programs import _quick, in_trace, quick_jit


def both(x: Any, tree: Any) -> Any:
    return {
        "sum": jnp.sum(jnp.tanh(x) @ tree["a"]),
        "solved": jnp.linalg.cholesky(tree["a"] @ tree["a"].T + jnp.eye(4)),
    }


def test_what_is_compiled_quickly_computes_the_same():
    rng = np.random.default_rng(0)
    x, tree = jnp.asarray(rng.normal(size=(3, 4))), {"a": jnp.asarray(rng.normal(size=(4, 4)))}
    wanted = jax.jit(both)(x, tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), quick_jit(both)(x, tree), wanted)


def test_an_option_that_xla_does_not_know_is_done_without(monkeypatch):
    monkeypatch.setattr(_quick, "_OPTIONS", {"xla_cpu_no_such_option": False})
    called = quick_jit(lambda x: x + 1)
    assert int(called(1)) == 2
    assert _quick._OPTIONS == {}
    assert int(called(2)) == 3


def test_another_backend_compiles_as_ever(monkeypatch):
    monkeypatch.setattr(_quick, "_OPTIONS", {"xla_cpu_no_such_option": False})
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert int(quick_jit(lambda x: x + 1)(1)) == 2
    assert _quick._OPTIONS


def test_another_error_of_xla_is_not_taken_for_that():
    def boom(_: Any) -> Any:
        raise RuntimeError("boom")

    called = quick_jit(lambda x: jax.pure_callback(boom, jax.ShapeDtypeStruct((), float), x))
    with pytest.raises(jax.errors.JaxRuntimeError, match="boom"):
        called(1.0).block_until_ready()
    assert _quick._OPTIONS


def test_what_is_in_a_trace():
    constant, seen = jnp.ones(2), []
    assert not in_trace({"a": constant, "b": 1.0})

    def f(x: Any) -> Any:
        seen.append((in_trace(x), in_trace(constant)))
        return x.sum()

    jax.jit(f)(constant)
    jax.grad(f)(constant)
    jax.vmap(f)(constant[None])
    assert seen == [(True, True), (True, False), (True, False)]
