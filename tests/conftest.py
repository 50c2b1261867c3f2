"""Strict numerics for every test; one thread a worker when there are several workers."""

import gc
import importlib.metadata
import os
import shutil
from pathlib import Path

flags = os.environ.get("XLA_FLAGS", "")
if importlib.metadata.version("jaxlib").startswith("0.10."):  # XLA dies of a flag that it does not know
    # The older code generator compiles small programs in two thirds of the time.
    flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy's BLAS and XLA start: both read these once
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"):
        os.environ.setdefault(name, "1")
    flags += " --xla_cpu_multi_thread_eigen=false"
os.environ["XLA_FLAGS"] = flags.strip()
os.environ.setdefault("MPLBACKEND", "Agg")
# What one process compiles, the others (workers, examples, demos) and the next run of the tests find on disk.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# JAX writes an entry in place, and a process that reads it half written says so and compiles: the examples too
# may do that quietly (for pytest itself: `filterwarnings` in pyproject.toml).
os.environ.setdefault("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry:UserWarning")

import jax  # noqa: E402  (the flags above are read when it is imported)
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)  # tests compile far longer than they compute
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing allocates millions of objects that live as long as a program; looking through them again and again for
# garbage was a fifth of the time of the tests. It is done between files.
gc.collect()
gc.freeze()
gc.set_threshold(200_000, 20, 100)

_MOST_DISK = 2**30  # bytes of compiled programs that are kept for the next run
_MOST_MEMORY = 4 * 2**30  # bytes of a process, before what it compiled is forgotten


def pytest_configure() -> None:
    """Compiled programs of old versions of the code do not pile up."""
    kept = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    if alone and sum(entry.stat().st_size for entry in kept.glob("*")) > _MOST_DISK:
        shutil.rmtree(kept)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last test of a file (in this process)."""
    if nextitem is None or nextitem.path != item.path:
        if _memory() > _MOST_MEMORY:
            jax.clear_caches()
        gc.collect()


def _memory() -> int:
    """The bytes that this process holds; where the system does not say, too many."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _MOST_MEMORY + 1
    return pages * os.sysconf("SC_PAGE_SIZE")
