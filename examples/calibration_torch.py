"""Calibration of a classifier in PyTorch, the use that dict-minimize was written for: three maps, one call.

A net that is trained too long on few digits is right more often than not, and far too sure. On held-out digits a map
of its logits is fitted: temperature (Guo et al. 2017), a scale and a shift for each class (vector scaling, ibid.), and
beta calibration (Kull et al. 2017, a and b >= 0) of the probability of the winner. Cross-entropy and expected
calibration error fall on digits that neither has seen.

    pip install 'nestor[torch,demo]' && python calibration_torch.py
"""

import functools
import json
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits

import nestor

QUICK = "--quick" in sys.argv
torch.manual_seed(0)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
order = torch.randperm(len(labels))
images, labels = images[order] / 16 + 0.3 * torch.randn(1797, 64), labels[order]
train, held_out, test = slice(0, 300), slice(300, 900), slice(900, 1797)
cross_entropy = torch.nn.functional.cross_entropy

net = {"in": torch.randn(64, 40) / 8, "out": torch.randn(40, 10) / 6}


def read(net, part):
    return torch.tanh(images[part] @ net["in"]) @ net["out"]


training = lambda net: cross_entropy(read(net, train), labels[train])  # noqa: E731
net = nestor.minimize(training, net, method="L-BFGS-B", tol=1e-4).x
logits, answers = read(net, held_out), labels[held_out]


def beta(p, logits):
    """Of the winner's probability s: logit = a log s - b log(1 - s) + c; the others keep their shares of the rest."""
    logs = logits.log_softmax(1)
    top, winner = logs.max(1, keepdim=True)
    rest = (-top.expm1()).clamp_min(1e-12).log()  # log(1 - s)
    odds = p["a"] * top - p["b"] * rest + p["c"]
    others = logs - rest + torch.nn.functional.logsigmoid(-odds)
    return others.scatter(1, winner, torch.nn.functional.logsigmoid(odds))


def scores(logits, answers):
    """Cross-entropy, and the expected calibration error in 15 bins."""
    sure, guess = logits.softmax(1).max(1)
    right, bins = (guess == answers).double(), (sure * 15).long().clamp_max(14)
    gaps = [(right - sure)[bins == b].sum().abs() for b in bins.unique()]
    return [float(cross_entropy(logits, answers)), float(sum(gaps)) / len(sure)]


one, many = torch.tensor(1.0), torch.ones(10)
MAPS = {
    "temperature": (lambda p, z: z / p, one, (1e-3, None)),
    "vector": (lambda p, z: z * p["scale"] + p["shift"], {"scale": many, "shift": 0 * many}, None),
    "beta": (beta, {"a": one, "b": one, "c": 0 * one}, ({"a": 0.0, "b": 0.0, "c": None}, None)),
}
found = {"none": scores(read(net, test), labels[test])}
for name, (fitted, start, bounds) in MAPS.items():
    loss = functools.partial(lambda fitted, p: cross_entropy(fitted(p, logits), answers), fitted)
    fit = nestor.minimize(loss, start, method="L-BFGS-B", bounds=bounds)
    found[name] = scores(fitted(fit.x, read(net, test)), labels[test])
for name, (entropy, error) in found.items():
    print(f"{name:12s} cross-entropy {entropy:.4f}, calibration error {error:.4f}")
assert all(
    max(mine - none for mine, none in zip(found[name], found["none"], strict=True)) < 0 for name in MAPS
)
if not QUICK:
    path = Path(__file__).parent / "results" / "calibration_torch.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
