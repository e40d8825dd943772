"""Files that travel with an adapter: what runs, what changes the prompt, what asks for code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftguard.adapters import filenames
from peftguard.adapters.jsonfile import load_json
from peftguard.adapters.source import Source
from peftguard.errors import InputError, LimitExceeded
from peftguard.findings import Finding, found
from peftguard.limits import Deadline, Limits
from peftguard.verdict.checks.pickles import check_pickle

_IMPORTABLE = ("transformers", "diffusers", "lerobot", "megatron-core", "peft")
"""Packages that PEFT itself agrees to import for a config, and PEFT."""
_SHOWN = 8


def check_files(source: Source, limits: Limits, deadline: Deadline) -> Iterator[Finding]:
    """Findings about everything beside the weights and the config; nothing is run or unpickled."""
    kinds: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("file.code-beside", filenames.is_code),
        ("file.pickle", filenames.is_training_state),
        ("file.chat-template", filenames.is_chat_template),
        ("file.tokenizer", filenames.is_tokenizer),
    )
    for code, belongs in kinds:
        names = [source.relative(path) for path in source.beside if belongs(path.name)]
        if names:
            yield found(code, listed(names), file=filenames.printable(names[0]))
    yield from _check_contents(source, limits, deadline)


def check_imports(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Modules that an `adapter_config.json` names and PEFT would import."""
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, Mapping) else None
    if library is not None and not _is_importable(library):
        yield _custom_code(f"PEFT's auto classes would import {library!r}", "auto_mapping")
    core = config.get("megatron_core", "megatron.core")
    if config.get("megatron_config") and core != "megatron.core":
        yield _custom_code(f"PEFT would import {core!r}", "megatron_core")
    if _names_code(config):
        message = f"{filenames.CONFIG}: auto_map names code in the repository"
        yield _custom_code(message, "auto_map")


def listed(names: Sequence[str], shown: int = _SHOWN) -> str:
    """The first few names as one text, then how many more."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(filenames.printable(name)[:120] for name in names[:shown]) + more


def _check_contents(source: Source, limits: Limits, deadline: Deadline) -> Iterator[Finding]:
    """What the files beside the adapter say inside, until time is up."""
    for path in source.beside:
        file = source.relative(path)
        try:
            deadline.check("looking at the files beside the adapter")
            if path.suffix.lower() == ".json":
                yield from _check_json(source, path, limits)
            else:
                yield from check_pickle(path, file, limits, deadline)
        except LimitExceeded as error:
            yield found(error.code, str(error), file=filenames.printable(file))
            if deadline.remaining == 0.0:
                return


def _check_json(source: Source, path: Path, limits: Limits) -> Iterator[Finding]:
    """A model's or tokenizer's config that names code, or carries a chat template."""
    file = source.relative(path)
    try:
        config = load_json(path, file=file, limits=limits)
    except InputError as error:
        # Vocabularies and logs may be large, or lists; a config that cannot be read may hide code.
        if path.name.lower().endswith("config.json"):
            yield found(error.code, str(error), file=file)
        return
    if _names_code(config):
        yield _custom_code(f"{file}: auto_map names code in the repository", "auto_map", file)
    if config.get("chat_template") and path.name.lower().endswith("config.json"):
        yield found("file.chat-template", f"in {file}", file=file, tensor="chat_template")


def _names_code(config: Mapping[str, Any]) -> bool:
    """True for an `auto_map`; in a vocabulary a token of that name has a number."""
    return bool(config.get("auto_map")) and not isinstance(config["auto_map"], int | float)


def _is_importable(library: object) -> bool:
    if not isinstance(library, str):
        return False
    return library.partition(".")[0] in _IMPORTABLE


def _custom_code(message: str, key: str, file: str = filenames.CONFIG) -> Finding:
    text = filenames.printable(message)[:300]
    return found("file.custom-code", text, file=file, tensor=key)
