"""`peftguard schema`: the JSON schema of `peftguard scan --format json`."""

from __future__ import annotations

from peftguard.cli.scan import Output


def schema(output: Output = None) -> None:
    """Print the JSON schema of scan reports."""
    import json

    from peftguard.cli.output import write_text
    from peftguard.reports.json_report import schema as scan_schema

    write_text(json.dumps(scan_schema(), indent=2), output)
