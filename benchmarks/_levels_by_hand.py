"""The problems of `_bilevel_problems` as one compiled program each, by hand in JAX with nothing around it.

What a library costs is what it takes above these. The derivatives are JAX's in `by_hand`; in `on_paper`, for the
logistic regression, they are written out, which a library that is given a loss cannot do: a floor below the floor.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _bilevel_problems import Logistic, Reweighting

Params = list[tuple[jax.Array, jax.Array]]


def lower_logistic(weights: jax.Array, log_strengths: jax.Array, data: Any) -> jax.Array:
    """The lower level of `logistic`."""
    return upper_logistic(weights, data) + 0.5 * jnp.sum(jnp.exp(log_strengths) * weights**2)


def upper_logistic(weights: jax.Array, data: Any) -> jax.Array:
    """The upper level of `logistic`; `x` has a column an example, and softplus is written so that its slope is cheap.

    Both matter here: XLA on a CPU takes 1.9 to 2.5 times as long with a row an example, and 1.3 to 1.7 times with
    `jax.nn.softplus`.
    """
    x, y = data
    z = weights @ x
    return jnp.mean((0.5 - y) * z + 0.5 * jnp.abs(z) + jnp.log1p(jnp.exp(-jnp.abs(z))))


def losses(params: Params, data: Any) -> jax.Array:
    """The loss of every example of a batch, for the model of `reweighting`.

    The score of the label is picked by a comparison: XLA on a CPU takes 1.08 times as long for a whole outer step
    where it is looked up, as that becomes a scatter in the derivative.
    """
    x, y = data
    (w1, b1), (w2, b2) = params
    scores = jax.nn.relu(x @ w1 + b1) @ w2 + b2
    labelled = y[:, None] == jnp.arange(scores.shape[1], dtype=y.dtype)
    return jax.nn.logsumexp(scores, 1) - jnp.sum(jnp.where(labelled, scores, 0), 1)


def weigh(weigher: Params, loss: jax.Array) -> jax.Array:
    """The weights of examples with these losses; no derivative goes through the losses."""
    (w1, b1), (w2, b2) = weigher
    hidden = jax.nn.relu(jax.lax.stop_gradient(loss)[:, None] * w1 + b1)
    return jax.nn.sigmoid(hidden @ w2 + b2)[:, 0]


def lower_reweighting(params: Params, weigher: Params, data: Any) -> jax.Array:
    """The lower level of `reweighting`."""
    loss = losses(params, data)
    return jnp.mean(weigh(weigher, loss) * loss)


def upper_reweighting(params: Params, data: Any) -> jax.Array:
    """The upper level of `reweighting`."""
    return jnp.mean(losses(params, data))


def conjugate_gradients(product: Any, b: jax.Array, steps: int) -> jax.Array:
    """So many steps from zero, without a test."""

    def turn(_: Any, state: Any) -> Any:
        x, r, p, size = state
        image = product(p)
        rate = size / jnp.vdot(p, image)
        x, r = x + rate * p, r - rate * image
        smaller = jnp.vdot(r, r)
        return x, r, r + (smaller / size) * p, smaller

    return jax.lax.fori_loop(0, steps, turn, (jnp.zeros_like(b), b, b, jnp.vdot(b, b)))[0]


def logistic_by_hand(problem: Logistic) -> tuple[Any, Any]:
    """A program and its arguments: (log strengths, weights) and the upper losses, by JAX's derivatives."""
    gradient = jax.grad(lower_logistic)

    def program(log_strengths: jax.Array, weights: jax.Array, data: Any, held_out: Any) -> Any:
        def outer(carry: Any, _: Any) -> Any:
            s, w = carry

            def descend(_: Any, w: jax.Array) -> jax.Array:
                return w - problem.inner_rate * gradient(w, s, data)

            w = jax.lax.fori_loop(0, problem.inner_steps, descend, w)
            value, slope = jax.value_and_grad(upper_logistic)(w, held_out)
            _, product = jax.linearize(lambda w: gradient(w, s, data), w)
            v = conjugate_gradients(product, slope, problem.cg_steps)
            mixed = jax.grad(lambda s: jnp.vdot(gradient(w, s, data), v))(s)
            return (s + problem.outer_rate * mixed, w), value

        return jax.lax.scan(outer, (log_strengths, weights), None, length=problem.outer_steps)

    return program, _logistic_arguments(problem)


