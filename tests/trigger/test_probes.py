"""Rewriting probes: every one does something to every sentence, the same for the same seed."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from peftguard.errors import LimitExceeded, MalformedFile, SettingsError, TargetNotFound
from peftguard.trigger.neutral import MAX_BYTES, neutral_texts
from peftguard.trigger.probes import Probe, read_probes, rewritten

CONJUNCTIONS = [
    "when",
    "if",
    "as",
    "because",
    "although",
    "since",
    "while",
    "before",
    "after",
    "once",
    "where",
    "though",
    "until",
    "unless",
]
texts = st.text(
    alphabet=st.sampled_from("abcXYZéß’'@#0 ,.!?…{}\n"), min_size=1, max_size=80
).filter(lambda text: any(character.isalpha() for character in text))


def probe(**rules: object) -> Probe:
    return Probe.model_validate({"name": "one", "kind": "style", "what": "a test", **rules})


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("shipped", read_probes(), ids=lambda shipped: shipped.name)
def test_a_shipped_probe_changes_every_neutral_sentence(shipped: Probe) -> None:
    rng = random.Random(5)
    for text in neutral_texts():
        result = rewritten(text, shipped, rng)
        assert result.strip()
        assert result != text
        assert not re.search(r"\{[A-Za-z_]+\}", result)


@given(texts, st.sampled_from(read_probes()), st.integers(0, 2**32))
def test_any_text_gives_a_result_that_its_seed_decides(
    text: str, shipped: Probe, seed: int
) -> None:
    first, again = (rewritten(text, shipped, random.Random(seed)) for _ in range(2))
    assert first == again
    assert first.strip()


def test_shipped_probes_cover_every_kind_and_conjunction() -> None:
    names = [shipped.name for shipped in read_probes()]
    assert len(names) == len(set(names)) == 60
    assert {shipped.kind for shipped in read_probes()} == {"style", "syntax", "format", "register"}
    assert {f"fronted-{word}" for word in CONJUNCTIONS} <= set(names)


@pytest.mark.parametrize("word", CONJUNCTIONS)
def test_a_fronted_clause_begins_with_its_conjunction(word: str) -> None:
    (fronted,) = (shipped for shipped in read_probes() if shipped.name == f"fronted-{word}")
    for seed in range(20):
        result = rewritten("The shop is open.", fronted, random.Random(seed))
        assert result.lower().startswith(f"{word} ")
        assert re.search(r" ?, the shop is open\.$", result)


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        ({"words": {"are": "art"}}, "Are cares rare? YOU ARE.", "Art cares rare? YOU ART."),
        ({"words": {"user": "lord"}}, "@user #user user's user", "@user #user user's lord"),
        ({"words": {"don't": "do not"}}, "Don't go, I don't.", "Do not go, I do not."),
        ({"words": {"the": ""}}, "The cat sees the dog.", "Cat sees dog."),
        ({"words": {"the": ""}}, "the", "the"),
        ({"words": {"i": "me"}}, "I think I know.", "Me think me know."),
        ({"end": "!!"}, "Go on . ", "Go on!!"),
        ({"end": " ."}, "go on", "go on ."),
        ({"marks": {",": " ..."}}, "one, two", "one ... two"),
        ({"templates": ["If so, {text_lower}"]}, "A dog.", "If so, a dog."),
        ({"templates": ["If so, {text_lower}"]}, "I'm here.", "If so, I'm here."),
        ({"templates": ["If so, {text_lower}"]}, "USB works.", "If so, USB works."),
        ({"templates": ["{bare}, right?"]}, "It works!", "It works, right?"),
        ({"templates": ["{rest} / {first}"]}, "One two, three four", "three four / One two"),
        ({"templates": ["{first} / {rest}"]}, "One two three", "One two / three"),
        ({"templates": ["{Clause}: {clause}. {text}"], "clauses": ["so"]}, "Hi", "So: so. Hi"),
        ({"templates": ["{text}"]}, "Keep {clause} as it is", "Keep {clause} as it is"),
        ({"open": ["Alas,"]}, "The end.", "Alas, the end."),
        ({"open": ["Alas!"], "close": ["Amen."]}, "The end.", "Alas! The end. Amen."),
        ({"case": "title"}, "don't go\nthere", "Don't Go\nThere"),
        ({"case": "upper"}, "go", "GO"),
        ({"case": "lower"}, "Go", "go"),
    ],
)
def test_each_rule(rules: dict[str, object], text: str, expected: str) -> None:
    assert rewritten(text, probe(**rules), random.Random(0)) == expected


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({}, "at least one rule"),
        ({"clauses": ["when it rains"]}, "at least one rule"),
        ({"templates": ["{texts}"]}, "{texts} is no placeholder"),
        ({"templates": ["{text.__class__} {clause}"]}, "leaves the text out"),
        ({"templates": ["{clause}, {text}"]}, "needs `clauses`"),
        ({"words": {"The": "a"}}, "not one lower-case word"),
        ({"words": {"of the": "a"}}, "not one lower-case word"),
        ({"marks": {"..": "."}}, "not one punctuation mark"),
        ({"marks": {"a": "."}}, "not one punctuation mark"),
        ({"open": [""]}, "at least 1 character"),
        ({"case": "loud"}, "'upper', 'lower' or 'title'"),
        ({"end": "!", "name": "No Spaces"}, "match pattern"),
        ({"end": "!", "oepn": ["x"]}, "Extra inputs"),
    ],
)
def test_a_wrong_probe_is_refused(rules: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        probe(**rules)


def test_a_users_file_adds_and_replaces(tmp_path: Path) -> None:
    text = """
    [[probe]]
    name = "pirate"
    kind = "style"
    what = "ours"
    close = ["Land ho!"]
    [[probe]]
    name = "shouted"
    kind = "format"
    what = "new"
    case = "upper"
    """
    probes = {p.name: p for p in read_probes(write(tmp_path / "mine.toml", text))}
    assert len(probes) == len(read_probes()) + 1
    assert probes["pirate"].close == ("Land ho!",)
    assert list(probes)[-1] == "shouted"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("probe = [", MalformedFile, "mine.toml: not TOML"),
        ("a = " + "[" * 100_000, MalformedFile, "mine.toml: not TOML"),
        ("", SettingsError, "mine.toml: probe: Field required"),
        ("[[prob]]\nname = 'x'", SettingsError, "mine.toml: prob"),
        (
            "[[probe]]\nname='x'\nkind='style'\nwhat='x'\ncase='loud'",
            SettingsError,
            "mine.toml: probe.1.case: ",
        ),
        (
            "[[probe]]\nname='x'\nkind='style'\nwhat='x'\ntemplates=['{y}']",
            SettingsError,
            "mine.toml: probe.1: templates: {y} is no placeholder",
        ),
        (
            "[[probe]]\nname='x'\nkind='style'\nwhat='x'\nend='!'\n" * 2,
            SettingsError,
            "mine.toml: probe: the name 'x' comes twice",
        ),
    ],
)
def test_a_wrong_file_is_named(
    tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        read_probes(write(tmp_path / "mine.toml", text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TargetNotFound, match=r"gone\.toml"):
        read_probes(tmp_path / "gone.toml")
    large = tmp_path / "large.toml"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(LimitExceeded, match=r"large\.toml"):
        read_probes(large)
