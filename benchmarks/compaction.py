"""Many small problems, a few of which take many times as long: lanes that have finished leave, against plain vmap.

Rosenbrock problems of dimension 10 with random starts in [-2, 2]^10, by BFGS in float64. One in 33 is steep and
takes seven times as many steps. Both are compiled; what compiling costs stands apart. `even` is the case for which
gathering is not made: all problems take about as long.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _timing import in_process, interleaved, report

import nestor

DIMENSION, STEEP, FLAT = 10, 1000.0, 0.3


def rosenbrock(x: Any, steep: Any) -> Any:
    """The chained Rosenbrock function with another weight of the valley."""
    return jnp.sum(steep * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def gathered(starts: Any, steep: Any) -> Any:
    """By ours."""
    return nestor.minimize_batch(rosenbrock, starts, steep, solver=nestor.BFGS())


@jax.jit
@jax.vmap
def plain(start: Any, steep: Any) -> Any:
    """The same lanes, none of which leaves."""
    return nestor.minimize(
        lambda x: rosenbrock(x, steep), start, solver=nestor.BFGS(), raise_on_failure=False
    )


def problems(lanes: int, share: float) -> tuple[Any, Any]:
    """Starts and weights."""
    random = np.random.default_rng(0)
    starts = jnp.asarray(random.uniform(-2, 2, (lanes, DIMENSION)))
    return starts, jnp.asarray(np.where(random.uniform(size=lanes) < share, STEEP, FLAT))


def first(run: Any, inputs: Any) -> float:
    """CPU seconds of the first call."""
    began = time.process_time()
    jax.block_until_ready(run(*inputs))
    return round(time.process_time() - began, 2)


def main() -> None:
    """A thousand and ten thousand problems, uneven and even."""
    jax.config.update("jax_enable_x64", True)
    more: dict[str, Any] = {}
    measured = None
    for lanes in (10000, 1000):
        inputs = problems(lanes, 0.03)
        more[f"first_call_{lanes}"] = {"ours": first(gathered, inputs), "peer": first(plain, inputs)}
        ours, peer = gathered(*inputs), plain(*inputs)
        measured = interleaved(
            in_process(lambda i=inputs: gathered(*i).x), in_process(lambda i=inputs: plain(*i).x), rounds=7
        )
        more[f"ratio_{lanes}"] = round(measured.cpu_ratio, 4)
        more[f"steps_{lanes}"] = np.quantile(np.asarray(peer.stats.steps), [0.5, 0.96, 1.0]).tolist()
        more[f"solved_{lanes}"] = {"ours": int(ours.success.sum()), "peer": int(peer.success.sum())}
        more[f"largest_difference_{lanes}"] = float(jnp.max(jnp.abs(ours.x - peer.x)))
        inputs = problems(lanes, 0.0)
        even = interleaved(
            in_process(lambda i=inputs: gathered(*i).x), in_process(lambda i=inputs: plain(*i).x), rounds=7
        )
        more[f"even_ratio_{lanes}"] = round(even.cpu_ratio, 4)
    assert measured is not None
    report("1000 problems, 3 % of them seven times as long: ours against vmap", measured, **more)


if __name__ == "__main__":
    main()
