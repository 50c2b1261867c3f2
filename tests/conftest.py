"""Strict numerics for every test; one thread a worker when there are several workers."""

import gc
import importlib.metadata
import os

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

import jax  # noqa: E402  (the flags above are read when it is imported)
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)  # tests compile far longer than they compute
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing allocates millions of objects that live as long as a program; looking through them again and again for
# garbage was a fifth of the time of the tests. It is done between files, where compiled programs are let go too.
gc.collect()
gc.freeze()
gc.set_threshold(200_000, 20, 100)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last test of a file (in this process): what it compiled is forgotten."""
    if nextitem is None or nextitem.path != item.path:
        jax.clear_caches()
        gc.collect()
