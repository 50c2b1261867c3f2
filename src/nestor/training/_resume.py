"""Runs that are saved as they go, and resumed: the same numbers as a run that was never interrupted.

A run with a checkpoint file is made in stretches by one compiled program, whatever the stretch; so an
interruption changes nothing about the numbers. A file is written beside and then moved into place.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nestor.errors import BadArgument
from nestor.programs import Watcher, registered
from nestor.solution import Status
from nestor.training._run import Inputs, Plan, pieces, stretch_map
from nestor.training._watching import Watch

Tree = Any


def run(plan: Plan, inputs: Inputs, watcher: Watcher | None, settings: Any) -> Any:
    """The whole run, or the rest of it."""
    path = Path(settings.checkpoint)
    every = settings.checkpoint_every or max(1, plan.steps // 10)
    begin, stretch, read = stretch_map(plan._replace(adjoint=None))
    sign = _signature(plan, inputs)
    with registered(watcher) as number:
        inputs = inputs._replace(watcher=jnp.int32(number))
        carry, rows = begin(inputs)
        if path.exists():
            carry, rows = load_state("train", path, sign, (carry, rows))
            carry = carry._replace(watch=_going_on(carry.watch))
        while int(carry.watch.code) == int(Status.RUNNING) and int(carry.t) < plan.steps:
            until = min(plan.steps, (int(carry.t) // every + 1) * every)
            carry, rows = jax.block_until_ready(stretch(inputs, carry, rows, jnp.int32(until)))
            save_state(path, sign, (carry, rows))
    return read(inputs, carry, rows)


def _going_on(watch: Watch) -> Watch:
    """A run that its callback ended, or an exception in it, goes on from where it was."""
    stopped = watch.code == int(Status.STOPPED)
    return watch._replace(code=jnp.where(stopped, jnp.int32(int(Status.RUNNING)), watch.code))


def _signature(plan: Plan, inputs: Inputs) -> str:
    loop = pieces(plan._replace(reports=0, adjoint=None))[0]
    facts = (plan.steps, plan.clip, plan.every, plan.patience, plan.stagnation)
    return signature(
        lambda i: loop.turn(i, loop.start(i)),
        (*facts, plan.batches.rows, plan.batches.size, plan.batches.shuffle),
        inputs._replace(watcher=jnp.int32(0)),
    )


def signature(step: Any, facts: Any, inputs: Tree) -> str:
    """A digest of what a saved run must agree with.

    Args:
        step: inputs -> anything; its traced program counts.
        facts: anything whose `repr` counts.
        inputs: a tree of arrays and random keys, each by value.
    """
    digest = hashlib.sha256()
    program = str(jax.make_jaxpr(lambda i: step(i))(inputs))
    digest.update(re.sub("0x[0-9a-f]+", "", program).encode())
    digest.update(repr(facts).encode())
    digest.update(str(jax.tree.structure(inputs)).encode())
    for leaf in jax.tree.leaves(inputs):
        array = np.asarray(_plain(leaf))
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_state(path: Path, sign: str, tree: Tree) -> None:
    """Write the leaves of a tree to a file, beside it first: an interruption leaves the old file or the new.

    Args:
        path: the file; its folder is made if need be.
        sign: what `load_state` must be given again, a digest of all that the numbers depend on.
        tree: arrays, numbers and random keys.
    """
    arrays = {f"leaf{i}": np.asarray(_plain(leaf)) for i, leaf in enumerate(jax.tree.leaves(tree))}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, sign=np.asarray(sign), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def load_state(where: str, path: Path, sign: str, like: Tree) -> Tree:
    """The tree that `save_state` wrote.

    Args:
        where: the public function, for messages; its argument is called `checkpoint`.
        path: the file.
        sign: as it was saved with.
        like: a tree of the same structure, dtypes and kinds of keys.

    Raises:
        BadArgument: the file is another run's, or no such file at all.
    """
    leaves, structure = jax.tree.flatten(like)
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["sign"]) != sign:
                raise ValueError("it was saved by a run with other data, settings or start")
            arrays = [_as_it_was(saved[f"leaf{i}"], leaf) for i, leaf in enumerate(leaves)]
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise BadArgument(
            where,
            "checkpoint",
            got=f"{str(path)!r}, which cannot be resumed ({error})",
            want="a file that this very run saved, or one that is not there yet",
            do="pass another file name, or remove that file to start anew",
        ) from error
    return jax.tree.unflatten(structure, arrays)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> Any:
    """A leaf as NumPy can write it: of a random key its words."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _as_it_was(array: np.ndarray, like: Any) -> jax.Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return jnp.asarray(array.view(jnp.asarray(like).dtype))  # NumPy's files do not know bfloat16
