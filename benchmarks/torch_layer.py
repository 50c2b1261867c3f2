"""A layer in PyTorch against the same JAX function without PyTorch, and against CvxpyLayers where it is installed.

64 ridge regressions (30 x 10) a batch, forwards and backwards: gradients of the sum of squares of the solutions in
the features, the labels and the strength. Ours by `argmin` with Newton's method. The bare function is the same,
compiled together with its gradient, from arrays to arrays. `overhead_us` is what a call forwards and backwards
costs on top of it for one array of 100 numbers, where nothing else costs anything.
"""

import contextlib
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import torch
from _timing import in_process, interleaved, report

import nestor

LANES, ROWS, COLUMNS = 64, 30, 10


def ridge(features: Any, labels: Any, strength: Any) -> Any:
    """The weights of one regression."""

    def loss(w: Any) -> Any:
        return jnp.sum((features @ w - labels) ** 2) + strength * jnp.sum(w**2)

    return nestor.argmin(loss, jnp.zeros(COLUMNS, features.dtype), solver=nestor.Newton())


def closed_form(features: Any, labels: Any, strength: Any) -> Any:
    """The same by a linear solve, for a batch."""
    matrix = features.mT @ features + strength * torch.eye(COLUMNS, dtype=features.dtype)
    return torch.linalg.solve(matrix, (features.mT @ labels[..., None]))[..., 0]


def by_cvxpylayers() -> Any:
    """The same problem as a cone program; None where CvxpyLayers is not installed."""
    with contextlib.suppress(ImportError):
        import cvxpy
        from cvxpylayers.torch import CvxpyLayer

        w, features = cvxpy.Variable(COLUMNS), cvxpy.Parameter((ROWS, COLUMNS))
        labels, root = cvxpy.Parameter(ROWS), cvxpy.Parameter(nonneg=True)
        objective = cvxpy.sum_squares(features @ w - labels) + cvxpy.sum_squares(root * w)
        solve = CvxpyLayer(
            cvxpy.Problem(cvxpy.Minimize(objective)), parameters=[features, labels, root], variables=[w]
        )
        return lambda features, labels, strength: solve(features, labels, strength.sqrt())[0]
    return None


def in_torch(solve: Any, inputs: Any) -> Any:
    """A run forwards and backwards: the gradients."""
    return lambda: torch.autograd.grad(solve(*inputs).square().sum(), inputs)


def off(found: Any, exact: Any) -> float:
    """The largest error, relative to the largest entry."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True))


def overhead(rounds: int = 200) -> float:
    """Microseconds of CPU that a call forwards and backwards costs more than the bare function."""
    double = lambda x: jnp.sum(2 * x)  # noqa: E731
    tensor = torch.ones(100, requires_grad=True)
    array, bare = jnp.ones(100), jax.jit(jax.value_and_grad(double))
    lifted = nestor.torch.layer(double)
    ours = in_process(lambda: torch.autograd.grad(lifted(tensor), tensor) and None)
    theirs = in_process(lambda: bare(array))
    pairs = [(ours().cpu, theirs().cpu) for _ in range(rounds)][rounds // 10 :]
    return statistics.median(mine - other for mine, other in pairs) * 1e6


def main() -> None:
    """All in turns."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(LANES, ROWS, COLUMNS, generator=random, dtype=torch.float64)
    labels = torch.randn(LANES, ROWS, generator=random, dtype=torch.float64)
    strength = torch.tensor(0.5, dtype=torch.float64)
    inputs = [leaf.requires_grad_() for leaf in (features, labels, strength)]
    exact = in_torch(closed_form, inputs)()

    batched = jax.vmap(ridge, (0, 0, None))
    ours = in_torch(nestor.torch.layer(batched), inputs)
    more: dict[str, Any] = {"error": off(ours(), exact)}
    with jax.enable_x64(True):
        arrays = [jnp.asarray(leaf.detach().numpy()) for leaf in inputs]
        bare = jax.jit(jax.grad(lambda *args: jnp.sum(batched(*args) ** 2), (0, 1, 2)))
        bare(*arrays)

        peer = by_cvxpylayers()
        if peer is not None:
            theirs = in_torch(peer, inputs)
            against = interleaved(in_process(ours), in_process(theirs), rounds=9)
            more |= {
                "cvxpylayers": round(against.peer.cpu, 6),
                "ratio_cvxpylayers": round(against.cpu_ratio, 4),
                "error_cvxpylayers": off(theirs(), exact),
            }
        measured = interleaved(in_process(ours), in_process(lambda: bare(*arrays)), rounds=31, warmups=3)
    more["overhead_us"] = round(overhead(), 1)
    claim = "64 ridge regressions with gradients, as a PyTorch layer: against the bare JAX function"
    report(claim, measured, **more)


if __name__ == "__main__":
    main()
