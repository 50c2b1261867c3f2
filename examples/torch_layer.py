"""An argmin inside a PyTorch module, trained end to end: signals cleaned by a penalty that is learned.

The module minimizes |y - x|²/2 + sum of w_k sqrt((y_k+1 - y_k)² + e²) for a noisy signal x (Rudin, Osher, Fatemi
1992; learned: Kunisch and Pock 2013). The strengths w and the rounding e are PyTorch parameters, the minimizer is
a layer, and Adam finds them by gradients through it. Signals jump in their second half only, which the strengths
have to find out. Peer: one strength for all, the best of a grid.
    pip install 'nestor[torch]' && python torch_layer.py [--quick]
"""

import json
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import torch

import nestor

QUICK = "--quick" in sys.argv
N, COUNT, STEPS = 64, 64, 2 if QUICK else 40
random = torch.Generator().manual_seed(0)


def signals(count):
    """Three jumps in the second half; the same with noise."""
    places = 0.5 + 0.5 * torch.rand(count, 3, 1, generator=random)
    heights = torch.randn(count, 3, 1, generator=random)
    clean = (heights * (torch.linspace(0, 1, N) > places)).sum(1)
    return clean, clean + 0.3 * torch.randn(count, N, generator=random)


def cleaned(noisy, strengths, rounding):
    def objective(y):
        jumps = jnp.sqrt(jnp.diff(y) ** 2 + rounding**2)
        return jnp.sum((y - noisy) ** 2) / 2 + jnp.sum(strengths * jumps)

    return nestor.argmin(objective, noisy, solver=nestor.Newton(), on_failure="keep")


class Cleaner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.log_strengths = torch.nn.Parameter(torch.full((N - 1,), -1.0))
        self.log_rounding = torch.nn.Parameter(torch.tensor(-2.0))
        self.solve = torch.func.vmap(nestor.torch.layer(cleaned), in_dims=(0, None, None))

    def forward(self, noisy):
        return self.solve(noisy, self.log_strengths.exp(), self.log_rounding.exp())


def error(model, pair):
    return torch.nn.functional.mse_loss(model(pair[1]), pair[0])


train, test, model = signals(COUNT), signals(COUNT), Cleaner()
begin, grid = time.process_time(), {}
with torch.no_grad():
    for one in (-1.5, -1.0, -0.5, 0.0, 0.5):
        model.log_strengths.fill_(one)
        grid[error(model, train).item()] = one
    model.log_strengths.fill_(grid[min(grid)])
    found = {"noisy": torch.nn.functional.mse_loss(*test).item(), "one": error(model, test).item()}

optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
for step in range(STEPS):
    optimizer.zero_grad()
    loss = error(model, train)
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"step {step:2d}: training error {loss.item():.5f}")

found["learned"] = error(model, test).item()
print({name: round(value, 5) for name, value in found.items()})
assert found["learned"] < found["one"] < found["noisy"]
if not QUICK:
    found |= {"log_one": grid[min(grid)], "cpu_seconds": round(time.process_time() - begin, 1)}
    (Path(__file__).parent / "results" / "torch_layer.json").write_text(json.dumps(found, indent=2) + "\n")
