"""Importing Nestor costs hardly more than importing JAX.

Both are byte-compiled first, as pip leaves every package that it installs: where Python may not write byte code
(PYTHONDONTWRITEBYTECODE), an editable install would be compiled anew at every start.
"""

import compileall
import pathlib

from _timing import in_fresh_process, interleaved, report

import nestor

if nestor.__file__ is not None:
    compileall.compile_dir(pathlib.Path(nestor.__file__).parent, quiet=2)
the_peer = in_fresh_process("import jax")
measured = interleaved(in_fresh_process("import nestor"), the_peer, rounds=11, warmups=2)
argmin = interleaved(in_fresh_process("from nestor import argmin"), the_peer, rounds=11, warmups=2)
minimize = interleaved(in_fresh_process("from nestor import minimize"), the_peer, rounds=11, warmups=2)
report(
    "import nestor costs at most 1.25 times import jax",
    measured,
    argmin_at_hand=argmin.cpu_ratio,  # JAX included: rooms put off are not saved
    minimize_at_hand=minimize.cpu_ratio,
)
