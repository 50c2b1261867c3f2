"""Step lengths along a direction, one trial a turn: nothing here evaluates anything."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from nestor import trees


class SearchState(NamedTuple):
    """Where a search along a direction stands.

    Attributes:
        alpha: the trial step length to be evaluated next.
        low, low_value, low_slope: the longest step known to go down, and what was seen there.
        high, high_slope: a step known to go too far, zero if there is none; the slope is -1 if not known.
        tries: evaluations spent in this search.
    """

    alpha: jax.Array
    low: jax.Array
    low_value: jax.Array
    low_slope: jax.Array
    high: jax.Array
    high_slope: jax.Array
    tries: jax.Array


class Search(Protocol):
    """How step lengths are found: one verb, and where it begins."""

    @property
    def fixed_length(self) -> Any:
        """The length of every step, or None where the search finds it."""
        ...

    @property
    def first(self) -> Any:
        """The first trial of every search, or None where the method proposes it."""
        ...

    def advance(
        self, state: SearchState, value: Any, slope: Any, value0: Any, slope0: Any
    ) -> tuple[jax.Array, jax.Array, SearchState]:
        """Judge the trial and propose the next: (accept, give up, state)."""
        ...


def begin(alpha: jax.Array, value0: jax.Array, slope0: jax.Array) -> SearchState:
    """The state before the first trial of a search."""
    zero = jnp.zeros_like(alpha)
    return SearchState(alpha, zero, value0, slope0, zero, zero - 1, jnp.zeros((), jnp.int32))


def _ratio(a: jax.Array, b: jax.Array, fallback: Any) -> jax.Array:
    """a / b, or the fallback where b is zero or the quotient is not finite; safe to differentiate."""
    fine = (b != 0) & jnp.isfinite(a) & jnp.isfinite(b)
    return jnp.where(fine, jnp.where(fine, a, 0) / jnp.where(fine, b, 1), fallback)


@trees.record
class FixedStep:
    """Always the same step length: the learning rate.

    Args:
        length: a number, or a traced scalar that `Unroll`, `Checkpoint` and `Forward` differentiate.

    >>> import nestor
    >>> nestor.GradientDescent(nestor.FixedStep(0.1))
    GradientDescent(search=FixedStep(length=0.1))
    """

    length: Any

    @property
    def fixed_length(self) -> Any:
        """The length of every step."""
        return self.length

    @property
    def first(self) -> Any:
        """The same."""
        return self.length

    def advance(
        self, state: SearchState, value: Any, slope: Any, value0: Any, slope0: Any
    ) -> tuple[jax.Array, jax.Array, SearchState]:
        """Every trial is accepted."""
        finite = jnp.isfinite(value) & jnp.isfinite(slope)
        return jnp.ones((), bool), ~finite, state


@trees.record
class Backtracking:
    """Armijo's rule: shorten the step until the objective falls by a fraction of what the slope promises.

    Accepts f(x + a d) <= f(x) + decrease * a * slope; within rounding of f, a slope that shrinks. No other
    condition on the new slope, so quasi-Newton updates may have to be skipped.

    Args:
        decrease: the fraction, between 0 and 1.
        shrink: factor of a rejected step.
        max_tries: evaluations in one search before it gives up.
        first: the first trial of every search, 1 for example; None leaves it to the method. A number given is
            the same at every step, so `Unroll` has the exact derivative in it and in all that follows.

    Source: Nocedal and Wright 2006, algorithm 3.1.

    >>> import nestor
    >>> solver = nestor.GradientDescent(nestor.Backtracking())
    >>> nestor.minimize(lambda x: (x - 1.0) ** 2, 0.0, solver=solver).success
    True
    """

    decrease: float = 1e-4
    shrink: float = 0.5
    max_tries: int = 40
    first: Any = None

    @property
    def fixed_length(self) -> Any:
        """None: the length is found."""
        return None

    def advance(
        self, state: SearchState, value: Any, slope: Any, value0: Any, slope0: Any
    ) -> tuple[jax.Array, jax.Array, SearchState]:
        """Accept, or shorten."""
        enough = value <= value0 + self.decrease * state.alpha * slope0
        # Within rounding of the objective the slope decides: it must have shrunk.
        flat = (value <= value0 + rounding(value0)) & (jnp.abs(slope) <= 0.8 * jnp.abs(slope0))
        accept = enough | flat
        tries = state.tries + 1
        return (
            accept & jnp.isfinite(slope),
            tries >= self.max_tries,
            state._replace(alpha=state.alpha * self.shrink, tries=tries),
        )


@trees.record
class StrongWolfe:
    """Steps that satisfy the strong Wolfe conditions, or the approximate ones where rounding hides the decrease.

    Accepts a step when f falls by `decrease` of what the slope promises and the slope shrinks to `curvature`
    of its size; or, within rounding of f(x), when the slope alone says so. Trials are found by bracketing, with
    cubics through values and slopes, and with secants of the slope, which stay meaningful when differences of f
    have drowned (float32 near an optimum).

    Args:
        decrease: c1, between 0 and curvature.
        curvature: c2, below 1; 0.9 for quasi-Newton directions, 0.1 for conjugate gradients.
        max_tries: evaluations in one search before it gives up.
        first: the first trial of every search, 1 for example; None leaves it to the method. A number given is
            the same at every step, so `Unroll` has the exact derivative in it and in all that follows.

    Source: Hager and Zhang 2005, conditions T1, T2 and procedure of section 4; Moré and Thuente 1994, section 4;
    Nocedal and Wright 2006, (3.7).

    >>> import nestor
    >>> nestor.BFGS(nestor.StrongWolfe(curvature=0.5)).search.curvature
    0.5
    """

    decrease: float = 1e-4
    curvature: float = 0.9
    max_tries: int = 30
    first: Any = None

    @property
    def fixed_length(self) -> Any:
        """None: the length is found."""
        return None

    def advance(
        self, state: SearchState, value: Any, slope: Any, value0: Any, slope0: Any
    ) -> tuple[jax.Array, jax.Array, SearchState]:
        """Accept, or move one end of the bracket and propose a trial inside or beyond it."""
        a = state.alpha
        noise = rounding(value0)
        finite = jnp.isfinite(value) & jnp.isfinite(slope)
        size = jnp.abs(slope0)
        enough = value <= value0 + self.decrease * a * slope0
        exact = enough & (jnp.abs(slope) <= self.curvature * size)
        flat = jnp.abs(slope) <= min(self.curvature, 0.8) * size
        approximate = (value <= value0 + noise) & flat
        accept = finite & (exact | approximate)

        uphill = finite & (slope >= 0) & (value <= value0 + noise)
        too_high = ~finite | (value > value0 + noise)
        closes = uphill | too_high
        low = jnp.where(closes, state.low, a)
        low_value = jnp.where(closes, state.low_value, value)
        low_slope = jnp.where(closes, state.low_slope, slope)
        high = jnp.where(closes, a, state.high)
        high_slope = jnp.where(closes, jnp.where(uphill, slope, -1), state.high_slope)
        bracketed = high > 0
        tries = state.tries + 1

        width = high - low
        secant = _ratio(low_slope, low_slope - high_slope, 0.5)
        between = _between(low_value, low_slope, value, slope, width, noise, secant)
        known = high_slope >= 0
        fraction = jnp.where(known, secant, 0.5)
        fraction = jnp.where(closes, between, fraction)
        fraction = jnp.clip(fraction, jnp.where(known, 0.02, 0.1), jnp.where(known, 0.98, 0.9))
        fraction = jnp.where(tries % 6 == 5, 0.5, fraction)
        inside = low + fraction * width
        gain = slope - state.low_slope
        ahead = _ratio(-slope * (a - state.low), jnp.where(gain > 0, gain, 0), 4 * a)
        beyond = a + jnp.clip(ahead, 0.5 * a, 4 * a)
        next_alpha = jnp.where(bracketed, inside, beyond)
        eps = float(jnp.finfo(a.dtype).eps)
        give_up = (tries >= self.max_tries) | (bracketed & (width <= 4 * eps * high))
        return (
            accept,
            give_up,
            SearchState(next_alpha, low, low_value, low_slope, high, high_slope, tries),
        )


def _between(
    low_value: jax.Array,
    low_slope: jax.Array,
    value: jax.Array,
    slope: jax.Array,
    width: jax.Array,
    noise: jax.Array,
    secant: jax.Array,
) -> jax.Array:
    """Where the next trial goes between `low` and a trial that closed the bracket, as a fraction of its width.

    Moré and Thuente 1994, section 4: where the trial is too high, the minimum of the cubic, or its mean with that
    of the parabola, if that one is nearer; where only its slope is, the minimum of the cubic or of the secant,
    whichever is nearer to the trial. Where the values differ by rounding alone, the secant, if there is one.
    """
    rise = value - low_value
    parabola = _ratio(-low_slope * width, 2 * (rise - low_slope * width), 0.1)
    # Safe to differentiate: no infinity and no root of zero on the way, also where nothing fits.
    third = low_slope + slope - 3 * _ratio(rise, width, 0.0)
    square = third**2 - low_slope * slope
    root = trees.root(square)
    over, under = slope + root - third, slope - low_slope + 2 * root
    cubic = 1 - _ratio(over, under, 0.0)
    fits = (width != 0) & (under != 0) & (square > 0) & jnp.isfinite(rise) & jnp.isfinite(over + under)
    nearer = jnp.where(jnp.abs(cubic) < jnp.abs(parabola), cubic, (cubic + parabola) / 2)
    farther = jnp.where(jnp.abs(cubic - 1) < jnp.abs(secant - 1), cubic, secant)
    fraction = jnp.where(rise > 0, jnp.where(fits, nearer, parabola), jnp.where(fits, farther, secant))
    return jnp.where((jnp.abs(rise) <= 10 * noise) & (slope >= 0), secant, fraction)


def rounding(value0: jax.Array) -> jax.Array:
    """How much of a difference of objective values may be rounding.

    More than the last digits: sums and differences of larger numbers in the objective lose some. A step within it
    is judged by its slopes, which is no weaker; Hager and Zhang 2005 take 1e-6 of the value.
    """
    eps = float(jnp.finfo(value0.dtype).eps)
    return jax.lax.stop_gradient(max(10 * eps, min(eps ** (2 / 3), 1e-6)) * jnp.abs(value0))
