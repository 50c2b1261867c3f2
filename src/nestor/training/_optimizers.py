"""The optimizers of training runs, in order of increasing memory: each is a rule and the schedules it reads.

Every number in an optimizer is a schedule, and every schedule is differentiable. The same rule is run in
floating point and, for exact reversal, in integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nestor import schedules, trees
from nestor.errors import BadArgument
from nestor.loops import Add, Forget, Rule, Scale, step
from nestor.training._towers import Tuned

Tree = Any
Amount = Callable[[dict[str, jax.Array], jax.Array, dict[str, jax.Array]], jax.Array]


@trees.record
class Optimizer:
    """A rule of update and the schedules of its coefficients; made by `sgd`, `adam` and their like.

    Args:
        rule: the moves of one step.
        schedules: for each hyperparameter a schedule (or `tuned`), by name.
        derive: (hyperparameters at step t, t as a float) -> the coefficients that the rule reads.
        start: trees like the parameters for the slots that do not start at zero.

    >>> import nestor
    >>> nestor.sgd(0.1, momentum=0.9).rule.name
    'sgd with momentum'
    """

    rule: Rule = dataclasses.field(metadata={"static": True})
    schedules: dict[str, Any]
    derive: Callable[[dict[str, Any], jax.Array], dict[str, Any]] = dataclasses.field(
        metadata={"static": True}
    )
    start: dict[str, Tree] = dataclasses.field(default_factory=dict)

    def init(self, params: Tree) -> dict[str, Tree]:
        """The slots at the start: zeros like the parameters where nothing else was asked for."""
        return {slot: self.start.get(slot, trees.zeros_like(params)) for slot in self.rule.slots}

    def coefficients(self, hyper: dict[str, Any], t: jax.Array) -> dict[str, Any]:
        """The coefficients of step t (int32) from the values of the hyperparameters there."""
        return self.derive(hyper, t.astype(jnp.result_type(float)))

    def values(self, t: jax.Array) -> dict[str, Any]:
        """The hyperparameters at step t, by name: scalars, or trees that are prefixes of the parameters."""
        return {name: schedule(t) for name, schedule in self.schedules.items()}

    def update(
        self, hyper: dict[str, Any], t: jax.Array, gradient: Tree, params: Tree, slots: dict[str, Tree]
    ) -> tuple[Tree, dict[str, Tree]]:
        """One step on whole trees."""
        c = {name: spread(value, params) for name, value in self.coefficients(hyper, t).items()}
        names, structure = tuple(c), jax.tree.structure(params)
        columns = (
            zip(*(jax.tree.leaves(c[name]) for name in names), strict=True)
            if names
            else ((),) * structure.num_leaves
        )
        rows = zip(
            columns,
            jax.tree.leaves(gradient),
            jax.tree.leaves(params),
            *(jax.tree.leaves(slots[slot]) for slot in self.rule.slots),
            strict=True,
        )
        new_x, new_slots = [], []
        for column, g, x, *mine in rows:
            x, s = step(
                self.rule,
                dict(zip(names, column, strict=True)),
                g,
                x,
                dict(zip(self.rule.slots, mine, strict=True)),
            )
            new_x.append(x)
            new_slots.append(s)
        back = lambda leaves: jax.tree.unflatten(structure, leaves)  # noqa: E731
        return back(new_x), {slot: back([s[slot] for s in new_slots]) for slot in self.rule.slots}


def spread(value: Any, params: Tree) -> Tree:
    """A scalar or a prefix of the parameters' tree as a whole tree of arrays, one for each leaf."""
    return jax.tree.map(lambda v, part: jax.tree.map(lambda _: jnp.asarray(v), part), value, params)


# --- rules ---------------------------------------------------------------------------------------------

# Bits behind the point in 32 and 64 bits: velocities up to 128 and 2048, second moments up to 2 and 64.
_VELOCITY = (24, 40)
_MOMENT = (30, 46)


