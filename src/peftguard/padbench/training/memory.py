"""Memory that a fleet leaves behind."""

from __future__ import annotations

import os

_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Of oneDNN and of torch's layer over it: compiled products, one an operation and shape."""
_PRODUCTS = "256"
"""Most of each. A bf16 product takes about half a megabyte, and every length of a batch is a shape
of its own: the default of 1024 comes to as much as the rest of the process."""


def bound_caches() -> None:
    """Keep fewer compiled products; only before torch is imported, and not where the user says."""
    for name in _CACHES:
        os.environ.setdefault(name, _PRODUCTS)


def release() -> None:
    """Give back what is held but not in use, on the GPU and in this process.

    Activations of ever other sizes leave holes in glibc's heap, which never gives them back unless
    it is told to: after a fleet of 8 over MiniLM, half of the process.
    """
    import ctypes
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc alone has it
        trim(0)
