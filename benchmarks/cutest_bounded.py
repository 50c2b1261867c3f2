"""CUTEst with bounds, n <= 50: L-BFGS in a box solves 96 %, evaluates nothing outside it, claims nothing false.

As `cutest_unconstrained.py`, with the projected gradient x - clip(x - g) in place of the gradient; every point at
which ours evaluates is shown to a callback that holds it against the box. The list is `cutest/bounded.json`.

Names of problems as arguments run only those, and write no profile.
"""

import json
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
from _cutest import STEPS, Judge, by_nestor, by_scipy, compare

import nestor


def by_jaxopt(judge: Judge, best: float) -> dict[str, Any]:
    """L-BFGS-B with a tolerance of the judge's bar."""
    import jaxopt

    solver = jaxopt.LBFGSB(judge.problem.fun, maxiter=STEPS, tol=judge.bar)
    bounds = (jnp.asarray(judge.lower), jnp.asarray(judge.upper))
    x, state = solver.run(jnp.asarray(judge.start), bounds=bounds)
    return judge.verdict(x, bool(state.error <= judge.bar), int(state.num_fun_eval), best, None)


METHODS = {
    "nestor default": lambda judge, best: by_nestor(judge, best, None),
    "nestor LBFGS": lambda judge, best: by_nestor(judge, best, nestor.LBFGS()),
    "SciPy L-BFGS-B": lambda judge, best: by_scipy(judge, best, "L-BFGS-B"),
}
SAMPLED = {"jaxopt LBFGSB": by_jaxopt}


def main(names: list[str]) -> None:
    """Every method on every problem, one problem after the other."""
    problems, counts = compare("bounded", "CUTEst, bounds, n <= 50", METHODS, SAMPLED, names)
    ours, peer = counts["nestor LBFGS"], counts["SciPy L-BFGS-B"]
    print(
        json.dumps(
            {
                "claim": "CUTEst with bounds, n <= 50: LBFGS() solves at least 96 %, no evaluation outside the "
                "box, no false success and no wrong denial",
                "ours": ours["percent"],
                "peer": peer["percent"],
                "ratio": round(ours["percent"] / peer["percent"], 4),
                "unit": "% of problems solved, LBFGS() against SciPy L-BFGS-B",
                "problems": problems,
                "steps": STEPS,
                "methods": counts,
            }
        )
    )


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        main(sys.argv[1:])
