"""Nestor as a solver of the benchopt suite benchmark_bilevel; see README.md in this folder."""

import functools
from typing import ClassVar

from benchopt import BaseSolver, safe_import_context
from benchopt.stopping_criterion import SufficientProgressCriterion

with safe_import_context() as import_ctx:
    import jax
    import jax.numpy as jnp

    import nestor

FLAT = 1e-3  # the least curvature that is made up for, of the largest
UNSURE = 0.1  # the curvature assumed in all directions where the Hessian is indefinite, of the largest
PART = 4096  # the samples that are enough for what only shapes the steps
STOCHASTIC = {
    "soba": lambda inner, outer: nestor.levels.SOBA(inner, outer),
    "saba": lambda inner, outer: nestor.levels.SABA(inner, outer),
    "srba": lambda inner, outer: nestor.levels.SRBA(inner, outer),
}
METHODS = ("bfgs", *STOCHASTIC)


class Solver(BaseSolver):
    """The implicit function by `nestor.find_root`, minimized by `nestor.BFGS`; or a stochastic method.

    `bfgs` knows all samples at every step: h(x) = f(y(x), x), where y(x) is the root of the inner gradient, found by
    Broyden's method from the last answer, with derivatives by the implicit function theorem. It starts in
    coordinates that the Hessian of h gives, if that is positive, else with one length in all directions. It forms
    Hessians of the inner level, so it is for some hundred variables; those of them that only shape the steps are
    taken on `PART` samples. `soba`, `saba` and `srba` draw batches and move both levels at once, at the rates
    `step_size` and `step_size / outer_ratio`.
    """

    name = "Nestor"
    sampling_strategy = "callback"
    stopping_criterion = SufficientProgressCriterion(patience=12_800, strategy="callback")
    parameters: ClassVar = {
        "method": ["bfgs"],
        "step_size": [0.1],
        "outer_ratio": [1.0],
        "batch_size": [64],
        "eval_freq": [128],
        "tol": [1e-4],
        "random_state": [1],
    }

    @staticmethod
    def get_next(stop_val):
        return stop_val + 1

    def skip(self, n_inner_samples, n_outer_samples, **_):
        if self.method not in METHODS:
            return True, f"method is one of {', '.join(METHODS)}"
        if self.method in STOCHASTIC and (
            n_inner_samples % self.batch_size or n_outer_samples % self.batch_size
        ):
            return True, "the batches must divide the samples"
        return False, None

    def set_objective(self, f_inner, f_outer, n_inner_samples, n_outer_samples, inner_var0, outer_var0):
        self.start = jax.tree.map(jnp.asarray, (inner_var0, outer_var0))
        levels = (f_inner, n_inner_samples), (f_outer, n_outer_samples)
        self.begin = self._stochastic(*levels) if self.method in STOCHASTIC else self._whole(*levels)
        self.run_once(2)  # compiles

    def run(self, callback):
        state, advance = self.begin()
        self.inner_var, self.outer_var = self.start
        while callback():
            state, found = advance(state)
            self.inner_var, self.outer_var = jax.block_until_ready(found)

    def get_result(self):
        return {"inner_var": self.inner_var, "outer_var": self.outer_var}

    # --- the two kinds of run ------------------------------------------------------------------------

    def _whole(self, inner, outer):
        """One step of the outer solver from one callback to the next."""
        h, of_some = self._implicit(inner, outer)
        solver = nestor.BFGS(nestor.StrongWolfe(first=1.0))

        def seen(h, x, start):
            (value, y), gradient = jax.value_and_grad(h, has_aux=True)(x, start)
            return gradient, (value, y, gradient)

        @jax.jit
        def begin(y, x):
            """A run starts in coordinates in which the Hessian of h is about the identity, if it is positive."""
            _, y = of_some(x, y)
            hessian, found = jax.jacfwd(functools.partial(seen, of_some), has_aux=True)(x, y)
            values, vectors = jnp.linalg.eigh((hessian + hessian.T) / 2)
            most = jnp.max(jnp.abs(values))
            curved = jnp.where(values[0] > 0, jnp.maximum(values, FLAT * most), UNSURE * most)
            if h is not of_some:
                _, found = seen(h, x, y)
            start = jnp.zeros_like(x)
            state = solver.init(nestor.solvers.Minimization(jnp.sum, 0.0), start)
            return start, found, (x, vectors / jnp.sqrt(curved)), state

        @jax.jit
        def advance(carry):
            u, (value, y, gradient), (origin, frame), state = carry
            told = nestor.solvers.Minimization(lambda z: value + gradient @ (frame @ (z - u)), 0.0)
            u, state = solver.step(told, u, state)
            x = origin + frame @ u
            _, found = seen(h, x, y)
            return (u, found, (origin, frame), state), (found[1], x)

        return lambda: (begin(*self.start), advance)

    def _implicit(self, inner, outer):
        """The outer level as a function of x, of all samples and of a part of them: (value, answer of the inner)."""
        (f_inner, rows), (f_outer, held_out) = inner, outer

        def over(samples):
            g, f = (
                functools.partial(f, start=0, batch_size=min(n, samples))
                for f, n in ((f_inner, rows), (f_outer, held_out))
            )
            part = functools.partial(f_inner, start=0, batch_size=min(rows, PART))

            def h(x, start):
                """The answer of the inner level is looked for from `start`, in steps of Newton's length."""
                curvature = jax.jacfwd(jax.grad(part))(start, x)
                inverse = jax.lax.stop_gradient(jnp.linalg.inv(curvature))
                y = nestor.find_root(
                    lambda y: inverse @ jax.grad(g)(y, x),
                    start,
                    solver=nestor.Broyden(jacobian="identity"),
                    adjoint=nestor.Implicit(nestor.LU()),
                    tol=self.tol,
                    max_steps=50,
                    raise_on_failure=False,
                ).x
                return f(y, x), y

            return h

        whole = over(max(rows, held_out))
        return whole, over(PART) if max(rows, held_out) > PART else whole

    def _stochastic(self, inner, outer):
        """`eval_freq` steps of a method from one callback to the next; a row of data is a block of samples."""
        (f_inner, rows), (f_outer, held_out) = inner, outer
        block = self.batch_size

        def over_blocks(f):
            one = functools.partial(f, batch_size=block)
            every = jax.vmap(one, in_axes=(None, None, 0))
            return lambda p, starts: jnp.mean(every(p["inner"], p["outer"], starts))

        y, x = self.start
        starts = lambda n: jnp.arange(0, n, block)  # noqa: E731
        level = functools.partial(nestor.Level, optimizer=nestor.sgd(0.0), batch_size=1)
        graph = nestor.Graph(
            {
                "inner": level(over_blocks(f_inner), y, data=starts(rows)),
                "outer": level(over_blocks(f_outer), x, data=starts(held_out)),
            }
        )
        method = STOCHASTIC[self.method](self.step_size, self.step_size / self.outer_ratio)
        key = jax.random.key(self.random_state)

        def advance(state):
            given = {"key": None if state else key, "start": state, "report_every": self.eval_freq}
            state = graph.run(self.eval_freq, method=method, **given)
            return state, (state.params["inner"], state.params["outer"])

        return lambda: (None, advance)
