"""Adapters on the Hugging Face hub: sizes are checked first, then only the adapter's files come.

Nothing in a repository is run, and no file is fetched because another file names it.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from peftguard.adapters import filenames
from peftguard.adapters.source import HubOrigin
from peftguard.errors import InputError, LimitExceeded, MalformedFile, TargetNotFound
from peftguard.findings import Finding, found
from peftguard.limits import GIB, MIB, Limits

_SMALL = MIB
_TIMEOUT_S = 30.0
_PICTURES_AND_PROSE = (
    ".md", ".txt", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".mp4", ".pdf",
    ".gitattributes",
)  # fmt: skip
_PROBLEMS = {
    "RepositoryNotFoundError": "no such repository on the hub, or it is private",
    "GatedRepoError": "the repository is gated: accept its terms and log in with `hf auth login`",
    "DisabledRepoError": "the repository has been disabled",
    "RevisionNotFoundError": "no such revision of this repository",
    "LocalEntryNotFoundError": "not in the local cache, and the hub was not asked",
    "OfflineModeIsEnabled": "not in the local cache, and the hub was not asked",
    "HFValidationError": "not a hub id",
}


class Fetched(NamedTuple):
    """A repository's adapter files on disk, its commit, and what was left on the hub."""

    folder: Path
    origin: HubOrigin
    findings: tuple[Finding, ...] = ()


def fetch_adapter(repo: str, revision: str | None, *, limits: Limits, offline: bool) -> Fetched:
    """Bring an adapter repository into the hub's local cache.

    Args:
        repo: `org/name`.
        revision: branch, tag or commit; None is the default branch.
        limits: `max_file_bytes` bounds each file and all of them together.
        offline: use the cache only; `HF_HUB_OFFLINE` does the same.

    Raises:
        TargetNotFound: no such repository or revision, gated, unreachable, or not in the cache.
        LimitExceeded: its adapter files are too large or too many. Nothing has been fetched.
        MalformedFile: a file name that would leave the folder.
    """
    from huggingface_hub import HfApi, constants

    shown = f"{repo}@{revision}" if revision else repo
    with _translated(shown):
        if offline or constants.HF_HUB_OFFLINE:
            folder = _download(repo, revision, [], local_files_only=True)
            return Fetched(folder, HubOrigin(repo, folder.name))
        info = HfApi().repo_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
        sizes = {file.rfilename: file.size for file in info.siblings or []}
        wanted = _wanted(sizes, limits, shown)
        folder = _download(repo, info.sha, wanted)
        if revision != info.sha:  # notes in the cache which commit this was, for `offline`
            _download(repo, revision, [min(wanted, key=lambda name: sizes[name] or 0)])
    return Fetched(folder, HubOrigin(repo, info.sha), tuple(_left_behind(sizes, wanted)))


def _wanted(sizes: Mapping[str, int | None], limits: Limits, shown: str) -> set[str]:
    """Adapter weights, configs, and every small file that could matter, within the limits."""
    if len(sizes) > limits.max_files:
        raise LimitExceeded(
            "too many files", file=shown, key="max_files", expected=f"at most {limits.max_files}"
        )
    for name in sizes:
        _check_name(name, limits, shown)
    weights = _weights(sizes)
    if not weights:
        raise TargetNotFound("the repository holds no adapter weights", file=shown)
    _check_sizes({name: sizes[name] for name in weights}, limits, shown)
    small = {
        name
        for name, size in sizes.items()
        if size is not None and size <= _SMALL and not name.lower().endswith(_PICTURES_AND_PROSE)
    }
    return weights | small


def _weights(sizes: Mapping[str, int | None]) -> set[str]:
    """By folder: what is called an adapter, without the pickle twin of a safetensors file."""
    named = [(name, PurePosixPath(name).name) for name in sizes]
    weights = {name for name, last in named if filenames.is_main(last) or filenames.is_step(last)}
    weights |= {name for name, last in named if filenames.is_called_adapter(last)}
    if not weights:
        weights = {
            name
            for name, last in named
            if filenames.may_be_adapter(last) and (_is_safe(last) or _fits(sizes[name]))
        }
    stems = {str(PurePosixPath(name).with_suffix("")) for name in weights if _is_safe(name)}
    return {
        name
        for name in weights
        if _is_safe(name) or str(PurePosixPath(name).with_suffix("")) not in stems
    }


def _fits(size: int | None) -> bool:
    """Whole models come as GGUF under any name; what is this small may be an adapter."""
    return size is not None and size <= 2 * GIB


def _is_safe(name: str) -> bool:
    return name.endswith(".safetensors")


def _check_name(name: str, limits: Limits, shown: str) -> None:
    parts = name.split("/")
    bad = not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts)
    if bad or len(name) > limits.max_name_length:
        raise MalformedFile("a file name that cannot be trusted", file=shown, found=name)


def _check_sizes(sizes: Mapping[str, int | None], limits: Limits, shown: str) -> None:
    total = 0
    for name, size in sizes.items():
        total += limits.max_file_bytes + 1 if size is None else size
        if total > limits.max_file_bytes:
            raise LimitExceeded(
                "the adapter files are too large together",
                file=f"{shown}/{name}",
                key="max_file_bytes",
                expected=f"at most {limits.max_file_bytes} bytes",
                found="no size" if size is None else f"{total} bytes or more",
            )


def _left_behind(sizes: Mapping[str, int | None], wanted: set[str]) -> Iterator[Finding]:
    """What lies in the repository and was not fetched, by what it means to whoever loads it."""
    kinds: dict[str, list[str]] = {}
    for name in sizes:
        if name not in wanted and (code := _code_of(PurePosixPath(name).name.lower())):
            kinds.setdefault(code, []).append(name)
    for code, names in kinds.items():
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        yield found(code, f"on the hub, not fetched: {', '.join(names[:8])}{more}", file=names[0])


def _code_of(name: str) -> str | None:
    if filenames.is_training_state(name):
        return "file.pickle"
    if filenames.is_code(name):
        return "file.code-beside"
    if filenames.is_weights(name):
        return "file.unread-weights"
    return "file.tokenizer" if filenames.is_tokenizer(name) else None


def _download(
    repo: str, revision: str | None, names: Iterable[str], *, local_files_only: bool = False
) -> Path:
    """The repository's folder in the cache, once it holds the files `names`."""
    from huggingface_hub import snapshot_download

    with _without_progress_bars():
        folder = snapshot_download(
            repo_id=repo,
            revision=revision,
            allow_patterns=[glob.escape(name) for name in names],
            local_files_only=local_files_only,
        )
    return Path(folder)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from huggingface_hub import utils

    if utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


@contextmanager
def _translated(shown: str) -> Iterator[None]:
    """One sentence for whatever the hub's client raises: its errors come from two HTTP stacks."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        names = [cls.__name__ for cls in type(error).__mro__]
        known = next((_PROBLEMS[name] for name in names if name in _PROBLEMS), None)
        problem = known or f"the hub could not be read ({names[0]})"
        raise TargetNotFound(problem, file=shown) from None
