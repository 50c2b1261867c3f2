"""Learning to reweight: 1000 digits, 40 % of them with a wrong label, and 100 that are known to be right.

Two levels that move in turns. The lower one trains a net 64-64-10 on the noisy digits, every example with a weight
that a small net reads off its loss, and on the clean ones at a fixed share; the upper one moves that small net down
the loss of the model on the clean digits, through one step of the lower. (Shu et al. 2019, "Meta-Weight-Net".)
Beside it: training on the noisy, the clean, both, both for the best number of steps, and both without the wrong labels
(the oracle). Settings were chosen on seeds 10 to 13; the results are of seeds 0 to 4. The loss that weights are read
off is stopped, which differences of the loss would not see: so SAMA and DARTS have eps=None.

    python reweight.py            writes results/reweight.json
    python reweight.py --quick    one seed, fewer steps, fewer ways
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import nestor
from nestor.schedules import Cosine

QUICK = "--quick" in sys.argv
SEEDS, STEPS = (1, 300) if QUICK else (5, 1000)
ADJOINTS = nestor.SAMA(None), nestor.Unroll(), nestor.DARTS(None), nestor.Implicit(nestor.Neumann(10))
images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)


def log_shares(p, x):
    m = p["model"]
    return jax.nn.log_softmax(jax.nn.relu(x @ m["w1"] + m["b1"]) @ m["w2"] + m["b2"])


def loss(p, batch, weighted=False):
    each = -jnp.sum(jnp.eye(10)[batch[1]] * log_shares(p, batch[0]), axis=1)
    if not weighted:
        return jnp.mean(each)
    seen = jnp.tanh(jax.lax.stop_gradient(each)[:, None] * p["weights"]["a"] + p["weights"]["b"])
    return jnp.sum(jax.nn.softmax(jax.nn.log_sigmoid(seen @ p["weights"]["c"])) * each)  # sigmoids, of sum 1


def experiment(seed):
    """Test accuracy of every way to train."""
    draw = np.random.default_rng(seed)
    (x, y), clean, test = ((images[i], labels[i]) for i in np.split(draw.permutation(1797), [1000, 1100]))
    bad = draw.random(1000) < 0.4
    noisy = np.where(bad, (y + draw.integers(1, 10, 1000)) % 10, y)
    normal = lambda *shape: np.float32(draw.normal(size=shape))  # noqa: E731
    start = {"w1": normal(64, 64) / 6, "b1": jnp.zeros(64), "w2": normal(64, 10) / 8, "b2": jnp.zeros(10)}
    small = {"a": normal(32), "b": normal(32), "c": jnp.zeros(32)}

    def trained(x, y, share=0.3, steps=STEPS, adjoint=None):
        lower = lambda p, batch: loss(p, batch, adjoint is not None) + share * loss(p, clean)  # noqa: E731
        sgd, adam = nestor.sgd(Cosine(0.1, steps), momentum=0.9), nestor.adam(Cosine(0.003, steps))
        model = nestor.Level(lower, start, sgd, data=(x, y), batch_size=min(200, len(y)), adjoint=adjoint)
        upper = {"weights": nestor.Level(loss, small, adam, data=clean)} if adjoint else {}
        found = nestor.Graph({"model": model} | upper).run(steps).params
        return float(np.mean(np.argmax(log_shares(found, test[0]), axis=1) == test[1]))

    ways = {"noisy": (x, noisy, 0.0), "clean": (*clean, 0.0), "both": (x, noisy)}
    ways |= {"both, 150 steps": (x, noisy, 0.3, 150), "oracle": (x[~bad], y[~bad])}
    ways |= {f"reweighted, {type(a).__name__}": (x, noisy, 0.3, STEPS, a) for a in ADJOINTS}
    shown = ("noisy", "clean", "reweighted, SAMA") if QUICK else ways
    return {name: trained(*ways[name]) for name in shown}


begin = time.process_time()
rows = [experiment(seed) for seed in range(SEEDS)]
mean = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}
print(json.dumps(mean, indent=2))
found = {"test_accuracy": mean, "every_seed": rows, "cpu_seconds": round(time.process_time() - begin, 1)}
assert mean["reweighted, SAMA"] > max(mean["noisy"], mean["clean"])
if not QUICK:
    (Path(__file__).parent / "results" / "reweight.json").write_text(json.dumps(found, indent=2) + "\n")
