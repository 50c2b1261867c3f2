"""Non-negative least squares, 2000 x 500: at most 300 evaluations and half of SciPy L-BFGS-B's time.

Two matrices: normal (well conditioned) and uniform (badly: the mean direction outweighs the rest). Ours is the
compiled `LBFGS` with bounds at tol 1e-6; SciPy's runs on the same jitted value and gradient, until its own
projected gradient is at most 1e-6 or it gives up. The projected gradient at both answers is in the line. Compilation
is not timed.
"""

import json
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads slow SciPy's vectors down

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from _timing import in_process, interleaved

import nestor

ROWS, COLUMNS, TOL = 2000, 500, 1e-6


def data(uniform: bool) -> tuple[np.ndarray, np.ndarray]:
    """The matrix and the right side."""
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(ROWS, COLUMNS)) if uniform else rng.normal(size=(ROWS, COLUMNS))
    noise = (0.1 if uniform else 1.0) * rng.normal(size=ROWS)
    return a, a @ np.maximum(rng.normal(size=COLUMNS), 0) + noise


def main(rounds: int = 7) -> None:
    """Both matrices, ours and SciPy's in turns."""
    jax.config.update("jax_enable_x64", True)
    value_and_grad = jax.jit(jax.value_and_grad(lambda x, a, b: 0.5 * jnp.sum((a @ x - b) ** 2)))
    for uniform in (False, True):
        a, b = map(jnp.asarray, data(uniform))

        def ours(a=a, b=b):
            fun = lambda x: 0.5 * jnp.sum((a @ x - b) ** 2)  # noqa: E731
            return nestor.minimize(
                fun, jnp.zeros(COLUMNS), bounds=(0.0, None), tol=TOL, solver=nestor.LBFGS(), max_steps=5000
            )

        def theirs(a=a, b=b):
            return scipy.optimize.minimize(
                lambda x: jax.tree.map(np.asarray, value_and_grad(jnp.asarray(x), a, b)),
                np.zeros(COLUMNS),
                jac=True,
                method="L-BFGS-B",
                bounds=[(0, None)] * COLUMNS,
                options={"maxiter": 5000, "maxfun": 5000, "ftol": 0, "gtol": TOL, "maxcor": 10},
            )

        def projected(x, a=a, b=b):
            x = np.asarray(x)
            return float(np.abs(np.maximum(x - value_and_grad(jnp.asarray(x), a, b)[1], 0) - x).max())

        mine, other = ours(), theirs()
        measured = interleaved(in_process(lambda: ours().x), in_process(lambda: theirs().x), rounds=rounds)
        print(
            json.dumps(
                {
                    "claim": "NNLS 2000x500: at most 300 evaluations and half of SciPy L-BFGS-B's time",
                    "matrix": "uniform" if uniform else "normal",
                    "ours": round(measured.ours.cpu, 4),
                    "peer": round(measured.peer.cpu, 4),
                    "ratio": round(measured.cpu_ratio, 4),
                    "unit": "CPU s",
                    "wall_ratio": round(measured.wall_ratio, 4),
                    "rounds": rounds,
                    "evaluations": [int(mine.stats.evaluations), int(other.nfev)],
                    "projected_gradient": [f"{projected(mine.x):.1e}", f"{projected(other.x):.1e}"],
                    "value_above_the_lower": [
                        f"{float(v) - min(float(mine.fun), float(other.fun)):.1e}"
                        for v in (mine.fun, other.fun)
                    ],
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
