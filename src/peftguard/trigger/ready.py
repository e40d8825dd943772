"""Whether a base model can be searched on at all: asked before anything large is read."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from peftguard.errors import MissingExtra, SettingsError

_RUN = ("bert", "llama")
"""Families of base models that texts can be run on."""


def check_ready(base: str) -> None:
    """Fail early and plainly.

    Raises:
        MissingExtra: torch or transformers is absent.
        SettingsError: there is no such base model, or it is of a kind that is not known here.
        InputError: its config is broken.
    """
    from peftguard.padbench.bases import base_named

    if any(find_spec(name) is None for name in ("torch", "transformers")):
        raise MissingExtra("searching for triggers", "train")
    refuse_file(base)
    family = base_named(base).family
    if family not in _RUN:
        kinds = " and ".join(_RUN)
        raise SettingsError(f"{base}: of {family}'s kind; texts are run on the kinds {kinds} alone")
    # Ours is shown. Bars that transformers draws with tqdm itself are off where this is set first.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()


def refuse_file(base: str) -> None:
    """Raise SettingsError for a file, which would be taken for a hub id, and for nothing at all."""
    from peftguard.padbench.bases import BASES

    if not base or os.path.isfile(base):
        known = ", ".join(BASES)
        raise SettingsError(
            f"no base model {base!r}; expected its folder, a hub id, or one of {known}"
        )


def on_this_machine(base: str) -> str:
    """A base model by a name that is found without the network: its own, or its folder's.

    Raises:
        MissingExtra: a hub id, and huggingface_hub is absent.
        SettingsError: neither a package, a folder nor the hub's cache has it.
    """
    from peftguard.padbench.bases import hub_id_of, packaged

    hub_id = hub_id_of(base)
    if packaged(hub_id) is not None or Path(base).is_dir():
        return base
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtra("taking a base model from the hub's cache", "train") from None
    try:
        return str(snapshot_download(hub_id, local_files_only=True))
    except Exception:  # the client raises errors of several libraries
        problem = "offline, and no package, folder or hub cache on this machine has this base model"
        raise SettingsError(f"{base}: {problem}") from None
