"""The hypergradient of 1000 steps in 2001 numbers and the start: 4.2 MB (stored: 1979) and 4.5 forward runs.

The reference net is an MLP 784-50-50-50-10 (44,860 parameters, float32) on scikit-learn's digits, enlarged
bilinearly to 28x28; batches of 200, momentum 0.9. The hyperparameters are 1000 rates, 1000 momenta, one L2
weight and the start. Memory is what the compiled program asks for beside its inputs and outputs; the peer is one
forward run of the same training in floating point, so `ratio` is the time of the whole hypergradient in forward
runs. The error is that of the hypergradient against one by binomial checkpoints in float64, the largest over its
four parts, in the Euclidean norm. The figures with 32-bit words come from a process of their own, without 64-bit
numbers.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _timing import Comparison, Cost, in_process, interleaved, report
from sklearn.datasets import load_digits

import nestor

STEPS, BATCH, BETA, RATE = 1000, 200, 0.9, 0.05
SIZES = (784, 50, 50, 50, 10)
BITS = 0.1521 * STEPS + 1  # log2(1/0.9) a step: known here, but not to a traced program


def digits(first: int, last: int) -> tuple[Any, Any]:
    """Images of 784 pixels, and labels."""
    images, labels = load_digits(return_X_y=True)
    small = (images[first:last] / 16).reshape(-1, 8, 8).astype(np.float32)
    large = jax.image.resize(small, (last - first, 28, 28), "bilinear")
    return np.asarray(large).reshape(-1, 784), labels[first:last].astype(np.int32)


def start(dtype: Any) -> list[Any]:
    """Weights and biases."""
    random = np.random.default_rng(0)
    pairs = itertools.pairwise(SIZES)
    return [(jnp.asarray(random.normal(size=p) / p[0] ** 0.5, dtype), jnp.zeros(p[1], dtype)) for p in pairs]


def cross_entropy(params: Any, batch: Any) -> Any:
    """Of the softmax of the net."""
    x, labels = batch
    for w, b in params[:-1]:
        x = jnp.tanh(x @ w + b)
    logits = jax.nn.log_softmax(x @ params[-1][0] + params[-1][1])
    return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))


def outer(hyper: Any, data: Any, held_out: Any, adjoint: Any) -> Any:
    """The held-out loss after training: a function of the hyperparameters."""
    rates, momenta, decay, params = hyper

    def loss(params: Any, batch: Any) -> Any:
        return cross_entropy(params, batch) + decay * sum(jnp.sum(w**2) for w, _ in params)

    optimizer = nestor.sgd(rates, momentum=momenta)
    run = nestor.train(
        loss, params, data, optimizer=optimizer, steps=STEPS, batch_size=BATCH, adjoint=adjoint
    )
    return cross_entropy(run.params, held_out)


def problem(dtype: Any) -> tuple[Any, Any, Any]:
    """The hyperparameters, the data, the held-out data."""
    hyper = (
        jnp.full(STEPS, RATE, dtype),
        jnp.full(STEPS, BETA, dtype),
        jnp.asarray(1e-4, dtype),
        start(dtype),
    )
    as_dtype = lambda pair: (jnp.asarray(pair[0], dtype), jnp.asarray(pair[1]))  # noqa: E731
    return hyper, as_dtype(digits(0, 1400)), as_dtype(digits(1400, 1797))


def gradient(dtype: Any, adjoint: Any) -> Any:
    """The compiled hypergradient, its argument, and the compiled forward run."""
    hyper, data, held_out = problem(dtype)
    run = lambda adjoint: lambda h: outer(h, data, held_out, adjoint)  # noqa: E731
    back = jax.jit(jax.grad(run(adjoint))).lower(hyper).compile()
    ahead = jax.jit(run(nestor.Checkpoint(levels=1))).lower(hyper).compile()
    return back, ahead, hyper


def flat(gradient: Any) -> list[Any]:
    """Its four parts as vectors."""
    return [
        np.concatenate([np.ravel(np.asarray(a, np.float64)) for a in jax.tree.leaves(g)]) for g in gradient
    ]


def error(gradient: Any, reference: list[Any]) -> float:
    """The largest relative error of a part."""
    pairs = zip(flat(gradient), reference, strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def megabytes(compiled: Any) -> float:
    """What a program needs beside its inputs and outputs."""
    return round(compiled.memory_analysis().temp_size_in_bytes / 1e6, 3)


def measure(reference: list[Any], rounds: int = 5) -> dict[str, Any]:
    """Memory, time and error of the reversed run, with the words that JAX has switched on."""
    back, ahead, hyper = gradient(jnp.float32, nestor.Reversible(bits=BITS))
    timed: Comparison = interleaved(
        in_process(lambda: back(hyper)), in_process(lambda: ahead(hyper)), rounds=rounds
    )
    return {"megabytes": megabytes(back), "error": error(back(hyper), reference), "timed": timed}


def main() -> None:
    """Both widths; the narrow one in a process of its own."""
    if len(sys.argv) > 1:
        with np.load(sys.argv[1]) as saved:
            print(json.dumps(measure([saved[name] for name in saved.files])))
        return
    jax.config.update("jax_enable_x64", True)
    back, _, hyper = gradient(jnp.float64, nestor.Checkpoint(slots=44))
    reference = flat(back(hyper))
    wide = measure(reference)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "reference.npz"
        np.savez(saved, *reference)
        child = subprocess.run(
            [sys.executable, __file__, str(saved)], stdout=subprocess.PIPE, check=True, text=True
        )
    narrow = json.loads(child.stdout)
    timed = Comparison(*(Cost(*part) if isinstance(part, list) else part for part in narrow["timed"]))
    stored, _, _ = gradient(jnp.float32, nestor.Unroll())
    report(
        "a hypergradient of 1000 steps by exact reversal: at most 4.2 MB and 4.5 forward runs in 64-bit words (32-bit: "
        "3.6 MB, 4), where plain storing takes 1979 MB",
        wide["timed"],
        unit="CPU s",
        megabytes={"int64": wide["megabytes"], "int32": narrow["megabytes"], "stored": megabytes(stored)},
        forward_runs={"int64": round(wide["timed"].cpu_ratio, 2), "int32": round(timed.cpu_ratio, 2)},
        error={"int64": float(f"{wide['error']:.2e}"), "int32": float(f"{narrow['error']:.2e}")},
    )


if __name__ == "__main__":
    main()
