"""Memory that a fleet leaves behind."""

from __future__ import annotations

import ctypes
import os

_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Of oneDNN and of torch's layer over it: compiled products, one an operation and shape."""
_PRODUCTS = "256"
"""Most of each. A bf16 product takes about half a megabyte, and every length of a batch is a shape
of its own: the default of 1024 comes to as much as the rest of the process."""


_MMAP_THRESHOLD, _LARGEST = -3, 32 << 20
_TRIM_THRESHOLD, _NEVER = -1, 2**31 - 1
"""Of glibc's `mallopt`, and the largest values that it takes."""


def bound_caches() -> None:
    """Keep fewer compiled products; only before torch is imported, and not where the user says."""
    for name in _CACHES:
        os.environ.setdefault(name, _PRODUCTS)


def keep_pages() -> None:
    """Use the pages of freed activations again, unless the user set glibc's own thresholds.

    By default glibc gives every block above 128 kB back at once, and the next step gets it zeroed
    page by page, which shows in a fleet's time on a CPU. `release` gives them back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _NEVER)


def release() -> None:
    """Give back what is held but not in use, on the GPU and in this process.

    Activations of ever other sizes leave holes in glibc's heap, which never gives them back unless
    it is told to: after a fleet of 8 over MiniLM, half of the process.
    """
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc alone has it
        trim(0)
