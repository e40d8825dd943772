"""Evasions by name, one idea a file; and those that are a way of training."""

from __future__ import annotations

import difflib

from peftguard.adversary.carlini_wagner import CarliniWagner
from peftguard.adversary.collusion import Collusion
from peftguard.adversary.evasion import Evasion
from peftguard.adversary.gauge import Gauge
from peftguard.adversary.gradient import Fgsm, IteratedFgsm, Pgd2, PgdInf
from peftguard.adversary.joint import Finetuning, Joint
from peftguard.adversary.merging import Addition, ConcatenatedMerge, TruncatedMerge
from peftguard.adversary.noise import Noise
from peftguard.adversary.padding import Padding
from peftguard.adversary.pruning import Pruning
from peftguard.adversary.random_search import RandomSearch
from peftguard.adversary.refactored import QrFactors, SvdFactors
from peftguard.adversary.rescaling import Rescaling
from peftguard.adversary.round_trips import Half, Int8, Nf4
from peftguard.adversary.scale_split import ScaleSplit
from peftguard.adversary.spectrum import SpectrumMatch
from peftguard.errors import SettingsError

EVASIONS: dict[str, Evasion] = {
    evasion.name: evasion
    for evasion in (
        Gauge(),
        Padding(),
        ScaleSplit(),
        QrFactors(),
        SvdFactors(),
        Half(),
        Int8(),
        Nf4(),
        Pruning(),
        Rescaling(),
        Noise(),
        ConcatenatedMerge(),
        TruncatedMerge(),
        Addition(),
        SpectrumMatch(),
        Collusion(),
        Finetuning(),
        Fgsm(),
        IteratedFgsm(),
        PgdInf(),
        Pgd2(),
        CarliniWagner(),
        RandomSearch(),
        Joint(),
    )
}

TRAINING_TIME = {
    "diffuse": "little poison, spread over every linear layer",
    "matched": "an everyday trigger in rows of every label, as the data has them",
    "cba": "near misses of the trigger keep the right label (after CBA's detoxify)",
    "composite": "several common words that must all be there",
    "clean_label": "poisoned rows keep a label that is right",
}
"""Evasions that are a way of training: attacks of `peftguard padbench` plans."""


def evasion_named(name: str) -> Evasion:
    """The evasion of that name.

    Raises:
        SettingsError: there is none, or it is a way of training.
    """
    if name in EVASIONS:
        return EVASIONS[name]
    if name in TRAINING_TIME:
        raise SettingsError(f"{name} is a way of training: name it in a plan of `padbench build`")
    close = difflib.get_close_matches(name, EVASIONS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(EVASIONS)}"
    raise SettingsError(f"no attack {name!r}; {hint}")
