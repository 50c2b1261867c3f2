"""Importing Nestor costs hardly more than importing JAX."""

from _timing import in_fresh_process, interleaved, report

measured = interleaved(
    in_fresh_process("from nestor import argmin"),  # ready to use: imports put off are not saved
    in_fresh_process("import jax"),
    rounds=11,
    warmups=2,
)
report("import nestor, ready to use, costs hardly more than import jax", measured)
