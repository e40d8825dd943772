"""What a changed adapter still does: attack success and accuracy, from the files that were written.

Scales and AdaLoRA's values are folded into the factors for it, which changes nothing; then adapters
are measured on the rows, and by the code, that the benchmark measured the original with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from peftguard.adapters.filenames import WEIGHTS
from peftguard.adversary.poisoned_task import folded, plain
from peftguard.mitigation.factored import Factored
from peftguard.padbench.recipe import Recipe
from peftguard.padbench.texts import Texts

if TYPE_CHECKING:
    from peftguard.padbench.training.measure import Measured

ROWS = 200
"""Most held-out rows of each kind."""


class Subject(NamedTuple):
    """An adapter and the recipe that says what it was to do."""

    adapter: Factored
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Measuring:
    """How adapters are measured.

    Args:
        data: folder with one folder a dataset.
        test_share: of the training rows, as the benchmark was built.
        rows: most held-out rows of each kind.
    """

    data: Path
    test_share: float = 0.3
    rows: int = ROWS

    def texts(self, recipe: Recipe) -> Texts:
        """Where an adapter's rows come from."""
        from peftguard.padbench.training.loaded import base_for

        return Texts(self.data, self.test_share, self.rows, base_for(recipe).n_labels is None)

    def measure(self, subjects: Sequence[Subject]) -> list[Measured]:
        """Counts of adapters of one base, dataset and set of target modules.

        Look-alikes of the trigger are not tried again.

        Raises:
            SettingsError: a dataset is missing.
            MissingExtra: torch or transformers is.
        """
        from safetensors.numpy import save_file

        from peftguard.padbench.training.base import fastest_precision
        from peftguard.padbench.training.loaded import base_for
        from peftguard.padbench.training.measure import measure

        recipes = [plain(recipe, [adapter]) for adapter, recipe in subjects]
        probes = [
            replace(self.texts(recipe).probes(recipe), look_alike=()) for _, recipe in subjects
        ]
        with TemporaryDirectory() as scratch:
            folders = [Path(scratch) / str(number) for number in range(len(subjects))]
            for folder, (adapter, _) in zip(folders, subjects, strict=True):
                folder.mkdir()
                save_file(folded(adapter), folder / WEIGHTS)
            base, precision = base_for(recipes[0]), fastest_precision()
            return measure(recipes, folders, probes, base, precision=precision)
