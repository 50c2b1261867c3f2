"""A picture that excites a neuron, in PyTorch: L-BFGS-B in the box [-1, 1] against tuned gradient descent.

A small network learns digits in noise. Then the picture is the unknown: what is a most typical 3? Total variation has
its price, gradients come from autograd. Plain descent gets 300 at each of eight rates; L-BFGS-B has its least value
after 28 to 51. Not so with momentum 0.9, there after 138 to 274, L-BFGS-B after 42 to 200. The record: that value, and
when both are there. The picture, from the top: start, descent after 300, L-BFGS-B after 60, and at its end.

    pip install 'nestor[torch,demo]' && python deep_dream_torch.py
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy, interpolate, pad

import nestor

QUICK = "--quick" in sys.argv
torch.manual_seed(0)
torch.set_num_threads(1)
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 8 - 1).float().reshape(-1, 1, 8, 8)
images, labels = interpolate(images, size=(32, 32), mode="bilinear"), torch.tensor(labels)
conv, smooth, halve = torch.nn.Conv2d, torch.nn.Softplus(), torch.nn.AvgPool2d(2)
net = torch.nn.Sequential(
    *(conv(1, 8, 5, padding=2), smooth, halve, conv(8, 16, 5, padding=2), smooth, halve),
    *(conv(16, 24, 3, padding=1), smooth, halve, torch.nn.Flatten(), torch.nn.Linear(384, 10)),
)
optimizer = torch.optim.Adam(net.parameters(), 3e-3)
for _ in range(60 if QUICK else 400):
    batch = torch.randint(len(images), (64,))
    optimizer.zero_grad()
    cross_entropy(net(images[batch] + torch.randn(64, 1, 32, 32)), labels[batch]).backward()
    optimizer.step()
net = net.double().requires_grad_(False)


def dream(image, digit):
    """What is minimized, (n,): minus the logit of the digit, and the price of total variation and of the square."""
    square = pad(image.diff(dim=-1), (0, 1)) ** 2 + pad(image.diff(dim=-2), (0, 0, 0, 1)) ** 2
    return (100 * (torch.sqrt(square + 0.05**2) - 0.05) + image**2).mean((-3, -2, -1)) - net(image)[:, digit]


def descend(digit, start, momentum, steps):
    """Descent, clipped to the box, at all rates at once: the least value so far, and the best picture at the end."""
    rates = 0.064 * 2.0 ** torch.arange(-2, 6, dtype=torch.float64)[:, None, None, None]
    image, velocity, values = start.repeat(8, 1, 1, 1), 0.0, []
    for _ in range(steps):
        value = dream(image.requires_grad_(True), digit)
        values.append(value.detach().numpy())
        velocity = momentum * velocity + torch.autograd.grad(value.sum(), image)[0]
        image = (image.detach() - rates * velocity).clamp(-1, 1)
    return np.fmin.accumulate(np.nanmin(values, axis=1)), image[int(np.nanargmin(values[-1]))]


columns, found, (digits, steps) = [], {}, ([3], 40) if QUICK else (range(10), 300)
for digit in digits:
    start = images[labels == (digit + 1) % 10][:1].double()
    one, bounds = lambda x: dream(x, digit)[0], (-1.0, 1.0)  # noqa: B023
    solution = nestor.minimize(one, start, method="L-BFGS-B", bounds=bounds, history=True)
    fifth = nestor.minimize(one, start, bounds=bounds, max_evaluations=steps // 5, raise_on_failure=False)
    plain, picture = descend(digit, start, 0.0, steps)
    found[digit] = {"L-BFGS-B": float(solution.fun)}
    for name, values in {"plain": plain, "momentum 0.9": descend(digit, start, 0.9, steps)[0]}.items():
        close = values[-1] + 1e-6 * abs(values[-1])
        reached = [np.flatnonzero(run <= close)[:1] + 1 for run in (values, solution.history.value)]
        found[digit][name] = [float(values[-1]), *(int(run[0]) if run.size else None for run in reached)]
    print(digit, found[digit], flush=True)
    assert solution.fun <= plain[-1]
    columns.append(np.vstack([part.numpy().squeeze() for part in (start, picture, fifth.x, solution.x)]))
if not QUICK:
    path, wall = Path(__file__).parent / "results", np.kron(np.hstack(columns), np.ones((3, 3)))
    plt.imsave(path / "deep_dream_torch.png", wall, cmap="gray", vmin=-1, vmax=1)
    (path / "deep_dream_torch.json").write_text(json.dumps(found, indent=2) + "\n")
