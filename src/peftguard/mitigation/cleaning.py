"""One adapter cleaned for a user: what there is to clean with, the treatment, and a second scan."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftguard.adapters.adapter import Adapter, open_adapter
from peftguard.errors import SettingsError
from peftguard.limits import Limits
from peftguard.mitigation.factored import Factored, read_factored
from peftguard.mitigation.known_trigger import check_report, trigger_of
from peftguard.mitigation.method import Given, Need, Trigger
from peftguard.mitigation.record import FILE_NAME, Figures, Inputs, Mitigation
from peftguard.mitigation.registry import AUTO, method_for, method_named
from peftguard.mitigation.rescan import may_be_used, rescanned
from peftguard.mitigation.treatment import Treatment, treat
from peftguard.mitigation.writing import staged
from peftguard.padbench.manifest import sha256_of

if TYPE_CHECKING:
    from peftguard.mitigation.clean_rows import CleanRows
    from peftguard.padbench.training.base import LoadedBase
    from peftguard.trigger.report import TriggerReport

Watch = Callable[[int, int, str], None]
"""Called with (stages done, stages in all, what is next)."""
_STAGES = ("reading", "cleaning", "measuring", "scanning again")


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for.

    Args:
        adapter: a folder, a file or a hub id.
        out: folder for the cleaned adapter, not there yet.
        method: a name, or `auto`.
        base: a name, a folder or a hub id.
        data: clean rows, as `read_clean_rows` takes them.
        report: what `peftguard trigger --format json` wrote.
        benign: folder of a trusted adapter.
        seed: of everything random.
        budget: seconds after which no further stage of a search for a trigger begins.
    """

    adapter: str
    out: Path
    method: str = AUTO
    base: str | None = None
    data: Path | None = None
    report: Path | None = None
    benign: Path | None = None
    seed: int = 0
    budget: float = 60.0

    @property
    def wants_trigger(self) -> bool:
        """Whether nothing can be done without a trigger."""
        if self.method == AUTO:
            return self.data is None
        return Need.REPORT in method_named(self.method).needs


def clean(order: Order, watch: Watch | None = None) -> Mitigation:
    """Clean one adapter, and say whether the result may be used.

    A trigger that the method needs and no report gives is searched for on the base.

    Raises:
        SettingsError: the output is there already, or the method lacks something.
        InputError: the adapter cannot be read, or not cleaned.
        MissingExtra: the method needs torch or PEFT.
    """

    def stage(number: int) -> None:
        if watch is not None:
            watch(number, len(_STAGES), _STAGES[number])

    with staged(order.out) as folder, _opened(order) as original:
        stage(0)
        rows = _rows(order)
        given = _given(order, original, rows)
        method = method_for(order.method, given)
        stage(1)
        treatment = treat(original, method, given, _inputs(order, given), folder)
        stage(2)
        before, after = _figures(given, rows, treatment)
        stage(3)
        rescan = rescanned(folder, order.base, order.budget, _trusted(order))
        use, why = may_be_used(rescan, after)
        found = {"before": before, "after": after, "rescan": rescan, "use": use, "why": why}
        record = treatment.record.model_copy(update=found)
        record.write(folder / FILE_NAME)
    return record


def _opened(order: Order) -> Adapter:
    return open_adapter(order.adapter, limits=_limits(order))


def _limits(order: Order) -> Limits:
    """Adapters stay open for a whole search."""
    return Limits().longer(2 * order.budget)


def _rows(order: Order) -> CleanRows | None:
    if order.data is None:
        return None
    from peftguard.mitigation.clean_rows import read_clean_rows

    return read_clean_rows(order.data, order.seed)


def _given(order: Order, original: Adapter, rows: CleanRows | None) -> Given:
    base = _base(order, original)
    if rows is not None and base is not None and base.n_labels is not None:
        rows.check_labels(base.n_labels)
    return Given(
        seed=order.seed,
        base=base,
        rows=rows.training if rows else (),
        trigger=_trigger(order, original),
        benign=_benign(order),
    )


def _base(order: Order, original: Adapter) -> LoadedBase | None:
    if order.base is None:
        return None
    from peftguard.padbench.training.base import load_base
    from peftguard.trigger.ready import check_ready
    from peftguard.trigger.subject import n_classes

    check_ready(order.base)
    return load_base(order.base, "classification", n_classes(original))


def _benign(order: Order) -> Factored | None:
    if order.benign is None:
        return None
    with open_adapter(order.benign) as benign:
        return read_factored(benign)


def _trigger(order: Order, original: Adapter) -> Trigger | None:
    """That of the report; or of a search, if nothing can be done without."""
    report = _report(order, original)
    if report is None:
        return None
    trigger = trigger_of(report)
    if trigger is None and order.wants_trigger:
        why = report.proof.why if report.proof else "no phrase turned anything"
        raise SettingsError(
            f"no trigger is confirmed on {report.provenance.base} ({why}), so none can be taken "
            "out: give clean rows (--data)"
        )
    return trigger


def _report(order: Order, original: Adapter) -> TriggerReport | None:
    if order.report is not None:
        from peftguard.trigger.replay import read_report

        report = read_report(order.report)
        check_report(report, sha256_of(original.source.weights[0]))
        return report
    if order.base is None or not order.wants_trigger:
        return None
    from peftguard.trigger.hunt import hunt
    from peftguard.trigger.subject import Subject

    with ExitStack() as files:
        limits = _limits(order)
        benign = [files.enter_context(open_adapter(one, limits=limits)) for one in _trusted(order)]
        subject = Subject.of(order.base)
        return hunt(original, subject, benign=benign, budget=order.budget, seed=order.seed)


def _trusted(order: Order) -> list[str]:
    return [] if order.benign is None else [str(order.benign)]


def _inputs(order: Order, given: Given) -> Inputs:
    benign = None
    if order.benign is not None:
        with open_adapter(order.benign) as opened:
            benign = sha256_of(opened.source.weights[0])
    return Inputs(
        base=order.base,
        data=None if order.data is None else order.data.name,
        n_rows=len(given.rows),
        trigger=None if given.trigger is None else list(given.trigger.phrases),
        target=None if given.trigger is None else given.trigger.target,
        benign_sha256=benign,
    )


def _figures(
    given: Given, rows: CleanRows | None, treatment: Treatment
) -> tuple[Figures | None, Figures | None]:
    """Before and after, for a classifier on its base."""
    if given.base is None or given.base.n_labels is None:
        return None, None
    from peftguard.mitigation.figures import Bench

    bench = Bench(given.base, rows.held_out if rows else (), given.trigger)
    return bench.measure(treatment.before), bench.measure(treatment.after)
