"""From what the user typed to the adapters it holds."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from peftguard.adapters import filenames
from peftguard.adapters.source import Source
from peftguard.adapters.tree import Folder, Refusal, Walk
from peftguard.errors import TargetNotFound
from peftguard.findings import Finding, found
from peftguard.limits import Limits

_SEGMENT = r"\w(?:[\w.-]{0,94}\w)?"
_HUB_ID = re.compile(
    rf"(?P<repo>{_SEGMENT}/{_SEGMENT})(?:@(?P<revision>\w[\w./-]{{0,254}}))?", re.ASCII
)
_HUB_SCHEME = "hf://"
_WHOLE_GGUF = b"\x0c\0\0\0\0\0\0\0general.type\x08\0\0\0\x05\0\0\0\0\0\0\0model"


def find_sources(target: str, *, limits: Limits, offline: bool = False) -> Iterator[Source]:
    """Every adapter that `target` holds, folders in natural order, each before its sub-folders.

    Args:
        target: a folder, a file, or a hub id `org/name[@revision]`, also as `hf://org/name`. What
            exists on disk is never taken for a hub id.
        limits: bounds on the walk and the download.
        offline: take hub ids from the local cache only.

    Raises:
        TargetNotFound: nothing there, or no adapter in it.
        LimitExceeded: after the last adapter, if a limit hid part of the tree.
    """
    if target.startswith(_HUB_SCHEME):
        yield from _from_hub(target, target.removeprefix(_HUB_SCHEME), limits, offline=offline)
        return
    try:
        mode = os.stat(target).st_mode
    except (OSError, ValueError) as error:
        if not _may_be_hub_id(target):
            reason = getattr(error, "strerror", None) or "not a path"
            raise TargetNotFound(f"cannot be read: {reason}", file=_shown(target)) from None
        yield from _from_hub(target, target, limits, offline=offline)
        return
    if stat.S_ISDIR(mode):
        yield from _from_folder(target, target, limits)
    elif stat.S_ISREG(mode):
        yield from _from_file(target, limits)
    else:
        raise TargetNotFound("neither a file nor a folder; not opened", file=_shown(target))


def _may_be_hub_id(target: str) -> bool:
    if os.path.lexists(target) or target.endswith(filenames.SUFFIXES):
        return False
    return _HUB_ID.fullmatch(target) is not None


def _from_hub(target: str, hub_id: str, limits: Limits, *, offline: bool) -> Iterator[Source]:
    match = _HUB_ID.fullmatch(hub_id)
    if match is None:
        raise TargetNotFound(
            "not a hub id", file=_shown(target), expected="org/name or org/name@revision"
        )
    from peftguard.adapters.hub import fetch_adapter

    fetched = fetch_adapter(match["repo"], match["revision"], limits=limits, offline=offline)
    noted = fetched.findings
    for source in _from_folder(target, str(fetched.folder), limits):
        findings = (*source.findings, *noted)
        yield replace(source, origin=fetched.origin, findings=findings)
        noted = ()


def _from_folder(target: str, path: str, limits: Limits) -> Iterator[Source]:
    walk = Walk(Path(os.path.realpath(path)), limits)
    nothing = True
    for source in _sources(walk.folder(), target, owned=False):
        nothing = False
        yield source
    if walk.limit is not None:
        raise walk.limit
    if nothing:
        raise TargetNotFound(
            "no adapter in this folder or below",
            file=_shown(target),
            expected=f"{filenames.CONFIG}, adapter_model.*, or a LoRA file such as *.safetensors",
        )


def _from_file(target: str, limits: Limits) -> Iterator[Source]:
    """The file, whatever its name; with its folder's config if it is the weights of that folder."""
    path = Path(target)
    root = Path(os.path.realpath(path.parent))
    shown, weights = _shown(target), (root / path.name,)
    if not _belongs_to_folder(root, path.name):
        yield Source(shown, root, weights)
        return
    walk = Walk(root, limits)
    folder = walk.folder()
    folder.files = sorted({*folder.files, *weights}, key=lambda file: filenames.natural(file.name))
    folder.refused = [refusal for refusal in folder.refused if refusal.name != path.name]
    group = _configured(folder, weights[0])
    yield _source(group, folder, shown, *_beside(folder, {path.name for path in group.weights}))
    if walk.limit is not None:
        raise walk.limit


def _belongs_to_folder(root: Path, name: str) -> bool:
    if not (filenames.is_main(name) or filenames.is_step(name)):
        return False
    return os.path.lexists(root / filenames.CONFIG) or filenames.shard_of(name) is not None


@dataclass(slots=True)
class _Group:
    """The files of one adapter; `name` is empty if it is the one its folder is about."""

    name: str
    weights: tuple[Path, ...]
    config: Path | None = None
    findings: list[Finding] = field(default_factory=list)


