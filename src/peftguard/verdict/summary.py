"""What an adapter is, in the few lines that every report starts with."""

from __future__ import annotations

from collections.abc import Sequence

from peftguard.adapters.adapter import Adapter
from peftguard.features.profile import ModuleProfile
from peftguard.results import AdapterSummary, PayloadSummary


def summarise(adapter: Adapter, profiles: Sequence[ModuleProfile]) -> AdapterSummary:
    """Summary from the files themselves; the config is only quoted where it names things."""
    tensors = adapter.container.tensors.values()
    exactness = {profile.exactness for profile in profiles}
    return AdapterSummary(
        peft_type=adapter.peft_type,
        base_model=adapter.base_model,
        rank=adapter.rank,
        target_modules=sorted({profile.role for profile in profiles})
        or sorted({module.rpartition(".")[2] for module in adapter.modules}),
        n_modules=len(adapter.modules),
        n_parameters=sum(tensor.n_parameters for tensor in tensors),
        format=adapter.format,
        container=adapter.container.format,
        dtypes=sorted({tensor.dtype for tensor in tensors}),
        scale=sorted({round(profile.scale, 9) for profile in profiles}),
        exactness="none" if not exactness else ("exact" if exactness == {"exact"} else "direction"),
        task_type=_text(adapter.config.get("task_type")),
        peft_version=_text(adapter.config.get("peft_version")),
        payload=_payload(adapter),
    )


def _payload(adapter: Adapter) -> list[PayloadSummary]:
    kinds: dict[str, list[int]] = {}
    for entry in adapter.payload:
        size = adapter.container.tensors[entry.tensor].n_parameters
        kinds.setdefault(entry.kind, []).append(size)
    return [
        PayloadSummary(kind=kind, n_tensors=len(sizes), n_parameters=sum(sizes))
        for kind, sizes in kinds.items()
    ]


def _text(value: object) -> str | None:
    return value[:200] if isinstance(value, str) else None
