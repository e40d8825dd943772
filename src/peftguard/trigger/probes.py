"""Rewriting probes: text in another style or shape, by rules that a TOML file declares.

The rules of a probe apply in this order; every choice is drawn from the generator given.

    words        whole words swapped, their case kept; an empty value drops the word
    marks        punctuation marks swapped, wherever they stand
    end          what the sentence ends with instead of its own final marks
    templates    one is drawn: {text}, {text_lower} (first letter lowered), {bare} and {bare_lower}
                 (without final marks), {first} and {rest} (halves, split at the first comma or in
                 the middle), {clause} and {Clause} (one of `clauses`, as written or capitalised)
    open, close  one of each is put before and after, with a space; after an opening that does not
                 end a sentence the first letter is lowered
    case         upper, lower or title, over the whole
"""

from __future__ import annotations

import random
import re
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from peftguard.adapters.filenames import printable
from peftguard.errors import MalformedFile, SettingsError
from peftguard.trigger.neutral import user_text

# Spaces too, for a sentence that has one before its stop.
FINAL_MARKS = ".!?… "
STOPS = (".", "!", "?", ":", ">")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]{0,16})\}")
_PLACES = frozenset({"text", "text_lower", "bare", "bare_lower", "first", "rest"})
_CLAUSES = frozenset({"clause", "Clause"})
# A word with its apostrophes, but no name of a user or a hashtag.
_WORD = re.compile(r"(?<![@#\w'\u2019])[^\W\d_]++(?:['\u2019][^\W\d_]++)*+")
Line = Annotated[str, Field(min_length=1, max_length=1000)]
Swap = Annotated[str, Field(max_length=1000)]


class Probe(BaseModel):
    """One way to rewrite any sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,39}$", description="Short name, in reports.")
    kind: Literal["style", "syntax", "format", "register"] = Field(description="Sort of rewriting.")
    what: str = Field(min_length=1, max_length=100, description="One line for reports.")
    words: dict[str, Swap] = Field({}, description="Lower-case words, and what replaces them.")
    marks: dict[str, Swap] = Field({}, description="Single punctuation marks and replacements.")
    end: Swap | None = Field(None, description="Replaces the final marks; added where none are.")
    clauses: tuple[Line, ...] = Field((), description="What {clause} is drawn from.")
    templates: tuple[Line, ...] = Field((), description="Shapes; one is drawn.")
    open: tuple[Line, ...] = Field((), description="Openings; one is drawn.")
    close: tuple[Line, ...] = Field((), description="Endings; one is drawn.")
    case: Literal["upper", "lower", "title"] | None = Field(None, description="Case of it all.")

    @model_validator(mode="after")
    def _rules_fit(self) -> Self:
        rules = (self.words, self.marks, self.templates, self.open, self.close, self.case)
        if not any(rules) and self.end is None:
            raise ValueError("a probe needs at least one rule")
        for template in self.templates:
            self._check_template(template)
        for word in self.words:
            if word != word.lower() or not _WORD.fullmatch(word):
                raise ValueError(f"words: {word!r} is not one lower-case word")
        for mark in self.marks:
            if len(mark) != 1 or mark.isalnum() or mark.isspace():
                raise ValueError(f"marks: {mark!r} is not one punctuation mark")
        return self

    def _check_template(self, template: str) -> None:
        places = set(_PLACEHOLDER.findall(template))
        if unknown := places - _PLACES - _CLAUSES:
            raise ValueError(f"templates: {{{min(unknown)}}} is no placeholder")
        if not places & _PLACES:
            raise ValueError(f"templates: {template!r} leaves the text out")
        if places & _CLAUSES and not self.clauses:
            raise ValueError(f"templates: {template!r} needs `clauses`")


class _ProbeFile(BaseModel):
    """A file of `[[probe]]` tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    probe: tuple[Probe, ...]


