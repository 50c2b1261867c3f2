"""One outer step, the hypergradient of 100 inner steps of a net on the digits, 5 times faster than PyTorch's libraries.

Value and gradient of the validation loss in 102 hyperparameters (the log rate of each step, the momentum, the log
strength of L2) through 100 steps of SGD with momentum: same images, batches, start and float32 everywhere. Ours is one
compiled program, with the adjoint that `nestor.train` chooses by itself; `Unroll()` and `Reversible()` are reported
beside it. Peers: TorchOpt's MetaSGD, `higher`, and the same loop written by hand in PyTorch with nothing around it
(`create_graph=True`). Betty has no current release for Python 3.11. Three nets: 64-100-10 on the 8x8 digits with
batches of 100 (the figures of the claim, against the faster of the two libraries), a smaller and a larger one, where
PyTorch's cost of a call and the matrix products, in this order, decide.

PyTorch runs on one thread, its faster setting for such nets on a busy machine, where two OpenMP threads wait for one
another actively. What two threads take is reported too, and should not be leant on. Compilation, paid once, stands
apart.
"""

import copy
import itertools
import statistics
import time
import warnings
from importlib.metadata import version
from typing import Any

import higher
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchopt
from _timing import Comparison, in_process, interleaved, report
from sklearn.datasets import load_digits

from nestor import Reversible, Unroll, sgd, train

STEPS, TRAIN = 100, 1000
CLAIM = "64-100-10"
NETS = {CLAIM: (8, 100, [100]), "64-32-10": (8, 50, [32]), "784-50-50-50-10": (28, 200, [50, 50, 50])}
LIBRARIES = ("torchopt", "higher")
MOMENTUM, LOG_L2 = 0.9, np.log(1e-4)
LOG_RATES = np.log(0.05) + 0.3 * np.sin(np.arange(STEPS) / 10)
TOLERANCE = 1e-3  # between the hypergradients, relative, before anything is timed
WARMUPS, ROUNDS = 2, 7


class Problem:
    """The arrays that everybody is given, for one of the nets."""

    def __init__(self, side: int, batch: int, hidden: list[int]):
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        shape = (len(labels), side, side)
        large = jax.image.resize(jnp.asarray(images[order] / 16.0).reshape(-1, 8, 8), shape, "bilinear")
        self.images = np.array(large, np.float32).reshape(len(labels), -1)
        self.labels = labels[order].astype(np.int64)
        self.batch = batch
        draw = np.random.default_rng(1)
        widths = [side * side, *hidden, 10]
        self.start = [
            (draw.normal(size=(m, n), scale=m**-0.5).astype(np.float32), np.zeros(n, np.float32))
            for m, n in itertools.pairwise(widths)
        ]
        self.hyper = tuple(np.float32(h) for h in (MOMENTUM, LOG_L2))
        self.log_rates = LOG_RATES.astype(np.float32)

    def ours(self, adjoint: Any):
        """The compiled outer step."""
        x, y = jnp.asarray(self.images), jnp.asarray(self.labels.astype(np.int32))

        def logits(params: Any, x: jax.Array) -> jax.Array:
            for w, b in params[:-1]:
                x = jnp.tanh(x @ w + b)
            w, b = params[-1]
            return x @ w + b

        def cross_entropy(params: Any, data: Any) -> jax.Array:
            x, y = data
            logs = jax.nn.log_softmax(logits(params, x))
            return -jnp.mean(jnp.take_along_axis(logs, y[:, None], 1))

        def outer(log_rates: jax.Array, momentum: jax.Array, log_l2: jax.Array) -> jax.Array:
            def loss(params: Any, batch: Any) -> jax.Array:
                squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
                return cross_entropy(params, batch) + 0.5 * jnp.exp(log_l2) * squares

            run = train(
                loss,
                jax.tree.map(jnp.asarray, self.start),
                (x[:TRAIN], y[:TRAIN]),
                optimizer=sgd(jnp.exp(log_rates), momentum),
                steps=STEPS,
                batch_size=self.batch,
                shuffle=False,
                adjoint=adjoint,
            )
            return cross_entropy(run.params, (x[TRAIN:], y[TRAIN:]))

        point = jnp.asarray(self.log_rates), *map(jnp.asarray, self.hyper)
        step = jax.jit(jax.value_and_grad(outer, argnums=(0, 1, 2)))
        wall, cpu = time.perf_counter(), time.process_time()
        compiled = step.lower(*point).compile()
        spent = {
            "cpu_s": round(time.process_time() - cpu, 2),
            "wall_s": round(time.perf_counter() - wall, 2),
        }
        return lambda: compiled(*point), spent

    def peers(self) -> dict[str, Any]:
        """The outer step of each peer."""
        x, y = torch.from_numpy(self.images), torch.from_numpy(self.labels)
        cuts = [(t * self.batch) % TRAIN for t in range(STEPS)]
        batches = [(x[i : i + self.batch], y[i : i + self.batch]) for i in cuts]
        held_out = (x[TRAIN:], y[TRAIN:])
        entropy = torch.nn.functional.cross_entropy
        layers: list[Any] = []
        for w, b in self.start:
            layer = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(w.T))
                layer.bias.copy_(torch.from_numpy(b))
            layers += [layer, torch.nn.Tanh()]
        untouched = torch.nn.Sequential(*layers[:-1])

        def hyper() -> list[torch.Tensor]:
            return [torch.tensor(h, requires_grad=True) for h in (self.log_rates, *self.hyper)]

        def penalized(net: Any, params: Any, log_l2: torch.Tensor, batch: Any) -> torch.Tensor:
            squares = sum(torch.sum(leaf**2) for leaf in params)
            return entropy(net(batch[0]), batch[1]) + 0.5 * torch.exp(log_l2) * squares

        def finished(net: Any, variables: list[torch.Tensor]) -> tuple[torch.Tensor, Any]:
            loss = entropy(net(held_out[0]), held_out[1])
            return loss.detach(), torch.autograd.grad(loss, variables)

        def by_torchopt() -> Any:
            log_rates, momentum, log_l2 = variables = hyper()
            rates = torch.exp(log_rates).unbind()
            net = copy.deepcopy(untouched)
            optimizer = torchopt.MetaSGD(net, lr=lambda t: rates[int(t)], momentum=momentum)
            for batch in batches:
                optimizer.step(penalized(net, net.parameters(), log_l2, batch))
            return finished(net, variables)

        def by_higher() -> Any:
            log_rates, momentum, log_l2 = variables = hyper()
            rates = torch.exp(log_rates).unbind()
            optimizer = torch.optim.SGD(untouched.parameters(), lr=0.1, momentum=0.9)
            with higher.innerloop_ctx(untouched, optimizer) as (model, differentiable):
                for rate, batch in zip(rates, batches, strict=True):
                    loss = penalized(model, model.parameters(), log_l2, batch)
                    differentiable.step(loss, override={"lr": [rate], "momentum": [momentum]})
                return finished(model, variables)

        def by_hand() -> Any:
            log_rates, momentum, log_l2 = variables = hyper()
            rates = torch.exp(log_rates).unbind()
            params = [torch.tensor(leaf, requires_grad=True) for pair in self.start for leaf in pair]
            velocity = [torch.zeros_like(leaf) for leaf in params]

            def model(x: torch.Tensor) -> torch.Tensor:
                for w, b in zip(params[:-2:2], params[1:-2:2], strict=True):
                    x = torch.tanh(torch.addmm(b, x, w))
                return torch.addmm(params[-1], x, params[-2])

            for rate, batch in zip(rates, batches, strict=True):
                loss = penalized(model, params, log_l2, batch)
                grads = torch.autograd.grad(loss, params, create_graph=True)
                velocity = [momentum * v + g for v, g in zip(velocity, grads, strict=True)]
                params = [p - rate * v for p, v in zip(params, velocity, strict=True)]
            return finished(model, variables)

        return {"torchopt": by_torchopt, "higher": by_higher, "pytorch_by_hand": by_hand}


