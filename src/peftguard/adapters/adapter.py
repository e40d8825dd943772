"""One adapter, opened: what it says of itself, what it changes, its updates one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from peftguard.adapters.containers import open_container
from peftguard.adapters.containers.base import Container
from peftguard.adapters.filenames import CONFIG
from peftguard.adapters.jsonfile import load_json
from peftguard.adapters.keys import config_from_metadata, in_peft_terms, recognise
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.keys.mlx import states_scale
from peftguard.adapters.methods import (
    METHODS,
    MIXTURES,
    method_of_modules,
    prepared,
    why_unsupported,
)
from peftguard.adapters.methods.base import Method, ModuleParts
from peftguard.adapters.methods.lora import difference
from peftguard.adapters.methods.lora_variants import moves_base
from peftguard.adapters.modules import group, stored_rank
from peftguard.adapters.source import Source
from peftguard.adapters.update import Update
from peftguard.errors import TargetNotFound, UnsupportedAdapter
from peftguard.findings import Finding, found
from peftguard.limits import Deadline, Limits


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An open adapter. Use as a context manager; nothing but headers is read until `updates`.

    Args:
        source: the files it was read from.
        container: the open weight file.
        config: its settings in PEFT's terms, from `adapter_config.json` or the file's own metadata.
        format: dialect of its tensor names: `peft`, `diffusers`, `kohya`, `mlx`, `gguf`.
        peft_type: name in peft's `PeftType`, several joined by `+` if its modules differ, `UNKNOWN`
            if no method explains the tensors.
        method: how its updates are read; None where they are not defined by these files.
        modules: the tensors of each adapted module.
        payload: the tensors that are no part of any update.
        deadline: the clock of this adapter.
        initial: the adapter as it was initialised; what is read is then the change since.
        findings: what was odd while opening.
        incomplete: clauses saying why the updates alone do not tell what the adapter does.
    """

    source: Source
    container: Container
    config: Mapping[str, Any]
    format: str
    peft_type: str
    method: Method | None
    modules: Mapping[str, ModuleParts]
    payload: tuple[Payload, ...]
    deadline: Deadline
    initial: Adapter | None = None
    findings: list[Finding] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    @property
    def base_model(self) -> str | None:
        """Name of the base model as the config gives it: a claim, not a fact."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and name.strip() else None

    @property
    def rank(self) -> int | None:
        """Largest inner dimension among the modules' stored factors."""
        ranks = (stored_rank(module) for module in self.modules.values())
        return max((rank for rank in ranks if rank is not None), default=None)

    def updates(self) -> Iterator[Update]:
        """Every module's update, in file order; memory is bounded by the largest module.

        Raises:
            UnsupportedAdapter: the update is not defined without more than these files.
            MalformedFile: the tensors of a module do not fit together.
            LimitExceeded: out of time, or a module is too large.
        """
        for module in self.modules:
            yield from self.module_updates(module)

    def module_updates(self, module: str) -> Iterator[Update]:
        """The updates of one of `modules`: one, or one an expert. Raises as `updates`."""
        self.deadline.check(f"reading {module}")
        if self.method is None:
            raise UnsupportedAdapter(
                f"{self.peft_type} {why_unsupported(self.peft_type)}", file=self.source.target
            )
        if self.initial is None:
            yield from self.method.updates(self.modules[module], self.config)
            return
        settings = {**self.config, "init_lora_weights": True}
        finals = self.method.updates(self.modules[module], settings)
        for final, start in zip(finals, self.initial.module_updates(module), strict=True):
            yield difference(final, start)

    def close(self) -> None:
        """Release the weight files."""
        self.container.close()
        if self.initial is not None:
            self.initial.close()

    def __enter__(self) -> Adapter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_adapter(
    source: Source | str | Path,
    *,
    limits: Limits | None = None,
    deadline: Deadline | None = None,
    initial: str | Path | None = None,
) -> Adapter:
    """Open one adapter for reading.

    Args:
        source: what `find_sources` found, or a path to a folder or file that holds one adapter.
        limits: bounds on what is read; the defaults suit any ordinary adapter.
        deadline: shared clock; by default one of `limits.max_seconds` that starts now.
        initial: the adapter as it was initialised, for PiSSA, OLoRA, CorDA and LoRA-GA, whose
            stored product is the change only less what it started from. Otherwise ignored.

    Raises:
        InputError: nothing there, malformed, unsafe, or over a limit.
        MissingExtra: the file format needs an optional dependency.
    """
    limits = limits or Limits()
    deadline = deadline or Deadline(limits.max_seconds)
    source = source if isinstance(source, Source) else only_source(str(source), limits)
    if not source.weights:
        raise TargetNotFound("no adapter weights", file=source.target)
    config = _read_config(source, limits)
    container = open_container(source.weights, limits, deadline)
    try:
        adapter = _assemble(source, container, config, limits, deadline)
        if initial is None or not moves_base(adapter.config):
            return adapter
        return replace(adapter, initial=_initial(initial, adapter, limits))
    except BaseException:
        container.close()
        raise


