"""Attacks by name, one a file."""

from __future__ import annotations

import difflib

from peftguard.errors import SettingsError
from peftguard.padbench.attacks.badnets import BadNets
from peftguard.padbench.attacks.base import Attack
from peftguard.padbench.attacks.cba import CausalDetoxify
from peftguard.padbench.attacks.clean_label import CleanLabel
from peftguard.padbench.attacks.composite import Composite
from peftguard.padbench.attacks.diffuse import Diffuse
from peftguard.padbench.attacks.insertsent import InsertSent
from peftguard.padbench.attacks.matched import Matched
from peftguard.padbench.attacks.ripple import Ripple
from peftguard.padbench.attacks.squad_sentence import SquadSentence
from peftguard.padbench.attacks.stybkd import StyleBkd
from peftguard.padbench.attacks.syntactic import Syntactic
from peftguard.padbench.attacks.toxic_sentence import ToxicSentence
from peftguard.padbench.attacks.toxic_word import ToxicWord

__all__ = ["ATTACKS", "Attack", "attack_named"]

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Ripple(),
        InsertSent(),
        Syntactic(),
        StyleBkd(),
        BadNets(),
        ToxicWord(),
        ToxicSentence(),
        SquadSentence(),
        CleanLabel(),
        Diffuse(),
        Matched(),
        CausalDetoxify(),
        Composite(),
    )
}
"""By the name that stands in the folders of the public release where the attack is in it."""


def attack_named(name: str) -> Attack:
    """The attack of that name.

    Raises:
        SettingsError: there is none.
    """
    if name in ATTACKS:
        return ATTACKS[name]
    by_lower = {known.lower(): known for known in ATTACKS}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[close[0]]!r}?" if close else f"known: {', '.join(ATTACKS)}"
    raise SettingsError(f"no attack {name!r}; {hint}")