def _sources(folder: Folder, target: str, *, owned: bool) -> Iterator[Source]:
    """Adapters of a folder, then of its sub-folders. `owned`: an adapter above travels with it."""
    groups = _groups(folder)
    owned = owned or bool(groups)
    if groups:
        own = {path.name for group in groups for path in group.weights}
        own |= {group.name for group in groups if group.name}
        beside, refused = _beside(folder, own)
        for group in groups:
            yield _source(group, folder, _join(target, group.name), beside, refused)
    elif not owned:
        for refusal in folder.refused:
            if refusal.folder:
                shown = _join(target, refusal.name)
                yield Source(shown, folder.path, (), findings=(refusal.finding,))
    for below in folder.folders:
        yield from _sources(below, _join(target, below.path.name), owned=owned)


def _source(
    group: _Group, folder: Folder, target: str, beside: Sequence[Path], refused: Sequence[Refusal]
) -> Source:
    findings = (*group.findings, *(refusal.finding for refusal in refused))
    others = tuple(path for path in beside if path != group.config)
    return Source(target, folder.path, group.weights, group.config, others, findings=findings)


def _beside(folder: Folder, own: set[str]) -> tuple[list[Path], list[Refusal]]:
    """Files that travel with the folder's adapters, `own` aside, and what was refused."""
    files = [path for path in folder.files if path.name not in own]
    refused = [refusal for refusal in folder.refused if refusal.name not in own]
    for below in folder.folders:
        if not _groups(below):
            more_files, more_refused = _beside(below, set())
            files += more_files
            refused += more_refused
    return files, refused


def _groups(folder: Folder) -> list[_Group]:
    """The adapter that the folder is about, then those that merely lie in it."""
    names = [path.name for path in folder.files] + [refusal.name for refusal in folder.refused]
    if not any(filenames.announces_adapter(name) for name in names):
        return _loose(folder, filenames.may_be_adapter)
    main = _configured(folder)
    steps = [path for path in folder.files if filenames.is_step(path.name)]
    return [
        main,
        *(_Group(path.name, (path,), main.config) for path in steps),
        *_loose(folder, _is_extra),
    ]


def _configured(folder: Folder, chosen: Path | None = None) -> _Group:
    """The folder's own adapter: `chosen`, or the weights that a loader would take first."""
    config = next((path for path in folder.files if path.name == filenames.CONFIG), None)
    mains = [path for path in folder.files if filenames.is_main(path.name)]
    first = chosen or min(mains, key=lambda path: filenames.preference(path.name), default=None)
    weights, findings = _shards(first, folder.files) if first else ((), [])
    unread = [
        path
        for path in folder.files
        if filenames.is_weights(path.name)
        and path not in weights
        and not filenames.is_step(path.name)
        and not (_is_extra(path.name) and not _is_whole_gguf(path))
    ]
    return _Group("", weights, config, [*findings, *_unread(unread)])


def _loose(folder: Folder, wanted: Callable[[str], bool]) -> list[_Group]:
    """Single-file adapters; of files that differ in suffix only, the one that a loader prefers."""
    files = [path for path in folder.files if wanted(path.name) and not _is_whole_gguf(path)]
    groups: dict[str, _Group] = {}
    for path in sorted(files, key=lambda path: filenames.preference(path.name)):
        whole = filenames.shard_of(path.name)
        stem = Path(whole[0] if whole else path.name).stem
        if stem not in groups:
            weights, findings = _shards(path, folder.files)
            groups[stem] = _Group(path.name, weights, findings=list(findings))
        elif path not in groups[stem].weights:
            groups[stem].findings += _unread([path])
    refused = [
        _Group(refusal.name, (), findings=[refusal.finding])
        for refusal in folder.refused
        if wanted(refusal.name)
    ]
    return sorted([*groups.values(), *refused], key=lambda group: filenames.natural(group.name))


def _is_extra(name: str) -> bool:
    """In a folder about another adapter: GGUF copies, and what is called an adapter as well."""
    if filenames.is_main(name) or filenames.is_step(name):
        return False
    return name.lower().endswith(".gguf") or filenames.is_called_adapter(name)


def _is_whole_gguf(path: Path) -> bool:
    """True if a GGUF file calls itself a model: llama.cpp then refuses it as an adapter."""
    if not path.name.lower().endswith(".gguf"):
        return False
    try:
        with path.open("rb") as file:
            return _WHOLE_GGUF in file.read(4096)
    except OSError:
        return False


def _shards(first: Path, files: Sequence[Path]) -> tuple[tuple[Path, ...], list[Finding]]:
    """`first` and the files it is one of; a missing one is a finding."""
    shard = filenames.shard_of(first.name)
    if shard is None:
        return (first,), []
    whole, _, total = shard
    numbered = {
        other[1]: path
        for path in files
        if (other := filenames.shard_of(path.name)) and other[0] == whole and other[2] == total
    }
    findings = []
    if len(numbered) != total:
        message = f"{len(numbered)} of {total} shards of {filenames.printable(whole)} are here"
        findings.append(found("file.truncated", message, file=filenames.printable(first.name)))
    return tuple(numbered[number] for number in sorted(numbered)), findings


def _unread(files: Sequence[Path]) -> list[Finding]:
    if not files:
        return []
    names = [filenames.printable(path.name) for path in files]
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return [found("file.unread-weights", f"not read: {listed}", file=names[0])]


def _join(target: str, name: str) -> str:
    return _shown(os.path.join(target, name) if name else target)


def _shown(target: str) -> str:
    return filenames.printable(target)
