"""Importing `nestor.search`, which every worker does: without JAX, in less than a quarter of a second after NumPy."""

import subprocess
import sys

from _search import as_line, optuna_or_exit
from _timing import in_fresh_process, interleaved

optuna_or_exit()
alone = in_fresh_process("import numpy")
ours = interleaved(in_fresh_process("import numpy, nestor.search"), alone, rounds=9)
theirs = interleaved(in_fresh_process("import numpy, optuna"), alone, rounds=9)
code = "import sys, nestor.search; print('jax' in sys.modules)"
jax = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
as_line(
    "import nestor.search takes less than 0.25 s of CPU beyond NumPy's, and no JAX (peer: Optuna)",
    ours.ours.cpu - ours.peer.cpu,
    theirs.ours.cpu - theirs.peer.cpu,
    unit="CPU s",
    wall_ours=round(ours.ours.wall - ours.peer.wall, 4),
    wall_peer=round(theirs.ours.wall - theirs.peer.wall, 4),
    jax_is_imported=jax,
)
