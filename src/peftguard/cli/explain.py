"""`peftguard explain`: what an adapter listens to."""

from __future__ import annotations

from peftguard.cli.scan import Output
from peftguard.cli.trigger import (
    AdapterName,
    BaseName,
    Rendering,
    ReportFormat,
    opened,
    write_trigger_report,
)


def explain(
    adapter: AdapterName,
    base: BaseName,
    fmt: Rendering = ReportFormat.TEXT,
    output: Output = None,
) -> None:
    """Show the words that an adapter makes its base listen to, alone or in families.

    From the adapter's weights and the base's embeddings; the model is not run, and torch is not
    needed. It is the first stage of `peftguard trigger`, and gives no verdict.
    """
    from peftguard.cli.progress import Progress
    from peftguard.trigger.hunt import explain as explained
    from peftguard.trigger.subject import Subject

    subject = Subject.of(base)
    with opened(adapter) as stranger, Progress("reading"):
        report = explained(stranger, subject)
    write_trigger_report(report, fmt, output)
