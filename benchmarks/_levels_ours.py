"""The problems of `_bilevel_problems` as graphs of Nestor's, with the losses of `_levels_by_hand`."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _bilevel_problems import Logistic, Reweighting
from _levels_by_hand import flat, lower_logistic, lower_reweighting, upper_logistic, upper_reweighting

import nestor
from nestor import Graph, Level


def graph_of(problem: Logistic | Reweighting) -> Graph:
    """Two levels, called lower and upper."""
    if isinstance(problem, Logistic):
        turned = lambda x, y: jax.tree.map(jnp.asarray, (np.ascontiguousarray(x.T), y))  # noqa: E731
        train, held_out = turned(problem.x, problem.y), turned(problem.x_held_out, problem.y_held_out)
        return Graph(
            {
                "lower": Level(
                    lambda p, _: lower_logistic(p["lower"], p["upper"], train),
                    problem.weights,
                    nestor.sgd(problem.inner_rate),
                    steps=problem.inner_steps,
                    adjoint=nestor.Implicit(nestor.CG(tol=0.0, max_steps=problem.cg_steps)),
                ),
                "upper": Level(
                    lambda p, _: upper_logistic(p["lower"], held_out),
                    problem.log_strengths,
                    nestor.sgd(problem.outer_rate),
                ),
            }
        )
    arrays = (problem.x, problem.y, problem.x_clean, problem.y_clean, problem.batches, problem.clean_batches)
    x, y, x_clean, y_clean, batches, clean_batches = map(jnp.asarray, arrays)
    darts = problem.hypergradient == "darts"
    return Graph(
        {
            "lower": Level(
                lambda p, batch: lower_reweighting(p["lower"], p["upper"], batch),
                problem.model,
                nestor.sgd(problem.inner_rate, momentum=problem.momentum),
                data=lambda t: (x[batches[t]], y[batches[t]]),
                adjoint=nestor.DARTS(eps=problem.darts_alpha) if darts else nestor.Unroll(),
            ),
            "upper": Level(
                lambda p, batch: upper_reweighting(p["lower"], batch),
                problem.weigher,
                nestor.adam(problem.outer_rate),
                data=lambda t: (x_clean[clean_batches[t]], y_clean[clean_batches[t]]),
            ),
        }
    )


def begin(problem: Logistic | Reweighting) -> Any:
    """What prepares a run; see `_levels_peers`."""
    graph = graph_of(problem)
    steps = problem.outer_steps
    options = {"xla_cpu_use_fusion_emitters": False} if "LEAN" in os.environ else None
    jax.block_until_ready(
        graph.run(steps, compiler_options=options).params
    )  # compiled once, like the program by hand

    def run() -> tuple[np.ndarray, np.ndarray, float]:
        found = jax.block_until_ready(graph.run(steps, compiler_options=options))
        return flat(found.params["upper"]), flat(found.params["lower"]), float(found.history.loss[-1])

    return lambda: run
