"""`peftguard doctor`: what is installed, what is missing, and what that means."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

EXTRAS = {
    "torch": (("torch",), "torch pickles (.bin, .pt), VeRA without stored projections"),
    "gguf": (("gguf",), "llama.cpp adapters (.gguf)"),
    "train": (("peft", "transformers", "datasets", "matplotlib"), "padbench build and card"),
    "detect": (("scikit-learn", "scipy", "matplotlib"), "train and evaluate detectors"),
    "ray": (("ray",), "padbench build --executor ray"),
    "cyclonedx": (("cyclonedx-python-lib",), "scan --format cyclonedx"),
}
"""Extra, its distributions, and what needs them."""
CORE = ("numpy", "ml_dtypes", "safetensors", "pydantic", "huggingface_hub", "picklescan", "regex")


def doctor() -> None:
    """Say what is installed, which detectors there are, and which extras are missing."""
    import platform
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from peftguard import __version__
    from peftguard.detectors.registry import load_detectors
    from peftguard.settings import FILE_NAME
    from peftguard.verdict.cache import cache_path

    console = Console(highlight=False)
    console.print(f"peftguard {__version__}, Python {platform.python_version()}", markup=False)
    console.print("core: " + ", ".join(f"{name} {_version(name)}" for name in CORE), markup=False)
    table = Table("extra", "installed", "needed for", title_justify="left")
    for extra, (distributions, purpose) in EXTRAS.items():
        found = [f"{name} {_version(name)}" for name in distributions if _version(name)]
        complete = len(found) == len(distributions)
        table.add_row(extra, ", ".join(found) if complete else _missing(extra), purpose)
    console.print(table)
    detectors = [detector.card for detector in load_detectors()]
    for card in detectors:
        console.print(f"detector {card.name} {card.sha256[:12]}: {card.coverage}", markup=False)
    if not detectors:
        console.print("detectors: none, so weights alone give the verdict unknown", markup=False)
    settings = FILE_NAME if Path(FILE_NAME).exists() else "defaults"
    console.print(f"settings: {settings}; result cache: {cache_path()}", markup=False)
    console.print("telemetry: none, there is no code for it", markup=False)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _missing(extra: str) -> str:
    return f"missing: pip install 'peftguard\\[{extra}]'"
