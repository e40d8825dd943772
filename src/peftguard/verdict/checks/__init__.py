"""What a person should know about an adapter, apart from any score."""

from peftguard.verdict.checks.files import check_files, check_imports
from peftguard.verdict.checks.integrity import check_integrity
from peftguard.verdict.checks.payload import check_payload, incomplete_because
from peftguard.verdict.checks.weights import check_weights

__all__ = [
    "check_files",
    "check_imports",
    "check_integrity",
    "check_payload",
    "check_weights",
    "incomplete_because",
]
