"""`peftguard explain`: what an adapter listens to."""

from __future__ import annotations

from typing import Annotated

import typer

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
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Also run the base over each of its words, for what every changed module listens "
            "to and what that makes likelier. Needs the extra train.",
        ),
    ] = False,
    fmt: Rendering = ReportFormat.TEXT,
    output: Output = None,
) -> None:
    """Show the words that an adapter makes its base listen to, alone or in families.

    From the adapter's weights and the base's embeddings; without --deep the model is not run, and
    torch is not needed. It is the first stage of `peftguard trigger`, and gives no verdict.
    """
    from peftguard.cli.output import check_writable
    from peftguard.cli.progress import Progress
    from peftguard.trigger.ready import check_ready

    check_writable(output)
    if deep:
        check_ready(base)
    from peftguard.trigger.hunt import explain as explained
    from peftguard.trigger.subject import Subject

    subject = Subject.of(base, whole=deep)
    with opened(adapter) as stranger, Progress("reading"):
        report = explained(stranger, subject, deep=deep)
    write_trigger_report(report, fmt, output)
