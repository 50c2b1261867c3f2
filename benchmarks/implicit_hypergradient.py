"""The demo's hypergradient, 640 L2 strengths, by implicit CG: error at most 2e-5, at most 1/5 of unrolling 100 steps.

At a trained inner problem, in float64: ours finds that it is trained and solves one linear system by CG; the peer
unrolls 100 steps of gradient descent from the same model. Two harder comparisons are reported beside it: trained on
by Newton-CG from nearby strengths (as in every step of a hyperparameter descent) against the same peer, and from a
cold start against 100 unrolled steps of L-BFGS. Errors are against a solve to 1e-12 with a dense Hessian and NumPy's
linear solver; the memory is what XLA plans for the compiled hypergradient as the allowed number of steps grows.
"""

import jax
import jax.numpy as jnp
import numpy as np
from _timing import in_process, interleaved, report

from nestor import CG, LBFGS, FixedStep, GradientDescent, Implicit, NewtonCG, Unroll
from nestor.cli import _digits

jax.config.update("jax_enable_x64", True)

DIGITS = _digits.load()
STRENGTHS = jnp.full((_digits.PIXELS, _digits.CLASSES), -6.0)
COLD = _digits.no_model()
NEARBY = STRENGTHS + 0.1 * np.random.default_rng(0).normal(size=STRENGTHS.shape)
TRAINED = _digits.fit(STRENGTHS, COLD, DIGITS.train, tol=1e-9)
WARM = _digits.fit(NEARBY, COLD, DIGITS.train)
IMPLICIT = {"solver": NewtonCG(), "tol": 1e-7, "adjoint": Implicit(CG(tol=3e-6))}
UNROLLED = {"tol": 0.0, "adjoint": Unroll(), "on_failure": "keep", "max_steps": 100}


def hypergradient(start, **options):
    """The compiled gradient of the validation loss in the log strengths."""

    def loss(strengths):
        return _digits.validation_loss(strengths, start, DIGITS, **options)[0]

    return jax.jit(jax.grad(loss))


def reference() -> np.ndarray:
    """-(d2f/ds dm)' H^-1 (dv/dm), dense."""
    model = _digits.fit(STRENGTHS, WARM, DIGITS.train, tol=1e-12, max_steps=5000)
    shape = model.shape

    def inner(flat, strengths):
        return _digits.inner_objective(flat.reshape(shape), strengths, DIGITS.train)

    flat = model.reshape(-1)
    hessian = np.asarray(jax.hessian(inner)(flat, STRENGTHS))
    outer = np.asarray(jax.grad(lambda m: _digits.loss(m.reshape(shape), DIGITS.validation))(flat))
    solved = jnp.asarray(np.linalg.solve(hessian, outer))
    mixed = jax.grad(lambda s: jnp.vdot(jax.grad(inner)(flat, s), solved))
    return -np.asarray(mixed(STRENGTHS))


def memory(function) -> int:
    """Bytes of temporary memory in the compiled program."""
    return function.lower(STRENGTHS).compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    """Errors, then times in turns, then memory."""
    descent = GradientDescent(FixedStep(1.0))
    runs = {
        "ours": hypergradient(TRAINED, **IMPLICIT | {"solver": LBFGS()}),
        "unrolled_gradient_descent": hypergradient(TRAINED, solver=descent, **UNROLLED),
        "ours_retrained": hypergradient(WARM, **IMPLICIT),
        "ours_cold": hypergradient(COLD, **IMPLICIT),
        "unrolled_lbfgs_cold": hypergradient(COLD, **UNROLLED),
    }
    exact = reference()
    size = np.linalg.norm(exact)
    error = {
        name: float(np.linalg.norm(np.asarray(run(STRENGTHS)) - exact) / size) for name, run in runs.items()
    }
    measures = {name: in_process(lambda run=run: run(STRENGTHS)) for name, run in runs.items()}
    cold = interleaved(measures["ours_cold"], measures["unrolled_lbfgs_cold"], rounds=7)
    warm = interleaved(measures["ours_retrained"], measures["unrolled_gradient_descent"], rounds=7)
    trained = interleaved(measures["ours"], measures["unrolled_gradient_descent"], rounds=9)
    report(
        "implicit CG hypergradient of 640 strengths: error at most 2e-5, at most 0.2 of unrolling 100 steps",
        trained,
        relative_error=error,
        ratio_retrained=round(warm.cpu_ratio, 4),
        ratio_cold_against_lbfgs=round(cold.cpu_ratio, 4),
        memory_ours={n: memory(hypergradient(WARM, **IMPLICIT, max_steps=n)) for n in (100, 1000, 10_000)},
        memory_unrolled={
            n: memory(hypergradient(WARM, solver=descent, **{**UNROLLED, "max_steps": n}))
            for n in (100, 1000)
        },
    )


if __name__ == "__main__":
    main()
