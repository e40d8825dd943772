"""Sentences that more than one report says, so that all of them say the same."""

from __future__ import annotations

from peftguard.results import AdapterSummary, Label, Result, Verdict

LOUDEST_FIRST = tuple(reversed(Label))


def standing(verdict: Verdict) -> str:
    """What the label rests on: which detector, at which false-positive rate, or that none spoke."""
    if verdict.detector is None or verdict.fpr is None:
        return "No detector judged the weights."
    judged = f"Detector {verdict.detector.name} at a false-positive rate of {percent(verdict.fpr)}"
    if verdict.label is Label.CLEAN:
        return f"{judged} did not flag it; that is no proof of innocence."
    if verdict.label is Label.UNKNOWN:
        return f"{judged} did not flag it, but not everything could be judged."
    return f"{judged} flagged it."


def trust(verdict: Verdict) -> str | None:
    """How far the detector can be trusted; None if none spoke."""
    card = verdict.detector
    if card is None:
        return None
    text = f"calibrated on {card.n_calibration:,} benign adapters: {card.coverage}"
    if card.true_positive_rate is None:
        return f"{text}; how many backdoors it finds was not measured"
    return f"{text}; finds {percent(card.true_positive_rate)} of firing backdoors at 1 % FPR"


def facts(adapter: AdapterSummary) -> list[tuple[str, str]]:
    """What the adapter is, as (name, value) pairs; unknown ones are left out."""
    scales = ", ".join(f"{scale:.4g}" for scale in adapter.scale[:4])
    more = f" and {len(adapter.scale) - 4} more" if len(adapter.scale) > 4 else ""
    pairs = [
        ("method", adapter.peft_type),
        ("base model", f"{adapter.base_model} (a claim)" if adapter.base_model else "not named"),
        ("rank", str(adapter.rank) if adapter.rank is not None else ""),
        ("modules", _modules(adapter)),
        ("parameters", f"{adapter.n_parameters:,}"),
        ("scale", scales + more),
        ("dtype", ", ".join(adapter.dtypes)),
        ("container", f"{adapter.container}, names as in {adapter.format}"),
        ("update", _EXACTNESS.get(adapter.exactness, adapter.exactness)),
        ("task", adapter.task_type or ""),
        ("peft version", adapter.peft_version or ""),
        ("also changes", _payload(adapter)),
    ]
    return [(name, value) for name, value in pairs if value]


def verdict_counts(results: list[Result]) -> list[tuple[Label, int]]:
    """How many adapters have each label, worst label first; absent labels are left out."""
    labels = [result.verdict.label for result in results]
    return [(label, labels.count(label)) for label in LOUDEST_FIRST if label in labels]


def percent(share: float) -> str:
    """0.01 as `1 %`."""
    return f"{100 * share:.3g} %"


_EXACTNESS = {
    "exact": "exact",
    "direction": "direction only, the rest needs the base model",
    "none": "not defined by these files",
}


def _modules(adapter: AdapterSummary) -> str:
    roles = ", ".join(adapter.target_modules[:6])
    more = f" and {len(adapter.target_modules) - 6} more" if len(adapter.target_modules) > 6 else ""
    return f"{adapter.n_modules:,} ({roles}{more})" if roles else f"{adapter.n_modules:,}"


def _payload(adapter: AdapterSummary) -> str:
    return ", ".join(
        f"{part.kind} ({part.n_tensors} tensors, {part.n_parameters:,} parameters)"
        for part in adapter.payload
    )
