"""Data parallel runs on four simulated devices, in a process of their own: JAX counts its devices once."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, re
import jax, jax.numpy as jnp, numpy as np
import nestor
from nestor import Graph, Level

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
assert len(jax.devices()) == 4
x = jax.random.normal(jax.random.key(0), (32, 5))
y = jnp.sin(x @ jnp.arange(5.0))
seen = []


def levels(width=5, size=16, data=None, **options):
    def lower(p, b):
        return jnp.mean((jnp.tanh(b[0] @ p["w"]) - b[1]) ** 2) + jnp.sum(jnp.exp(p["h"]) * p["w"] ** 2)

    def upper(p, b):
        return jnp.mean((jnp.tanh(b[0] @ p["w"]) - b[1]) ** 2)

    return {
        "w": Level(lower, jnp.zeros(5), nestor.sgd(0.1, momentum=0.5), data=data or (x, y), batch_size=size, steps=3,
                   **options),
        "h": Level(upper, jnp.full(5, -2.0), nestor.adam(0.1), data=(x, -y)),
    }


def error(call):
    try:
        call()
    except nestor.BadArgument as error:
        return str(error)
    return "no error"


def apart(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(p) - np.asarray(q)))) for p, q in pairs)


out = {}
one = Graph(levels()).run(5)
four = Graph(levels()).run(5, devices=4)
out["numbers"] = apart((one.params, one.history), (four.params, four.history))
out["moved"] = apart(one.params["w"], jnp.zeros(5))
out["list"] = apart(one.params, Graph(levels()).run(5, devices=jax.devices()[1:3]).params)
out["parts"] = apart(one.params, Graph(levels(accumulate=2)).run(5, devices=4).params)
out["copied"] = [len(four.params["w"].devices()), four.params["w"].sharding.is_fully_replicated]
there = jax.device_put((x, y), jax.devices()[2])
out["placed"] = apart(one.params, Graph(levels(data=there)).run(5, devices=4).params)

# what each device computes: the rows of a batch that it has
from nestor.levels._driver import Settings, _planned
from nestor.levels._run import compiled


def rows_per_device(devices, **options):
    graph = Graph(levels(**options))
    plain = dict(method=None, validation=None, validate_every=None, patience=None, callback=None, report_every=None,
                 progress=False, logger=None, checkpoint=None, checkpoint_every=None, raise_on_failure=True)
    plan, inputs = _planned("", graph._prepared, None, 5, None, Settings(devices=devices, **plain))
    begin, stretch = compiled(plan)
    text = stretch.lower(inputs, *begin(inputs), jnp.int32(5)).compile().as_text()
    return sorted({int(n) for n in re.findall(r"f64\\[(\\d+)\\]\\S* tanh\\(", text)}), "all-reduce" in text


out["rows one"] = rows_per_device(None)
out["rows four"] = rows_per_device(4)
out["rows parts"] = rows_per_device(4, accumulate=2)

out["uneven"] = error(lambda: Graph(levels(size=10)).run(2, devices=4))
even = lambda t: (x[:8], y[:8])
uneven = lambda t: (x[:6], y[:6])
out["function"] = apart(Graph(levels(size=None, data=even)).run(2).params,
                        Graph(levels(size=None, data=even)).run(2, devices=4).params)
out["uneven function"] = error(lambda: Graph(levels(size=None, data=uneven)).run(2, devices=4))
out["uneven parts"] = error(lambda: Graph(levels(size=8, accumulate=4)).run(2, devices=4))
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def found():
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_numbers_are_those_of_one_device(found):
    assert found["moved"] > 0.1
    for name in ("numbers", "list", "parts", "placed", "function"):
        assert found[name] < 1e-6, name
    assert found["copied"] == [4, True]


def test_every_device_has_its_rows_of_a_batch(found):
    """16 rows below and 32 above; in two parts, 8 below. The gradients are summed over the devices."""
    assert found["rows one"] == [[16, 32], False]
    assert found["rows four"] == [[4, 8], True]
    assert found["rows parts"] == [[2, 8], True]


def test_a_batch_that_devices_cannot_share_is_refused(found):
    for name, size in {"uneven": 10, "uneven function": 6, "uneven parts": 2}.items():
        first, second, *_ = [*found[name].splitlines(), ""]
        assert first.startswith("Graph.run: argument 'devices' is 4"), found[name]
        assert f'level "w" is {size}' in first
        assert "multiple of the number of devices" in second
