"""The same minimization by other libraries: each returns a compiled solve, or a solve over a compiled function."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from _timing import in_process

Fun = Callable[[Any], Any]
Solve = Callable[[Any], Any]


def scipy_over_jit(fun: Fun, tol: float, steps: int, method: str = "L-BFGS-B", **more: Any) -> Solve:
    """SciPy over the compiled value and gradient, until the gradient is at most tol (largest entry)."""
    value_and_grad = jax.jit(jax.value_and_grad(fun))

    def both(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = value_and_grad(x)
        return float(value), np.asarray(grad, np.float64)

    options: dict[str, Any] = {"gtol": tol, "maxiter": steps}
    if method == "L-BFGS-B":
        options |= {"ftol": 0.0, "maxfun": 2 * steps}

    def solve(x0: Any) -> Any:
        start = np.asarray(x0, np.float64)
        return scipy.optimize.minimize(both, start, jac=True, method=method, options=options, **more)

    return solve


def optax_lbfgs(fun: Fun, tol: float, steps: int) -> Solve:
    """optax's L-BFGS with its zoom line search, until the gradient is at most tol (largest entry)."""
    import optax

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(fun)

    def body(carry: Any) -> Any:
        x, state, count = carry
        value, grad = value_and_grad(x, state=state)
        moves, state = optimizer.update(grad, state, x, value=value, grad=grad, value_fn=fun)
        return optax.apply_updates(x, moves), state, count + 1

    def more(carry: Any) -> Any:
        _, state, count = carry
        largest = max_norm(optax.tree.get(state, "grad"))
        return (count == 0) | ((count < steps) & (largest > tol))

    return lambda x0: jax.lax.while_loop(more, body, (x0, optimizer.init(x0), 0))[0]


def jaxopt_lbfgs(fun: Fun, tol: float, steps: int) -> Solve:
    """jaxopt's L-BFGS with its default line search; its tolerance is on the Euclidean norm of the gradient."""
    import jaxopt

    solver = jaxopt.LBFGS(fun, maxiter=steps, tol=tol)
    return lambda x0: solver.run(x0).params


def optimistix_lbfgs(fun: Fun, tol: float, steps: int) -> Solve:
    """optimistix's L-BFGS; its tolerances are on the step and on the value."""
    import optimistix

    solver = optimistix.LBFGS(rtol=tol, atol=tol)
    return lambda x0: optimistix.minimise(lambda y, _: fun(y), solver, x0, max_steps=steps, throw=False).value


def max_norm(tree: Any) -> Any:
    """The largest absolute entry."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


def in_turns(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each, in turns, after one round that does not count; the order alternates."""
    measures = {name: in_process(run) for name, run in runs.items()}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name in sorted(runs, reverse=turn % 2 == 1):
            seconds = measures[name]().cpu
            if turn > 0:
                cpu[name].append(seconds)
    return cpu


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of ours over theirs, round by round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