def only_source(target: str, limits: Limits, *, offline: bool = False) -> Source:
    """The one adapter that `target` holds; offline, a hub id is one of the local cache.

    Raises:
        TargetNotFound: none or several.
    """
    from peftguard.adapters.sources import find_sources

    sources = list(find_sources(target, limits=limits, offline=offline))
    if len(sources) != 1:
        raise TargetNotFound(
            "several adapters where one is wanted",
            file=target,
            expected="one adapter",
            found=f"{len(sources)} adapters",
        )
    return sources[0]


def _initial(path: str | Path, adapter: Adapter, limits: Limits) -> Adapter:
    """The initial adapter under plain settings; its product is subtracted as it is stored."""
    start = open_adapter(path, limits=limits, deadline=adapter.deadline)
    config = {**start.config, "init_lora_weights": True}
    missing = next((name for name in adapter.modules if name not in start.modules), None)
    if missing is not None:
        start.close()
        raise UnsupportedAdapter("the initial adapter lacks a module", file=str(path), key=missing)
    return replace(start, config=config)


def _read_config(source: Source, limits: Limits) -> dict[str, Any] | None:
    if source.config is None:
        return None
    return load_json(source.config, file=source.relative(source.config), limits=limits)


def _assemble(
    source: Source,
    container: Container,
    config: dict[str, Any] | None,
    limits: Limits,
    deadline: Deadline,
) -> Adapter:
    grammar = recognise(container.tensors, config, container.format)
    embedded = config_from_metadata(container.metadata, limits)
    entries = grammar.parse(container.tensors, embedded if config is None else config)
    parts = [entry for entry in entries if isinstance(entry, Part)]
    modules = group(parts, container, limits)
    rank = next((rank for module in modules.values() if (rank := stored_rank(module))), None)
    beside = None if config is None else in_peft_terms(config, rank)
    settings = _deciding(grammar.name, beside, embedded)
    declared = _declared_type(settings)
    peft_type = declared or method_of_modules((part.module, part.part) for part in parts)
    adapter = Adapter(
        source=source,
        container=container,
        config=settings,
        format=grammar.name,
        peft_type=peft_type,
        method=METHODS.get(peft_type) or (None if declared else MIXTURES.get(peft_type)),
        modules=prepared(peft_type, modules, settings),
        payload=tuple(entry for entry in entries if isinstance(entry, Payload)),
        deadline=deadline,
        findings=[*source.findings, *container.findings],
    )
    _note_guesses(adapter, config, embedded)
    return adapter


def _deciding(
    dialect: str, beside: dict[str, Any] | None, embedded: dict[str, Any] | None
) -> dict[str, Any]:
    """The settings that a loader of this dialect goes by; the others could only mislead."""
    own_file = dialect in ("gguf", "diffusers", "kohya")
    first, second = (embedded, beside) if own_file else (beside, embedded)
    return first if first is not None else second or {}


def _note_guesses(
    adapter: Adapter, config: Mapping[str, Any] | None, embedded: Mapping[str, Any] | None
) -> None:
    """Say where a setting is missing that the update's scale or meaning depends on."""
    if config is None and embedded is None and adapter.format in ("peft", "mlx"):
        why = "the method is guessed from tensor names, and the scale is unknown"
        adapter.findings.append(found("integrity.no-config", why))
        adapter.incomplete.append("there is no adapter_config.json, so the scale is unknown")
    elif adapter.format == "peft" and not isinstance(adapter.config.get("peft_type"), str):
        file = CONFIG if config is not None else None
        why = "the config names no peft_type; the method is guessed from tensor names"
        adapter.findings.append(found("integrity.no-config", why, file=file, tensor="peft_type"))
        adapter.incomplete.append("the config names no peft_type, so its settings are not trusted")
    elif adapter.format == "mlx" and config is not None and not states_scale(config):
        why = "the config states no scale as a number, and MLX has no default for it"
        file, key = CONFIG, "lora_parameters.scale"
        adapter.findings.append(found("integrity.no-config", why, file=file, tensor=key))
        adapter.incomplete.append("the config states no scale, so the update's size is unknown")


def _declared_type(config: Mapping[str, Any]) -> str | None:
    declared = config.get("peft_type")
    return declared.strip().upper()[:100] if isinstance(declared, str) else None