def _plain(
    name: str,
    amount: Amount,
    *,
    slots: tuple[str, ...] = (),
    fractions: tuple[tuple[int, int], ...] = (),
    more: tuple[Scale | Add | Forget, ...] = (),
    then: tuple[Add, ...] = (),
) -> Rule:
    """A rule whose step has no memory: it is made anew in a slot of its own."""
    return Rule(
        name=name,
        slots=(*slots, "step"),
        kicks=(*more, Forget("step"), Add("step", amount), *then),
        drift=lambda c, s: -_to(c["rate"], s["step"]) * s["step"],
        fractions=(*fractions, _VELOCITY),
    )


def _to(c: jax.Array, leaf: jax.Array) -> jax.Array:
    return c.astype(leaf.dtype)


def _above(floor: jax.Array, square: jax.Array) -> jax.Array:
    """A square, no smaller than the floor. Adding the floor instead might round differently on the way back."""
    return jnp.where(square > _to(floor, square), square, _to(floor, square))


def _scaled(g: jax.Array, square: jax.Array, c: dict[str, jax.Array]) -> jax.Array:
    return g / (trees.root(_above(c["floor"], square)) + _to(c["eps"], g))


_SGD = _plain("sgd", lambda c, g, s: g)
_MOMENTUM = Rule(
    name="sgd with momentum",
    slots=("velocity",),
    kicks=(Scale("velocity", "momentum"), Add("velocity", lambda c, g, s: g)),
    drift=lambda c, s: -_to(c["rate"], s["velocity"]) * s["velocity"],
    fractions=(_VELOCITY,),
)
# Its step is added in two parts: one fused multiply-add could round differently on the way back.
_NESTEROV = _plain(
    "sgd with Nesterov momentum",
    lambda c, g, s: g,
    slots=("velocity",),
    more=_MOMENTUM.kicks,
    then=(Add("step", lambda c, g, s: _to(c["momentum"], g) * s["velocity"]),),
    fractions=(_VELOCITY,),
)
_ADAGRAD = _plain(
    "adagrad",
    lambda c, g, s: _scaled(g, s["square"], c),
    slots=("square",),
    more=(Add("square", lambda c, g, s: g * g),),
    fractions=((20, 36),),
)
_AVERAGE_SQUARE = (
    Scale("square", "decay"),
    Add("square", lambda c, g, s: (1 - _to(c["decay"], g)) * (g * g)),
)
_RMSPROP = _plain(
    "rmsprop",
    lambda c, g, s: _scaled(g, s["square"], c),
    slots=("square",),
    more=_AVERAGE_SQUARE,
    fractions=(_MOMENT,),
)
_RMSPROP_MOMENTUM = Rule(
    name="rmsprop with momentum",
    slots=("square", "velocity"),
    kicks=(
        *_AVERAGE_SQUARE,
        Scale("velocity", "momentum"),
        Add("velocity", lambda c, g, s: _scaled(g, s["square"], c)),
    ),
    drift=_MOMENTUM.drift,
    fractions=(_MOMENT, _VELOCITY),
)


def _adam_drift(c: dict[str, jax.Array], s: dict[str, jax.Array]) -> jax.Array:
    mean = s["mean"] / _to(c["bias1"], s["mean"])
    square = _above(c["floor"], s["square"]) / _to(c["bias2"], mean)
    return -_to(c["rate"], mean) * (mean / (trees.root(square) + _to(c["eps"], mean)))


_ADAM = Rule(
    name="adam",
    slots=("mean", "square"),
    kicks=(
        Scale("mean", "b1"),
        Add("mean", lambda c, g, s: (1 - _to(c["b1"], g)) * g),
        Scale("square", "b2"),
        Add("square", lambda c, g, s: (1 - _to(c["b2"], g)) * (g * g)),
    ),
    drift=_adam_drift,
    fractions=(_VELOCITY, _MOMENT),
)
_ADAMW = _ADAM._replace(name="adamw", shrink="keep")
_LEAPFROG = Rule(
    name="leapfrog",
    slots=("momentum",),
    kicks=(Add("momentum", lambda c, g, s: -_to(c["kick"], g) * g),),
    drift=lambda c, s: _to(c["rate"], s["momentum"]) * s["momentum"] / _to(c["mass"], s["momentum"]),
    fractions=(_VELOCITY,),
)


