"""What does a scan say of adapters made by strangers, and how far do their modules stand apart?

    python benchmarks/wild.py FOLDER_OF_ADAPTERS [MORE ...]

Counts verdicts, findings, and the modules whose largest robust z lies above some thresholds, so
that the threshold of `weights.outlier-module` can be judged on others than it was chosen on.
"""

from __future__ import annotations

import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from peftguard import Scan, scan

THRESHOLDS = (3.5, 8.0, 10.0, 12.0)


def main() -> None:
    report = scan(*sys.argv[1:], cache=False, offline=True)
    console = Console()
    verdicts = Counter(result.verdict.label.value for result in report.results)
    console.print(f"{len(report.results)} adapters: {dict(verdicts)}", highlight=False)
    codes = Counter(code for result in report.results for code in {f.code for f in result.findings})
    table = Table("finding", "adapters")
    for code, count in codes.most_common():
        table.add_row(code, str(count))
    console.print(table, outliers(report))


def outliers(report: Scan) -> Table:
    """How many modules, and adapters with such a module, lie above each threshold."""
    scores = [
        [m.outlier_z for m in result.modules if m.outlier_z is not None]
        for result in report.results
    ]
    every = [z for own in scores for z in own]
    title = f"{len(every)} modules with a z, at most {max(every, default=0.0):.1f}"
    table = Table("threshold", "modules", "share", "adapters", title=title)
    for threshold in THRESHOLDS:
        above = sum(z >= threshold for z in every)
        adapters = sum(any(z >= threshold for z in own) for own in scores)
        share = f"{above / max(1, len(every)):.2%}"
        table.add_row(f"{threshold:g}", str(above), share, str(adapters))
    return table


if __name__ == "__main__":
    main()
