"""One adapter, opened: what it says of itself, what it changes, and its updates read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from peftguard.adapters.containers import open_container
from peftguard.adapters.containers.base import Container, TensorInfo
from peftguard.adapters.jsonfile import load_json
from peftguard.adapters.keys import config_from_metadata, recognise
from peftguard.adapters.keys.base import Part, Payload
from peftguard.adapters.methods import METHODS, method_of_parts
from peftguard.adapters.methods.base import Method, ModuleParts
from peftguard.adapters.source import Source
from peftguard.adapters.update import FloatArray, Update
from peftguard.errors import LimitExceeded, MalformedFile, TargetNotFound, UnsupportedAdapter
from peftguard.findings import Finding, found
from peftguard.limits import Deadline, Limits


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An open adapter. Use as a context manager; nothing but headers is read until `updates`.

    `modules` maps each adapted module to its tensors, `payload` lists the tensors that are no part of
    any update, `findings` what was odd while opening, `incomplete` why the updates alone do not say
    what the adapter does (empty if they do).
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
    findings: list[Finding] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    @property
    def base_model(self) -> str | None:
        """Name of the base model as the config gives it: a claim, not a fact."""
        return _text(self.config.get("base_model_name_or_path"))

    @property
    def rank(self) -> int | None:
        """Largest inner dimension among the modules' stored factors."""
        ranks = [rank for module in self.modules.values() if (rank := stored_rank(module))]
        return max(ranks, default=None)

    def updates(self) -> Iterator[Update]:
        """Every module's update, in file order; memory is bounded by the largest module.

        Raises:
            UnsupportedAdapter: the method has no exact update without more than these files.
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
                f"{self.peft_type} has no exact low-rank update without the base model",
                file=self.source.target,
            )
        yield from self.method.updates(self.modules[module], self.config)

    def close(self) -> None:
        """Release the weight file."""
        self.container.close()

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
    source: Source | str | Path, *, limits: Limits | None = None, deadline: Deadline | None = None
) -> Adapter:
    """Open one adapter for reading.

    Args:
        source: what `find_sources` found, or a path to a folder or file that holds one adapter.
        limits: bounds on what is read; the defaults suit any ordinary adapter.
        deadline: shared clock; by default one of `limits.max_seconds` that starts now.

    Raises:
        InputError: nothing there, malformed, unsafe, or over a limit.
        MissingExtra: the file format needs an optional dependency.
    """
    limits = limits or Limits()
    deadline = deadline or Deadline(limits.max_seconds)
    if not isinstance(source, Source):
        source = _only_source(str(source), limits)
    config = _read_config(source, limits)
    if not source.weights:
        raise TargetNotFound("no adapter weights", file=source.target)
    container = open_container(source.weights, limits, deadline)
    try:
        return _assemble(source, container, config, limits, deadline)
    except BaseException:
        container.close()
        raise


def stored_rank(module: ModuleParts) -> int | None:
    """Inner dimension of a module's factors as stored, None where the method has no such thing."""
    for part in ("lora_A", "lora_embedding_A", "hada_w1_b", "lokr_w2_b", "vera_lambda_d"):
        info = module.info.get(part)
        if info is not None and info.shape:
            return info.shape[0]
    return None


def _only_source(target: str, limits: Limits) -> Source:
    from peftguard.adapters.sources import find_sources

    sources = list(find_sources(target, limits=limits))
    if len(sources) != 1:
        raise TargetNotFound(
            "open_adapter reads one adapter; use find_sources for a tree",
            file=target,
            expected="one adapter",
            found=f"{len(sources)} adapters",
        )
    return sources[0]


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
    grammar = recognise(container.tensors, config)
    embedded = config_from_metadata(container.metadata, limits)
    entries = grammar.parse(container.tensors, config or embedded)
    settings = {**(embedded or {}), **(config or {})}
    parts = [entry for entry in entries if isinstance(entry, Part)]
    peft_type = _peft_type(settings, parts)
    adapter = Adapter(
        source=source,
        container=container,
        config=settings,
        format=grammar.name,
        peft_type=peft_type,
        method=METHODS.get(peft_type),
        modules=_group(parts, container, limits),
        payload=tuple(entry for entry in entries if isinstance(entry, Payload)),
        deadline=deadline,
        findings=[*source.findings, *container.findings],
    )
    if config is None and embedded is None and grammar.name == "peft":
        _note_missing_config(adapter)
    return adapter


def _note_missing_config(adapter: Adapter) -> None:
    adapter.findings.append(
        found("integrity.no-config", "the method is guessed from tensor names, the scale unknown")
    )
    adapter.incomplete.append("there is no adapter_config.json, so the scale is unknown")


def _peft_type(config: Mapping[str, Any], parts: list[Part]) -> str:
    declared = _text(config.get("peft_type"))
    return declared.upper() if declared else method_of_parts({part.part for part in parts})


def _group(
    parts: list[Part], container: Container, limits: Limits
) -> dict[str, ModuleParts]:
    """Tensors by module; those of no module (VeRA's projections) are shared by all."""
    by_module: dict[str, dict[str, Part]] = {}
    for part in parts:
        group = by_module.setdefault(part.module, {})
        if part.part in group:
            raise MalformedFile(
                "two tensors claim the same part of a module",
                file=str(container.path.name),
                key=part.tensor,
                found=group[part.part].tensor,
                code="file.duplicate-key",
            )
        group[part.part] = part
    shared = {
        name: partial(_read, container, part) for name, part in by_module.pop("", {}).items()
    }
    return {
        module: _module(module, group, container, shared, limits)
        for module, group in by_module.items()
    }


def _module(
    module: str,
    group: Mapping[str, Part],
    container: Container,
    shared: Mapping[str, Callable[[], FloatArray]],
    limits: Limits,
) -> ModuleParts:
    info = {name: _oriented(container.tensors[part.tensor], part) for name, part in group.items()}
    size = 4 * sum(tensor.n_parameters for tensor in info.values())

    def read(name: str) -> FloatArray:
        if size > limits.max_module_bytes:
            raise LimitExceeded(
                "the module's factors are too large",
                file=container.path.name,
                key=module,
                expected=f"at most {limits.max_module_bytes} bytes as float32",
                found=f"{size} bytes",
            )
        return _read(container, group[name])

    return ModuleParts(module, info, read, shared)


def _oriented(info: TensorInfo, part: Part) -> TensorInfo:
    if not part.transposed:
        return info
    shape = (*info.shape[:-2], *reversed(info.shape[-2:]))
    return TensorInfo(info.name, info.dtype, shape, info.n_bytes)


def _read(container: Container, part: Part) -> FloatArray:
    array = container.read(part.tensor)
    if part.part == "alpha" and array.dtype.kind in "iu":
        return array.astype(np.float32)
    if array.dtype.kind != "f":
        raise MalformedFile(
            "weights are not floating point",
            file=container.path.name,
            key=part.tensor,
            expected="a float dtype",
            found=container.tensors[part.tensor].dtype,
        )
    return np.swapaxes(array, -1, -2) if part.transposed else array


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None