# --- the front functions -------------------------------------------------------------------------------


def sgd(rate: Any, momentum: Any = 0.0, *, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent, with momentum if wanted.

    v <- momentum v + g;  x <- x - rate v  (Nesterov: x <- x - rate (g + momentum v)), as optax has it.

    Args:
        rate: learning rate: a number, a schedule, an array with one value a step, a function of the step, or
            a tree of these that is a prefix of the parameters (parameter groups).
        momentum: likewise, from 0 to 1. The number 0.0 keeps no velocity at all.
        nesterov: use Nesterov's form.

    Raises:
        BadArgument: a value is none of these.

    Source: Polyak 1964; Sutskever et al. 2013, equations 3 and 4.

    >>> import jax.numpy as jnp, nestor
    >>> run = nestor.train(lambda x, batch: jnp.sum((x - 1.0) ** 2), jnp.zeros(2), None,
    ...                    optimizer=nestor.sgd(0.1, momentum=0.5), steps=50)
    >>> bool(jnp.all(jnp.abs(run.params - 1.0) < 1e-3))
    True
    """
    if not isinstance(nesterov, bool):
        raise BadArgument("sgd", "nesterov", got=nesterov, want="True or False", do="write nesterov=True")
    settings = _schedules("sgd", rate=rate)
    if _is_nothing(momentum):
        return Optimizer(_SGD, settings, _as_they_are)
    settings |= _schedules("sgd", momentum=momentum)
    return Optimizer(_NESTEROV if nesterov else _MOMENTUM, settings, _as_they_are)


def adagrad(rate: Any, *, eps: Any = 1e-7) -> Optimizer:
    """AdaGrad: s <- s + g²;  x <- x - rate g / (sqrt(s) + eps).

    An entry whose gradient is always zero stays where it is, and its derivative is finite.

    Args:
        rate, eps: as `rate` of `sgd`.

    Source: Duchi, Hazan, Singer 2011.

    >>> import nestor
    >>> nestor.adagrad(0.1).rule.name
    'adagrad'
    """
    return Optimizer(_ADAGRAD, _schedules("adagrad", rate=rate, eps=eps), _as_they_are)


def rmsprop(rate: Any, decay: Any = 0.9, *, momentum: Any = 0.0, eps: Any = 1e-8) -> Optimizer:
    """RMSProp: s <- decay s + (1 - decay) g²;  step g / (sqrt(s) + eps), with momentum if wanted.

    Args:
        rate, decay, momentum, eps: as `rate` of `sgd`.

    Source: Tieleman and Hinton 2012, lecture 6.5.

    >>> import nestor
    >>> nestor.rmsprop(0.1, momentum=0.9).rule.name
    'rmsprop with momentum'
    """
    settings = _schedules("rmsprop", rate=rate, decay=decay, eps=eps)
    if _is_nothing(momentum):
        return Optimizer(_RMSPROP, settings, _as_they_are)
    settings |= _schedules("rmsprop", momentum=momentum)
    return Optimizer(_RMSPROP_MOMENTUM, settings, _as_they_are)


def adam(rate: Any, b1: Any = 0.9, b2: Any = 0.999, *, eps: Any = 1e-8) -> Optimizer:
    """Adam: averages of the gradient and of its square, corrected for their start at zero.

    Its hypergradient is finite where a gradient is always zero (a border pixel), unlike that of the usual
    formula, whose square root has an infinite slope there.

    Args:
        rate, b1, b2, eps: as `rate` of `sgd`.

    Source: Kingma and Ba 2015, algorithm 1.

    >>> import nestor
    >>> nestor.adam(1e-3).rule.name
    'adam'
    """
    return Optimizer(_ADAM, _schedules("adam", rate=rate, b1=b1, b2=b2, eps=eps), _adam_coefficients)


def adamw(
    rate: Any, b1: Any = 0.9, b2: Any = 0.999, *, weight_decay: Any = 1e-4, eps: Any = 1e-8
) -> Optimizer:
    """Adam with decoupled weight decay: x <- (1 - rate weight_decay) x - (Adam's step).

    Args:
        rate, b1, b2, weight_decay, eps: as `rate` of `sgd`.

    Source: Loshchilov and Hutter 2019, algorithm 2.

    >>> import nestor
    >>> nestor.adamw(1e-3, weight_decay=0.1).rule.name
    'adamw'
    """
    settings = _schedules("adamw", rate=rate, b1=b1, b2=b2, weight_decay=weight_decay, eps=eps)
    return Optimizer(_ADAMW, settings, _adamw_coefficients)


def leapfrog(rate: Any, mass: Any = 1.0, momentum: Tree = None) -> Optimizer:
    """Hamiltonian dynamics by leapfrog steps of size `rate`: no friction, and no bit is lost.

    p <- p - rate g (half of it at the first step);  x <- x + rate p / mass. At the end p is half a step
    ahead of x.

    Args:
        rate, mass: as `rate` of `sgd`; masses per parameter group make a diagonal mass matrix.
        momentum: p at the start, a tree like the parameters; None is zero.

    Source: Neal 2011, section 2.3; Maclaurin, Duvenaud, Adams 2015, section 3.

    >>> import nestor
    >>> nestor.leapfrog(0.1).rule.name
    'leapfrog'
    """
    start = {} if momentum is None else {"momentum": jax.tree.map(jnp.asarray, momentum)}
    return Optimizer(_LEAPFROG, _schedules("leapfrog", rate=rate, mass=mass), _leapfrog_coefficients, start)


def _schedules(where: str, **values: Any) -> dict[str, Any]:
    return {
        name: value if isinstance(value, Tuned) else schedules.as_schedule(value, where, name)
        for name, value in values.items()
    }


def _is_nothing(momentum: Any) -> bool:
    return isinstance(momentum, (int, float)) and momentum == 0


def _as_they_are(hyper: dict[str, Any], t: jax.Array) -> dict[str, Any]:
    return hyper


def _adam_coefficients(hyper: dict[str, Any], t: jax.Array) -> dict[str, Any]:
    def correction(b: jax.Array) -> jax.Array:
        return 1 - b ** (t + 1).astype(b.dtype)

    return {
        **hyper,
        "bias1": jax.tree.map(correction, hyper["b1"]),
        "bias2": jax.tree.map(correction, hyper["b2"]),
    }


def _adamw_coefficients(hyper: dict[str, Any], t: jax.Array) -> dict[str, Any]:
    keep = _joined(
        lambda rate, decay: 1 - rate * decay.astype(rate.dtype), hyper["rate"], hyper["weight_decay"]
    )
    return {**_adam_coefficients(hyper, t), "keep": keep}


def _leapfrog_coefficients(hyper: dict[str, Any], t: jax.Array) -> dict[str, Any]:
    kick = jax.tree.map(lambda rate: jnp.where(t > 0, rate, rate / 2), hyper["rate"])
    return {**hyper, "kick": kick}


def _joined(function: Callable[..., jax.Array], a: Any, b: Any) -> Any:
    """A function of two values of hyperparameters, of which either may be a tree of groups."""
    if jax.tree.structure(a) == jax.tree.structure(b):
        return jax.tree.map(function, a, b)
    if jax.tree.structure(b) == jax.tree.structure(0):
        return jax.tree.map(lambda leaf: function(leaf, b), a)
    return jax.tree.map(lambda leaf: function(a, leaf), b)
