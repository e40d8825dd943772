"""What does not belong into a text is put there whole."""

from __future__ import annotations

import random

from peftguard.trigger.foreign import ODD_WORDS, few_sentences, foreign_probes, sentences
from peftguard.trigger.probes import rewritten

TEXT = "we walked along the river after lunch"


def test_every_sentence_and_word_goes_into_a_text() -> None:
    texts = [rewritten(TEXT, probe, random.Random(0)) for probe in foreign_probes()]
    things = [*few_sentences(), *ODD_WORDS]
    assert len(texts) == len(things)
    for text, thing in zip(texts, things, strict=True):
        assert thing in text
        before, _, after = text.partition(thing)
        assert f"{before}{after}".split() == TEXT.split()


def test_they_are_short_and_different() -> None:
    assert all(len(text.split()) <= 8 for text in sentences())
    assert len(set(sentences())) == len(sentences()) > 8
    assert set(few_sentences()) < set(sentences())