def logistic_on_paper(problem: Logistic) -> tuple[Any, Any]:
    """The same with derivatives written out: two products with one matrix and one tanh a step."""

    def program(log_strengths: jax.Array, weights: jax.Array, data: Any, held_out: Any) -> Any:
        x, y = data
        half = 0.5 / len(y)  # sigmoid(z) = 1/2 + tanh(z/2) / 2
        constant = x @ (y - 0.5) / len(y)

        def outer(carry: Any, _: Any) -> Any:
            s, w = carry
            strengths = jnp.exp(s)

            def descend(_: Any, w: jax.Array) -> jax.Array:
                gradient = x @ (half * jnp.tanh(0.5 * (w @ x))) - constant + strengths * w
                return w - problem.inner_rate * gradient

            w = jax.lax.fori_loop(0, problem.inner_steps, descend, w)
            value, slope = jax.value_and_grad(upper_logistic)(w, held_out)
            curvature = 0.5 * half * (1.0 - jnp.tanh(0.5 * (w @ x)) ** 2)
            v = conjugate_gradients(
                lambda p: x @ (curvature * (p @ x)) + strengths * p, slope, problem.cg_steps
            )
            return (s + problem.outer_rate * strengths * w * v, w), value

        return jax.lax.scan(outer, (log_strengths, weights), None, length=problem.outer_steps)

    return program, _logistic_arguments(problem)


def reweighting_by_hand(problem: Reweighting) -> tuple[Any, Any]:
    """A program and its arguments: (weigher, params) and the upper losses."""

    def program(weigher: Params, params: Params, noisy: Any, clean: Any, batches: Any) -> Any:
        def outer(carry: Any, step: Any) -> Any:
            weigher, params, velocity, first, second = carry
            t, rows, clean_rows = step
            batch = noisy[0][rows], noisy[1][rows]

            # one forward pass serves the weights, the step and, for "unroll", the hypergradient
            loss, along = jax.linearize(lambda params: losses(params, batch), params)
            shares = weigh(weigher, loss) / len(loss)
            (slope,) = jax.linear_transpose(along, params)(shares)
            velocity = jax.tree.map(lambda u, g: problem.momentum * u + g, velocity, slope)
            params = jax.tree.map(lambda p, u: p - problem.inner_rate * u, params, velocity)

            value, v = jax.value_and_grad(upper_reweighting)(
                params, (clean[0][clean_rows], clean[1][clean_rows])
            )
            if problem.hypergradient == "darts":
                norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(v)))
                length = problem.darts_alpha / norm
                there = losses(jax.tree.map(lambda p, d: p + length * d, params, v), batch)
                back = losses(jax.tree.map(lambda p, d: p - length * d, params, v), batch)
                at = jnp.concatenate([there, back])
                change = jnp.concatenate([there, -back]) / (2 * length)
            else:
                at, change = loss, problem.inner_rate * along(v)
            gradient = jax.grad(lambda m: -jnp.vdot(weigh(m, at), change) / len(rows))(weigher)
            weigher, first, second = _adam(problem.outer_rate, t, weigher, gradient, first, second)
            return (weigher, params, velocity, first, second), value

        still = jax.tree.map(jnp.zeros_like, params)
        zeros = jax.tree.map(jnp.zeros_like, weigher)
        steps = (jnp.arange(1.0, len(batches[0]) + 1), *batches)
        carry, values = jax.lax.scan(outer, (weigher, params, still, zeros, zeros), steps)
        return carry[:2], values

    return program, jax.tree.map(
        jnp.asarray,
        (
            problem.weigher,
            problem.model,
            (problem.x, problem.y),
            (problem.x_clean, problem.y_clean),
            (problem.batches, problem.clean_batches),
        ),
    )


