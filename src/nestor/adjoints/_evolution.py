"""The slope of the smoothed answer, by evolution strategies: for runs whose exact derivative says nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nestor import trees
from nestor.adjoints._contract import Answer, Condition, Read
from nestor.adjoints._refusals import refusing
from nestor.errors import CannotDifferentiate
from nestor.loops import Loop, in_segments, to_the_end

Tree = Any


@trees.record
class Evolution:
    """The derivative of the answer smoothed by a Gaussian, from pairs of perturbed runs: no derivative inside.

    Along a tangent v of the differentiated inputs t the derivative of the answer A is the mean over the pairs of
    (A(t + sigma e) - A(t - sigma e)) / (2 sigma) times <e, v>, with e standard normal. The answer itself is not
    smoothed. The derivative is biased, and that is the point: it is the slope of E[A(t + sigma e)], which
    exists and is moderate where a long run is chaotic and its exact derivative is astronomical.

    With `segment=K` the noise is drawn anew every K turns, and what was recorded at a turn is weighted with the
    noise of all segments up to it (persistent evolution strategies): unbiased, unlike derivatives that are
    truncated at segments, and of less variance where the influence of an input fades. The inputs are then
    smoothed in each segment by itself.

    Args:
        sigma: the width of the smoothing, one number for all differentiated inputs: give them a common scale
            (logarithms of rates, for example).
        pairs: perturbed runs, in pairs of opposite noise. The standard error falls as 1/sqrt(pairs): for a
            gradient in d inputs it is about sqrt((d + 1) / pairs) of its length, 0.18 for one input and the 64
            pairs of the default.
        seed: of the noise. Random keys among the inputs are mixed into it: with other keys the noise is fresh,
            with the same ones every call sees the same directions, no more than `pairs` of them.
        segment: turns in a segment; None is one segment, the plain method.
        batch: how many pairs run at once; None runs all in one `vmap`.

    **Read the objective from what the run measured**, the losses of its steps or a validation loss among them.
    Smoothing commutes with linear functions only: a nonlinear function of x is not smoothed with it, and of a
    chaotic run even the smoothed x says little. What is perturbed are the arrays that the solve reads, not what
    they were computed from: ``sgd(jnp.exp(m))`` perturbs the rate, ``sgd(lambda step: jnp.exp(m))`` perturbs m.

    A pair in which an entry of the answer is NaN or infinite (a run that diverged) is left out for that entry;
    where more than half of the pairs are lost the derivative is NaN. Forward and reverse mode, first
    derivatives only: a second one raises `CannotDifferentiate`.

    Cost: 2 pairs runs, however many inputs; memory of 2 batch runs, and of `pairs` answers (and records, with
    segments). Source: Salimans et al. 2017, section 2; Vicol, Metz, Sohl-Dickstein 2021, algorithm 2.

    >>> import jax, nestor
    >>> def y(x):
    ...     return nestor.argmin(lambda z: (z - x) ** 2, 0.0, adjoint=nestor.Evolution(pairs=200))
    >>> bool(abs(jax.grad(y)(1.0) - 1.0) < 0.3)
    True
    """

    sigma: float = 0.1
    pairs: int = 64
    seed: int = 0
    segment: int | None = None
    batch: int | None = None

    def attach(self, loop: Loop, read: Read, condition: Condition) -> Callable[[Tree], Answer]:
        """See `Adjoint.attach`."""
        length = max(loop.bound, 1) if self.segment is None else self.segment
        segments = max(1, math.ceil(loop.bound / length))

        def solve(inputs: Tree) -> Answer:
            return read(inputs, *to_the_end(loop, inputs))

        def rule(inputs: Tree, perturbed: list[Any], merge: Any, t: list[Any]) -> Any:
            answer = solution(inputs)
            _refuse_complex(perturbed)
            noise = _Noise(_key(self.seed, inputs), perturbed, self.pairs, segments, self.batch)

            def moved(distance: jax.Array, pair: jax.Array, segment: jax.Array) -> Tree:
                along = noise.draw(pair, segment)
                new = [p + distance.astype(p.dtype) * e for p, e in zip(perturbed, along, strict=True)]
                return _once(merge(new))

            combine, losses = _estimate(
                _differences(loop, read, moved, noise, self.sigma, length),
                _correction(loop, read, _once(inputs), length) if segments > 1 else None,
            )
            weights = jax.ShapeDtypeStruct((self.pairs, segments), trees.float_dtype(perturbed))

            def push(t: list[Any]) -> list[Any]:
                return jax.tree.map(jnp.multiply, combine(noise.products(t)), losses)

            def pull(cotangents: list[Any]) -> list[Any]:
                """An entry that has no weight does no harm when it is lost."""
                lost = lambda c, loss: jnp.where(c == 0, c, c * loss)  # noqa: E731
                weighted = jax.tree.map(lost, cotangents, losses)
                return noise.combination(jax.linear_transpose(combine, weights)(weighted)[0])

            slopes = trees.linear_map(push, pull, t, losses)
            dx, dvalue = trees.tangent_like((answer.x, answer.value), slopes)
            return answer, Answer(dx, dvalue, None)

        solution = trees.custom_jvp_on_perturbed(solve, rule)
        return solution


# --- the noise -----------------------------------------------------------------------------------------


class _Noise(NamedTuple):
    """Standard normal directions, one for each pair and segment, drawn again wherever they are needed.

    Attributes:
        key: a random key.
        like: a list of arrays; a direction is a list of the same shapes and dtypes.
        pairs, segments: how many there are.
        batch: how many pairs at once; None for all.
    """

    key: jax.Array
    like: list[jax.Array]
    pairs: int
    segments: int
    batch: int | None

    def draw(self, pair: jax.Array, segment: jax.Array) -> list[jax.Array]:
        """The direction of a pair in a segment."""
        flat, back = trees.ravel(self.like)
        key = jax.random.fold_in(self.key, pair * self.segments + segment)
        return back(jax.random.normal(key, flat.shape, flat.dtype))

    def over_pairs(self, function: Callable[[jax.Array], Tree]) -> Tree:
        """The results of a function of the number of a pair, stacked."""
        numbers = jnp.arange(self.pairs, dtype=jnp.int32)
        if self.batch is None:
            return jax.vmap(function)(numbers)
        return jax.lax.map(function, numbers, batch_size=min(self.batch, self.pairs))

    def products(self, t: list[jax.Array]) -> jax.Array:
        """<direction, t> for every pair and segment: shape (pairs, segments)."""
        segments = jnp.arange(self.segments, dtype=jnp.int32)

        def of_pair(pair: jax.Array) -> jax.Array:
            return jax.lax.map(lambda segment: trees.dot(self.draw(pair, segment), t), segments)

        return self.over_pairs(of_pair)

    def combination(self, weights: jax.Array) -> list[jax.Array]:
        """The sum of all directions with weights of shape (pairs, segments): the transpose of `products`."""
        size = self.pairs if self.batch is None else min(self.batch, self.pairs)
        chunks = math.ceil(self.pairs / size)
        padded = jnp.pad(weights, ((0, chunks * size - self.pairs), (0, 0)))
        pairs = jnp.arange(chunks * size, dtype=jnp.int32).reshape(chunks, size)

        def add(i: jax.Array, total: list[jax.Array]) -> list[jax.Array]:
            chunk, segment = i // self.segments, i % self.segments
            rows = jax.vmap(lambda pair: self.draw(pair, segment))(pairs[chunk])
            some = jax.lax.dynamic_slice(padded, (chunk * size, segment), (size, 1))[:, 0]
            return [s + _weighted_sum(some, r) for s, r in zip(total, rows, strict=True)]

        nothing = trees.zeros_like(self.like)
        return jax.lax.fori_loop(jnp.int32(0), jnp.int32(chunks * self.segments), add, nothing)


def _key(seed: int, inputs: Tree) -> jax.Array:
    """The key of the noise: the seed, and every random key that the run reads."""
    key = jax.random.key(seed)
    for leaf in jax.tree.leaves(inputs):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            key = jax.random.fold_in(key, jnp.sum(jax.random.key_data(leaf), dtype=jnp.uint32))
    return key


# --- the estimate --------------------------------------------------------------------------------------


class _Differences(NamedTuple):
    """What the pairs say, each with a leading axis of length `pairs`.

    Attributes:
        answers: the difference quotients of the floating-point leaves of x and the value.
        records: those of the record of the loop, each of shape (pairs, bound, ...); empty for one segment.
        last: the last segment that one of the two runs reached, int32.
    """

    answers: list[jax.Array]
    records: list[jax.Array]
    last: jax.Array


def _differences(
    loop: Loop, read: Read, moved: Callable[..., Tree], noise: _Noise, sigma: float, length: int
) -> _Differences:
    """Run all pairs; `moved` is (distance, pair, segment) -> inputs."""

    def of_pair(pair: jax.Array) -> _Differences:
        def run(distance: jax.Array) -> _Differences:
            def inputs_at(segment: jax.Array) -> Tree:
                return moved(distance, pair, segment)

            last = jnp.int32(0)
            if noise.segments == 1:
                inputs = inputs_at(last)
                answer = read(inputs, *to_the_end(loop, inputs))
                return _Differences(trees.floats((answer.x, answer.value)), [], last)
            carry, rows, turns = in_segments(loop, inputs_at, length)
            last = jnp.maximum(turns - 1, 0) // length
            answer = read(inputs_at(last), carry, rows)
            return _Differences(trees.floats((answer.x, answer.value)), trees.floats(rows), last)

        answers, records, last = jax.vmap(run)(jnp.asarray([sigma, -sigma]))
        quotient = lambda leaf: (leaf[0] - leaf[1]) / (2 * sigma)  # noqa: E731
        return _Differences(
            jax.tree.map(quotient, answers), jax.tree.map(quotient, records), jnp.max(last, axis=0)
        )

    return noise.over_pairs(of_pair)


def _correction(
    loop: Loop, read: Read, inputs: Tree, length: int
) -> Callable[[jax.Array, list[jax.Array]], list[jax.Array]]:
    """What the noise after a record adds to the estimate of the answer: nothing in the mean, only variance.

    Where the answer repeats records, or is linear in them, taking it off leaves the persistent estimator; where
    it is not linear, its slope at the run without noise makes it a control variate, and the estimate stays
    unbiased.

    Returns:
        From the surplus weights, shape (pairs, segments), and the quotients of the records, finite, to the
        surplus in x and the value.
    """
    carry, rows = to_the_end(loop, inputs)
    turns = jnp.arange(loop.bound, dtype=jnp.int32) // length

    def answers(records: list[jax.Array]) -> list[jax.Array]:
        answer = read(inputs, carry, trees.with_floats(rows, records))
        return trees.floats((answer.x, answer.value))

    def surplus(weights: jax.Array, quotients: list[jax.Array]) -> list[jax.Array]:
        by_turn = weights[:, turns]

        def mean(quotient: jax.Array) -> jax.Array:
            over_turns = jax.vmap(_weighted_mean, in_axes=1)
            return over_turns(by_turn, quotient)

        return jax.jvp(answers, (trees.floats(rows),), ([mean(q) for q in quotients],))[1]

    return surplus


def _estimate(
    found: _Differences, correction: Callable[..., list[jax.Array]] | None
) -> tuple[Callable[[jax.Array], list[jax.Array]], list[jax.Array]]:
    """The estimate as a linear function of the products <noise, tangent>, shape (pairs, segments).

    Returns:
        The function, from products to tangents of the floating-point leaves of x and the value; and for each of
        those leaves one where enough pairs are left, NaN where not.
    """

    def combine(products: jax.Array) -> list[jax.Array]:
        persistent = jnp.cumsum(products, axis=1)
        at_end = jnp.take_along_axis(persistent, found.last[:, None], axis=1)
        slopes = [_weighted_mean(at_end[:, 0], quotient) for quotient in found.answers]
        if correction is None:
            return slopes
        return jax.tree.map(jnp.subtract, slopes, correction(at_end - persistent, found.records))

    def enough(quotient: jax.Array) -> jax.Array:
        left = jnp.sum(jnp.isfinite(quotient), axis=0)
        return jnp.where(2 * left >= quotient.shape[0], 1.0, jnp.nan).astype(quotient.dtype)

    return combine, [enough(quotient) for quotient in found.answers]


def _weighted_mean(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """The mean of weights * rows, entry by entry, over those rows that are finite."""
    good = jnp.isfinite(rows)
    left = jnp.maximum(jnp.sum(good, axis=0), 1).astype(rows.dtype)
    return _weighted_sum(weights, jnp.where(good, rows, jnp.zeros_like(rows))) / left


def _weighted_sum(weights: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.tensordot(weights.astype(rows.dtype), rows, axes=1, precision="highest")


# --- what is refused -----------------------------------------------------------------------------------


def _refuse_complex(perturbed: list[Any]) -> None:
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in perturbed):
        raise CannotDifferentiate(
            "Evolution() smooths over real numbers, and an input that is differentiated is complex.\n"
            "Do this: pass its real and imaginary parts as two arrays."
        )


# The same tree; a derivative of it is refused.
_once = refusing(
    "any",
    "nestor_first_derivative_only",
    "Evolution() only has first derivatives: its estimate cannot be differentiated again.\n"
    "Do this: use a first-order method outside (optax, or nestor.GradientDescent), or another adjoint, "
    "nestor.Checkpoint() for example.",
)
