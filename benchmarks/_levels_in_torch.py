"""The problems of `_bilevel_problems` in PyTorch's libraries; `_levels_peers` runs them, each in a process of its own.

What had to be done so that all do the same (nothing of theirs is changed on disk):

`betty`: betty-ml 0.2.1 by its `Engine`. Its metadata asks for Python below 3.11, so pip finds only 0.1.1 for a newer
    one and rejects that one's metadata (`torch>=1.6.*`). The code runs on 3.11. Batches come from `get_batch`, without
    a data loader: cheaper for Betty than what its examples do. Its CG takes the old residual into the new direction
    and so does not solve the system; `betty_mended` puts `_conjugate_gradients` from here in its place, at about the
    same cost, and arrives where the others do. "unroll" is its `HigherIterativeProblem`, which in 0.2 reads an
    attribute `_fp16` that is gone and patches a module that is patched already; the class here mends both.
`hypertorch`: github.com/prolearner/hypertorch, imported as `hypergrad`. It is on no registry: `hypertorch` and
    `hypergrad` there are other projects. CG with `tol=0`, as its default stops one iterate early. It has no difference
    quotient; for "darts" it does `fixed_point` with one step, an exact product with the same matrix. The quotient is
    13 % away from that at the first step, so it arrives elsewhere.
`torchopt`: `custom_root` with `solve_cg`; "unroll" by `MetaSGD`; it has nothing of the kind of "darts".
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from _bilevel_problems import Layers, Logistic, Reweighting

Answer = tuple[np.ndarray, np.ndarray, float]  # outer and inner variables, flat; the last upper loss
Start = Callable[[], Callable[[], Answer]]  # everything that is not timed; what it returns is


def start_of(problem: Any) -> np.ndarray:
    """The outer variables before the first step, flat."""
    if isinstance(problem, Logistic):
        return problem.log_strengths
    return _flat(itertools.chain.from_iterable(problem.weigher))


def _flat(arrays: Any) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])


def _net(layers: Layers, *, last: Any = None) -> Any:
    """Layers with ReLU between them, in PyTorch."""
    import torch

    modules: list[Any] = []
    for w, b in layers:
        layer = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w.T))
            layer.bias.copy_(torch.from_numpy(b))
        modules += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1], *([] if last is None else [last]))


def _read(net: Any) -> np.ndarray:
    """The parameters of such a net, in the order and orientation of `Layers`."""
    return _flat(p.detach().numpy().T for p in net.parameters())


def _batches_of(problem: Reweighting) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
    """The noisy and the clean batch of a step, as tensors."""
    import torch

    x, y, x_clean, y_clean = (
        torch.from_numpy(a) for a in (problem.x, problem.y.astype(np.int64), problem.x_clean, problem.y_clean)
    )
    rows, clean_rows = (
        torch.from_numpy(r.astype(np.int64)) for r in (problem.batches, problem.clean_batches)
    )
    y_clean = y_clean.long()
    return (
        lambda t: (x[rows[t]], y[rows[t]]),
        lambda t: (x_clean[clean_rows[t]], y_clean[clean_rows[t]]),
    )


# --- Betty -----------------------------------------------------------------------------------------


def betty_mended() -> tuple[Any, Any]:
    """Betty with a CG that solves the system."""
    from betty.hypergradient import jvp_fn_mapping

    jvp_fn_mapping["cg"] = _conjugate_gradients
    return betty()


def _conjugate_gradients(vector: Any, curr: Any, prev: Any, sync: bool) -> None:
    """What Betty asks of a way to cross a level: -(d2 lower / dprev dcurr) H^-1 vector, added to the gradients."""
    import torch

    assert sync, "two levels only"
    params = curr.trainable_parameters()
    slope = torch.autograd.grad(curr.training_step_exec(curr.cur_batch), params, create_graph=True)
    x, r, p = [torch.zeros_like(v) for v in vector], list(vector), list(vector)

    def dot(a: Any, b: Any) -> Any:
        return sum(torch.sum(i * j) for i, j in zip(a, b, strict=True))

    def add(a: Any, rate: Any, b: Any) -> Any:
        return [i + rate * j for i, j in zip(a, b, strict=True)]

    size = dot(r, r)
    for _ in range(curr.config.cg_iterations):
        image = torch.autograd.grad(slope, params, grad_outputs=p, retain_graph=True)
        rate = size / dot(p, image)
        x, r = add(x, rate, p), add(r, -rate, image)
        size, before = dot(r, r), size
        p = add(r, size / before, p)
    torch.autograd.backward(slope, inputs=prev.trainable_parameters(), grad_tensors=[-i for i in x])


def betty() -> tuple[Any, Any]:
    import logging

    import torch
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import HigherIterativeProblem, ImplicitProblem
    from torch.nn import functional as F

    def engine(outer: Any, inner: Any, steps: int) -> Any:
        logging.disable(logging.INFO)
        return Engine(
            problems=[outer, inner],
            config=EngineConfig(train_iters=steps),  # counts inner steps
            dependencies={"u2l": {outer: [inner]}, "l2u": {inner: [outer]}},
        )

    class Vector(torch.nn.Module):
        def __init__(self, values: np.ndarray):
            super().__init__()
            self.values = torch.nn.Parameter(torch.from_numpy(values.copy()))

    def for_logistic(problem: Logistic) -> Start:
        data = torch.from_numpy(problem.x), torch.from_numpy(problem.y)
        held_out = torch.from_numpy(problem.x_held_out), torch.from_numpy(problem.y_held_out)
        last = [0.0]

        class Outer(ImplicitProblem):
            def get_batch(self) -> Any:
                return held_out

            def training_step(self, batch: Any) -> Any:
                x, y = batch
                loss = F.binary_cross_entropy_with_logits(x @ self.inner.module.values, y)
                last[0] = loss.detach()
                return loss

        class Inner(ImplicitProblem):
            def get_batch(self) -> Any:
                return data

            def training_step(self, batch: Any) -> Any:
                (x, y), w = batch, self.module.values
                penalty = 0.5 * torch.sum(torch.exp(self.outer.module.values) * w**2)
                return F.binary_cross_entropy_with_logits(x @ w, y) + penalty

        def start() -> Callable[[], Answer]:
            s, w = Vector(problem.log_strengths), Vector(problem.weights)
            outer = Outer(
                "outer", Config(), s, torch.optim.SGD(s.parameters(), lr=problem.outer_rate)
            )  # the lower problem's configuration says how derivatives cross it
            crossing = Config(
                type="cg", cg_iterations=problem.cg_steps, cg_alpha=1.0, unroll_steps=problem.inner_steps
            )
            inner = Inner("inner", crossing, w, torch.optim.SGD(w.parameters(), lr=problem.inner_rate))
            whole = engine(outer, inner, problem.outer_steps * problem.inner_steps)

            def go() -> Answer:
                whole.run()
                return s.values.detach().numpy(), w.values.detach().numpy(), float(last[0])

            return go

        return start

    def for_reweighting(problem: Reweighting) -> Start:
        noisy, clean = _batches_of(problem)
        last = [0.0]

        class Outer(ImplicitProblem):
            def get_batch(self) -> Any:
                return clean(self.count - 1)

            def training_step(self, batch: Any) -> Any:
                x, y = batch
                loss = F.cross_entropy(self.inner(x), y)
                last[0] = loss.detach()
                return loss

        class Weighted:
            def get_batch(self) -> Any:
                return noisy(self.count - 1)

            def training_step(self, batch: Any) -> Any:
                x, y = batch
                loss = F.cross_entropy(self.forward(x), y, reduction="none")[:, None]
                return torch.mean(self.outer(loss.detach()) * loss)

        class Darts(Weighted, ImplicitProblem):
            pass

        class Unrolled(Weighted, HigherIterativeProblem):
            _fp16 = False

            def patch_everything(self) -> None:
                pass

        def start() -> Callable[[], Answer]:
            weigher, model = _net(problem.weigher, last=torch.nn.Sigmoid()), _net(problem.model)
            darts = problem.hypergradient == "darts"
            outer = Outer(
                "outer",
                Config(retain_graph=True, first_order=darts),
                weigher,
                torch.optim.Adam(weigher.parameters(), lr=problem.outer_rate),
            )
            optimizer = torch.optim.SGD(model.parameters(), lr=problem.inner_rate, momentum=problem.momentum)
            crossing = Config(type="darts", unroll_steps=1, darts_alpha=problem.darts_alpha)
            inner = (Darts if darts else Unrolled)("inner", crossing, model, optimizer)
            whole = engine(outer, inner, problem.outer_steps)

            def go() -> Answer:
                whole.run()
                return _read(weigher), _read(inner.module), float(last[0])

            return go

        return start

    return for_logistic, for_reweighting


# --- hypertorch ------------------------------------------------------------------------------------


def hypertorch() -> tuple[Any, Any]:
    import hypergrad
    import torch
    from torch.nn import functional as F

    def for_logistic(problem: Logistic) -> Start:
        x, y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)
        x_held_out, y_held_out = torch.from_numpy(problem.x_held_out), torch.from_numpy(problem.y_held_out)
        last = [0.0]

        def lower(params: Any, hparams: Any) -> Any:
            (w,), (s,) = params, hparams
            return F.binary_cross_entropy_with_logits(x @ w, y) + 0.5 * torch.sum(torch.exp(s) * w**2)

        def upper(params: Any, hparams: Any) -> Any:
            loss = F.binary_cross_entropy_with_logits(x_held_out @ params[0], y_held_out)
            last[0] = loss.detach()
            return loss

        def start() -> Callable[[], Answer]:
            s = torch.from_numpy(problem.log_strengths.copy()).requires_grad_()
            w = torch.from_numpy(problem.weights.copy())
            outer = torch.optim.SGD([s], lr=problem.outer_rate)
            step = hypergrad.GradientDescent(lower, problem.inner_rate)
            newton = hypergrad.GradientDescent(lower, 1.0)  # 1 - its derivative is the Hessian

            def go() -> Answer:
                params = [w]
                for _ in range(problem.outer_steps):
                    params = [p.detach().requires_grad_() for p in params]
                    for _ in range(problem.inner_steps):
                        params = step(params, [s], create_graph=False)
                    outer.zero_grad()
                    hypergrad.CG(params, [s], problem.cg_steps, newton, upper, tol=0.0)
                    outer.step()
                return s.detach().numpy(), params[0].detach().numpy(), float(last[0])

            return go

        return start

    def for_reweighting(problem: Reweighting) -> Start:
        noisy, clean = _batches_of(problem)
        darts = problem.hypergradient == "darts"
        last, at = [0.0], [0]

        def start() -> Callable[[], Answer]:
            weigher, model = _net(problem.weigher, last=torch.nn.Sigmoid()), _net(problem.model)
            hparams = list(weigher.parameters())
            names = [name for name, _ in model.named_parameters()]
            outer = torch.optim.Adam(hparams, lr=problem.outer_rate)

            def predict(params: Any, x: Any) -> Any:
                return torch.func.functional_call(model, dict(zip(names, params, strict=True)), (x,))

            def lower(params: Any, _: Any, *, through: bool = False) -> Any:
                x, y = noisy(at[0])
                loss = F.cross_entropy(predict(params, x), y, reduction="none")[:, None]
                return torch.mean(weigher(loss if through else loss.detach()) * loss)

            def upper(params: Any, _: Any) -> Any:
                x, y = clean(at[0])
                loss = F.cross_entropy(predict(params[: len(names)], x), y)
                last[0] = loss.detach()
                return loss

            step = hypergrad.Momentum(lower, problem.inner_rate, problem.momentum)
            newton = hypergrad.GradientDescent(functools.partial(lower, through=True), 1.0)

            def go() -> Answer:
                state = step.get_opt_params([p.detach().clone() for p in model.parameters()])
                for t in range(problem.outer_steps):
                    at[0] = t
                    outer.zero_grad()
                    state = step(
                        [p.detach().requires_grad_() for p in state], hparams, create_graph=not darts
                    )
                    if darts:
                        params = state[: len(names)]
                        hypergrad.fixed_point(params, hparams, 1, newton, upper, tol=0.0)
                    else:
                        hypergrad.reverse_unroll(state, hparams, upper)
                    outer.step()
                params = [p.detach().numpy().T for p in state[: len(names)]]
                return _read(weigher), _flat(params), float(last[0])

            return go

        return start

    return for_logistic, for_reweighting


# --- TorchOpt --------------------------------------------------------------------------------------


def torchopt() -> tuple[Any, Any]:
    import torch
    import torchopt as opt
    from torch.nn import functional as F

    def for_logistic(problem: Logistic) -> Start:
        x, y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)
        x_held_out, y_held_out = torch.from_numpy(problem.x_held_out), torch.from_numpy(problem.y_held_out)

        def lower(w: Any, s: Any) -> Any:
            return F.binary_cross_entropy_with_logits(x @ w, y) + 0.5 * torch.sum(torch.exp(s) * w**2)

        cg = opt.linear_solve.solve_cg(maxiter=problem.cg_steps, rtol=0.0, atol=0.0)

        @opt.diff.implicit.custom_root(torch.func.grad(lower, argnums=0), argnums=1, solve=cg)
        def solution(w: Any, s: Any) -> Any:
            w, s = w.detach().requires_grad_(), s.detach()
            for _ in range(problem.inner_steps):
                with torch.enable_grad():
                    (slope,) = torch.autograd.grad(lower(w, s), w)
                w = (w - problem.inner_rate * slope).requires_grad_()
            return w

        def start() -> Callable[[], Answer]:
            s = torch.from_numpy(problem.log_strengths.copy()).requires_grad_()
            first = torch.from_numpy(problem.weights.copy())
            outer = torch.optim.SGD([s], lr=problem.outer_rate)

            def go() -> Answer:
                w, loss = first, torch.zeros(())
                for _ in range(problem.outer_steps):
                    w = solution(w.detach(), s)
                    outer.zero_grad()
                    loss = F.binary_cross_entropy_with_logits(x_held_out @ w, y_held_out)
                    loss.backward()
                    outer.step()
                return s.detach().numpy(), w.detach().numpy(), float(loss.detach())

            return go

        return start

    def for_reweighting(problem: Reweighting) -> Start:
        if problem.hypergradient != "unroll":
            raise NotImplementedError("TorchOpt has no difference quotient")
        noisy, clean = _batches_of(problem)

        def start() -> Callable[[], Answer]:
            weigher, model = _net(problem.weigher, last=torch.nn.Sigmoid()), _net(problem.model)
            outer = torch.optim.Adam(weigher.parameters(), lr=problem.outer_rate)
            inner = opt.MetaSGD(model, lr=problem.inner_rate, momentum=problem.momentum)

            def go() -> Answer:
                loss = torch.zeros(())
                for t in range(problem.outer_steps):
                    x, y = noisy(t)
                    each = F.cross_entropy(model(x), y, reduction="none")[:, None]
                    inner.step(torch.mean(weigher(each.detach()) * each))
                    x, y = clean(t)
                    loss = F.cross_entropy(model(x), y)
                    outer.zero_grad()
                    loss.backward()
                    outer.step()
                    opt.stop_gradient(model)
                    opt.stop_gradient(inner)
                return _read(weigher), _read(model), float(loss.detach())

            return go

        return start

    return for_logistic, for_reweighting
