"""`nestor.minimize` on a dictionary of NumPy arrays against plain SciPy on the vector: at most 1.1 times the time.

Chained Rosenbrock in two halves, 100,000 unknowns, 100 iterations of L-BFGS-B from a start that is not symmetric; the
same evaluations in both. BLAS runs on one thread in both, as `nestor.minimize` sees to by itself; beside it stands what
plain SciPy takes with BLAS as it is found, which is what a user has, and what ours takes on one thread and on all.
"""

import numpy as np
import scipy.optimize
from _timing import in_process, interleaved, report
from threadpoolctl import threadpool_limits

import nestor

SIZE = 100_000
HALF = SIZE // 2
OPTIONS = {"maxiter": 100}
START = np.full(SIZE, -1.0)
START[::7] = 1.2


def rosenbrock(x):
    """The value and the gradient."""
    a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    grad = np.zeros_like(x)
    grad[1:] = 200 * a
    grad[:-1] -= 400 * x[:-1] * a + 2 * b
    return 100 * np.sum(a**2) + np.sum(b**2), grad


def of_dictionary(p):
    (one, first), (other, second) = rosenbrock(p["a"]), rosenbrock(p["b"])
    return one + other, {"a": first, "b": second}


def of_vector(x):
    (one, first), (other, second) = rosenbrock(x[:HALF]), rosenbrock(x[HALF:])
    return one + other, np.concatenate([first, second])


def ours():
    start = {"a": START[:HALF], "b": START[HALF:]}
    return nestor.minimize(of_dictionary, start, method="L-BFGS-B", options=OPTIONS, raise_on_failure=False)


def scipys():
    return scipy.optimize.minimize(of_vector, START, jac=True, method="L-BFGS-B", options=OPTIONS)


def on_one_thread(run):
    def limited():
        with threadpool_limits(1, user_api="blas"):
            return run()

    return limited


def main() -> None:
    """Times in turns."""
    mine, theirs = ours(), on_one_thread(scipys)()
    measured = interleaved(in_process(ours), in_process(on_one_thread(scipys)), rounds=7)
    threads = interleaved(in_process(ours), in_process(on_one_thread(ours)), rounds=3)
    found = interleaved(in_process(ours), in_process(scipys), rounds=1, warmups=0)
    report(
        "L-BFGS-B on a dictionary of 100,000 unknowns: at most 1.1 times plain SciPy's time, the same evaluations",
        measured,
        evaluations_ours=int(mine.stats.evaluations),
        evaluations_peer=int(theirs.nfev),
        same_point=bool(np.array_equal(np.concatenate([mine.x["a"], mine.x["b"]]), theirs.x)),
        ours_all_threads_over_one=round(threads.wall_ratio, 3),
        ours_over_scipy_with_its_threads=round(found.wall_ratio, 3),
    )


if __name__ == "__main__":
    main()
