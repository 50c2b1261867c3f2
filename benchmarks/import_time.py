"""Importing Nestor costs hardly more than importing JAX."""

from _timing import in_fresh_process, interleaved, report

the_peer = in_fresh_process("import jax")
measured = interleaved(in_fresh_process("import nestor"), the_peer, rounds=11, warmups=2)
ready = interleaved(in_fresh_process("from nestor import argmin"), the_peer, rounds=11, warmups=2)
report(
    "import nestor costs at most 1.25 times import jax",
    measured,
    ready_to_use_ours=ready.ours.cpu,
    ready_to_use_peer=ready.peer.cpu,
    ready_to_use_ratio=ready.cpu_ratio,  # with `argmin` at hand: rooms put off are not saved
)
