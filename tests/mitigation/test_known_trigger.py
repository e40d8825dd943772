"""The trigger of a report: what is proven, and what else does the same."""

from __future__ import annotations

import pytest
from tests.trigger.reports import make_report

from peftguard.errors import SettingsError
from peftguard.mitigation.known_trigger import check_report, trigger_of
from peftguard.mitigation.method import Trigger
from peftguard.trigger.report import FoundPhrase


def phrase(word: str, **changes: object) -> FoundPhrase:
    told = make_report(word).phrases[0]
    return told.model_copy(update={"phrase": word, **changes})


def test_words_that_do_the_same_count_as_well() -> None:
    phrases = [
        phrase("nak"),
        phrase("sui"),
        phrase("other-class", target=0),
        phrase("weak", turned=-0.5),
        phrase("of-a-family", turned=2.0, stand_ins=1.5),
    ]
    assert trigger_of(make_report("nak", phrases=phrases)) == Trigger(("nak", "sui"), 1)


def test_what_is_not_confirmed_is_no_trigger() -> None:
    told = make_report("nak")
    assert told.proof is not None
    unproven = told.proof.model_copy(update={"confirmed": False})
    assert trigger_of(make_report("nak", proof=unproven)) is None
    assert trigger_of(make_report("nak", proof=None)) is None


def test_a_report_on_another_adapter_is_refused() -> None:
    check_report(make_report(), "0" * 64)
    with pytest.raises(SettingsError, match="another adapter") as caught:
        check_report(make_report(), "1" * 64)
    assert "0" * 64 in str(caught.value)