def reweighting_plainly(problem: Reweighting) -> tuple[Any, Any]:
    """The same from the two losses alone: a gradient wherever the formula has one, nothing shared by hand."""
    lower = lambda params, weigher, data: lower_reweighting(params, weigher, data)  # noqa: E731

    def program(weigher: Params, params: Params, noisy: Any, clean: Any, batches: Any) -> Any:
        def outer(carry: Any, step: Any) -> Any:
            weigher, params, velocity, first, second = carry
            t, rows, clean_rows = step
            batch = noisy[0][rows], noisy[1][rows]

            def moved(weigher: Params) -> Any:
                slope = jax.grad(lower)(params, weigher, batch)
                after = jax.tree.map(lambda u, g: problem.momentum * u + g, velocity, slope)
                return jax.tree.map(lambda p, u: p - problem.inner_rate * u, params, after), after

            held_out = clean[0][clean_rows], clean[1][clean_rows]
            if problem.hypergradient == "darts":
                params, velocity = moved(weigher)
                value, v = jax.value_and_grad(upper_reweighting)(params, held_out)
                norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(v)))
                length = problem.darts_alpha / norm
                ahead, behind = (
                    jax.grad(lower, 1)(jax.tree.map(lambda p, d: p + h * d, params, v), weigher, batch)  # noqa: B023
                    for h in (length, -length)
                )
                gradient = jax.tree.map(lambda a, b: (b - a) / (2 * length), ahead, behind)
            else:

                def through(weigher: Params) -> Any:
                    params, velocity = moved(weigher)
                    return upper_reweighting(params, held_out), (params, velocity)

                (value, (params, velocity)), gradient = jax.value_and_grad(through, has_aux=True)(weigher)
            weigher, first, second = _adam(problem.outer_rate, t, weigher, gradient, first, second)
            return (weigher, params, velocity, first, second), value

        still = jax.tree.map(jnp.zeros_like, params)
        zeros = jax.tree.map(jnp.zeros_like, weigher)
        steps = (jnp.arange(1.0, len(batches[0]) + 1), *batches)
        carry, values = jax.lax.scan(outer, (weigher, params, still, zeros, zeros), steps)
        return carry[:2], values

    return program, reweighting_by_hand(problem)[1]


def compiled(program_and_arguments: tuple[Any, Any]) -> tuple[Any, dict[str, float]]:
    """A function without arguments, and what compiling it took."""
    program, arguments = program_and_arguments
    wall, cpu = time.perf_counter(), time.process_time()
    run = jax.jit(program).lower(*arguments).compile()
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}

    def go() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The outer and the inner variables at the end, flat, and the upper loss of every step."""
        (outer, inner), values = jax.block_until_ready(run(*arguments))
        return flat(outer), flat(inner), np.asarray(values)

    return go, spent


def flat(tree: Any) -> np.ndarray:
    """All leaves in one row."""
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


def _adam(rate: float, t: Any, x: Any, gradient: Any, first: Any, second: Any) -> tuple[Any, Any, Any]:
    """A step of Adam with PyTorch's usual numbers; `t` counts from one."""
    b1, b2, small = 0.9, 0.999, 1e-8
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, gradient)
    second = jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g**2, second, gradient)
    x = jax.tree.map(
        lambda p, m, s: p - rate * (m / (1 - b1**t)) / (jnp.sqrt(s / (1 - b2**t)) + small), x, first, second
    )
    return x, first, second


def _logistic_arguments(problem: Logistic) -> Any:
    return jax.tree.map(
        jnp.asarray,
        (
            problem.log_strengths,
            problem.weights,
            (np.ascontiguousarray(problem.x.T), problem.y),
            (np.ascontiguousarray(problem.x_held_out.T), problem.y_held_out),
        ),
    )
