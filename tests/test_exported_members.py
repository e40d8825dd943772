"""The public names, pinned."""

from __future__ import annotations

import subprocess
import sys

import peftguard


def test_public_names() -> None:
    assert peftguard.__all__ == [
        "Adapter",
        "Label",
        "PeftGuardError",
        "Result",
        "Scan",
        "Update",
        "Verdict",
        "__version__",
        "open_adapter",
        "scan",
    ]
    assert all(getattr(peftguard, name) is not None for name in peftguard.__all__)
    assert not hasattr(peftguard, "not_a_name")


def test_importing_the_package_is_free() -> None:
    code = "import peftguard, sys; print('numpy' in sys.modules, 'pydantic' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