def read_probes(path: Path | None = None) -> tuple[Probe, ...]:
    """The probes that ship, then those of a user's file; a name of theirs replaces ours.

    Raises:
        TargetNotFound: the file cannot be opened.
        MalformedFile: it is not a plain file, not UTF-8 or not TOML.
        LimitExceeded: it is too large.
        SettingsError: a probe breaks a rule; the message names the file, the probe and the key.
    """
    probes = {probe.name: probe for probe in _shipped()}
    if path is not None:
        probes |= {probe.name: probe for probe in _parsed(user_text(path), printable(path.name))}
    return tuple(probes.values())


def rewritten(text: str, probe: Probe, rng: random.Random) -> str:
    """`text` (not blank) as `probe` has it; equal generators give equal results."""
    result = _with_words(text, probe.words)
    result = "".join(probe.marks.get(character, character) for character in result)
    if probe.end is not None:
        result = result.rstrip(FINAL_MARKS) + probe.end
    if probe.templates:
        result = _shaped(result, rng.choice(probe.templates), probe.clauses, rng)
    if probe.open:
        result = _opened(rng.choice(probe.open), result)
    if probe.close:
        result = f"{result} {rng.choice(probe.close)}"
    return _in_case(result, probe.case)


def _with_words(text: str, words: dict[str, str]) -> str:
    if not words:
        return text
    swapped = _WORD.sub(lambda found: _swapped(found[0], words), text)
    # Where a word was dropped, two spaces are left.
    result = " ".join(swapped.split()) or text
    return _capital(result) if text[:1].isupper() else result


def _swapped(word: str, words: dict[str, str]) -> str:
    swap = words.get(word.lower(), word)
    if word.isupper() and len(word) > 1:
        return swap.upper()
    # `I` is a capital everywhere; the start of the sentence is seen to afterwards.
    return _capital(swap) if word[0].isupper() and word != "I" else swap


def _opened(opening: str, text: str) -> str:
    return f"{opening} {text if opening.endswith(STOPS) else _lowered(text)}"


def _in_case(text: str, case: str | None) -> str:
    match case:
        case "upper":
            return text.upper()
        case "lower":
            return text.lower()
        case "title":
            return re.sub(r"(?<!\S)\S", lambda found: found[0].upper(), text)
    return text


def _shaped(text: str, template: str, clauses: tuple[str, ...], rng: random.Random) -> str:
    clause = rng.choice(clauses) if clauses else ""
    first, rest = _halves(text)
    lowered = _lowered(text)
    fills = {
        "text": text,
        "text_lower": lowered,
        "bare": text.rstrip(FINAL_MARKS),
        "bare_lower": lowered.rstrip(FINAL_MARKS),
        "first": first,
        "rest": rest,
        "clause": clause,
        "Clause": _capital(clause),
    }
    return _PLACEHOLDER.sub(lambda found: fills[found[1]], template).strip()


def _halves(text: str) -> tuple[str, str]:
    first, _, rest = (part.strip() for part in text.partition(","))
    if first and rest:
        return first, rest
    words = text.split()
    middle = (len(words) + 1) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lowered(text: str) -> str:
    """With a small first letter, unless the first word is `I` or an abbreviation."""
    found = _WORD.match(text)
    first = re.split(r"['\u2019]", found[0])[0] if found else ""
    stays = first == "I" or (len(first) > 1 and first.isupper())
    return text if stays else text[:1].lower() + text[1:]


@cache
def _shipped() -> tuple[Probe, ...]:
    name = "probes.toml"
    return _parsed((files(__package__) / "texts" / name).read_text("utf-8"), name)


def _parsed(text: str, file: str) -> tuple[Probe, ...]:
    try:
        probes = _ProbeFile.model_validate(tomllib.loads(text)).probe
    except ValidationError as error:
        raise SettingsError(f"{file}: {_explain(error)}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"not TOML: {error}", file=file) from None
    names = [probe.name for probe in probes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"{file}: probe: the name {min(twice)!r} comes twice")
    return probes


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
    return f"{printable(key)}: {first['msg'].removeprefix('Value error, ')}"
