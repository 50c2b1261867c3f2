"""Strict numerics for every test; one thread a worker when there are several workers."""

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

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)  # tests compile far longer than they compute
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