def apart(answer: Any, other: Any) -> float:
    """How far two answers are from one another, relative: the largest of value and each gradient."""
    a, b = ([np.asarray(leaf, np.float64) for leaf in (value, *grads)] for value, grads in (answer, other))
    return max(float(np.linalg.norm(p - q) / np.linalg.norm(p)) for p, q in zip(a, b, strict=True))


def compared(name: str) -> tuple[Comparison, dict[str, Any]]:
    """The faster library against ours, and everything else that was seen."""
    problem = Problem(*NETS[name])
    run, compiling = problem.ours(None)
    peers, answer = problem.peers(), run()
    others = {**peers, "unroll": problem.ours(Unroll())[0], "reversible": problem.ours(Reversible())[0]}
    distances = {other: apart(answer, step()) for other, step in others.items()}
    assert max(distances.values()) < TOLERANCE, distances
    seen = {
        other: interleaved(in_process(run), in_process(step), rounds=ROUNDS, warmups=WARMUPS)
        for other, step in others.items()
    }
    fastest = min(LIBRARIES, key=lambda peer: seen[peer].peer.cpu)
    more = {
        "peer_is": fastest,
        "batch": problem.batch,
        "validation_loss": round(float(answer[0]), 4),
        "hypergradients_apart": {other: float(f"{far:.1e}") for other, far in distances.items()},
        "cpu_ms": {
            "ours": round(1e3 * statistics.median(c.ours.cpu for c in seen.values()), 1),
            **{other: round(1e3 * c.peer.cpu, 1) for other, c in seen.items()},
        },
        "times_faster": {peer: round(1 / seen[peer].cpu_ratio, 2) for peer in peers},
        "times_faster_wall": {peer: round(1 / seen[peer].wall_ratio, 2) for peer in peers},
        "compile": compiling,
    }
    if name == CLAIM:
        more["torchopt_on_two_threads"] = on_two_threads(run, peers["torchopt"])
    return seen[fastest], more


def on_two_threads(run: Any, step: Any) -> dict[str, float]:
    """What becomes of a peer with two threads; few rounds, since it can take minutes on a busy machine."""
    torch.set_num_threads(2)
    both = interleaved(in_process(run), in_process(step), rounds=3)
    torch.set_num_threads(1)
    return {
        "cpu_ms": round(1e3 * both.peer.cpu, 1),
        "wall_ms": round(1e3 * both.peer.wall, 1),
        "times_faster": round(1 / both.cpu_ratio, 2),
        "times_faster_wall": round(1 / both.wall_ratio, 2),
    }


def main() -> None:
    """All nets; one of them is the claim."""
    warnings.filterwarnings("ignore", module="higher|torchopt|torch")
    torch.set_num_threads(1)
    seen = {name: compared(name) for name in NETS}
    report(
        "one outer step, the hypergradient of 100 inner steps of a net on the digits: 5 times faster than PyTorch's",
        seen[CLAIM][0],
        **{name: more for name, (_, more) in seen.items()},
        versions={name: version(name) for name in ("torch", *LIBRARIES)},
    )


if __name__ == "__main__":
    main()
