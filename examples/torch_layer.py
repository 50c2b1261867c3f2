"""An argmin inside a PyTorch module, trained end to end: signals cleaned by a penalty that is learned.

The module cleans a noisy signal x by minimizing ½|y - x|² + sum of w_k sqrt((D y)_k² + e²), D all first and
second differences: a smoothed total variation. Its 127 + 126 strengths w and the rounding e are PyTorch
parameters; the minimizer is a layer of Nestor, and Adam finds them by gradients through it (cf. Kunisch and
Pock 2013). Two peers: the best single strength for first differences, and a small convolutional network, trained
with the same optimizer on the same data.

    pip install 'nestor[torch]' && python torch_layer.py [--quick]
"""

import json
import sys

import jax.numpy as jnp
import torch

import nestor

QUICK = "--quick" in sys.argv
N, STEPS = (128, 4) if QUICK else (128, 150)
torch.manual_seed(0)


def signals(count):
    """Steps on a slope that begin in the second half only, and the same with noise."""
    t = torch.linspace(0, 1, N)
    jumps = 0.5 + 0.5 * torch.rand(count, 3, 1)
    heights = torch.randn(count, 3, 1)
    clean = (heights * (t > jumps)).sum(1) + 2 * torch.randn(count, 1) * t
    return clean, clean + 0.25 * torch.randn(count, N)


def cleaned(noisy, strengths, rounding):
    """The minimizer for one signal: a function of JAX."""

    def objective(y):
        first = jnp.diff(y)
        parts = jnp.concatenate([first, jnp.diff(first)])
        return jnp.sum((y - noisy) ** 2) / 2 + jnp.sum(strengths * jnp.sqrt(parts**2 + rounding**2))

    return nestor.argmin(objective, noisy, solver=nestor.LBFGS(), tol=1e-4)


class Cleaner(torch.nn.Module):
    """The strengths of the penalties are parameters, the minimization is a layer, lanes are a batch."""

    def __init__(self):
        super().__init__()
        self.log_strengths = torch.nn.Parameter(torch.full((2 * N - 3,), -2.0))
        self.log_rounding = torch.nn.Parameter(torch.tensor(-3.0))
        self.solve = torch.func.vmap(nestor.torch.layer(cleaned), in_dims=(0, None, None))

    def forward(self, noisy):
        return self.solve(noisy, self.log_strengths.exp(), self.log_rounding.exp())


def trained(model, rate):
    """The mean square error on new signals after training on others."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(STEPS):
        clean, noisy = signals(32)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(noisy), clean).backward()
        optimizer.step()
