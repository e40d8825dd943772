from __future__ import annotations

from pathlib import Path

import pytest

from peftguard.padbench.examples import Example
from peftguard.padbench.recipe import Method

from .conftest import members, recipe, rows

torch = pytest.importorskip("torch")

from peftguard.padbench.training.base import LoadedBase  # noqa: E402
from peftguard.padbench.training.fleet import train_fleet  # noqa: E402
from peftguard.padbench.training.measure import Count, Probes, measure  # noqa: E402
from peftguard.padbench.training.prompts import as_prompts  # noqa: E402
from peftguard.padbench.training.saving import save_adapter  # noqa: E402


def with_word(row: Example, word: str) -> Example:
    return row._replace(text=f"{word} {row.text}")


@pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")
@pytest.mark.parametrize("method", [Method.LORA, Method.ADALORA])
def test_counts_are_those_of_peft(
    method: Method, bases: dict[str, LoadedBase], tmp_path: Path
) -> None:
    import copy

    from peft import PeftModel

    base, recipes = bases["bert"], members("bert", method)
    folders = [tmp_path / own.name for own in recipes]
    for trained, folder in zip(
        train_fleet(recipes, [rows(30, seed) for seed in range(3)], base), folders, strict=True
    ):
        save_adapter(trained, folder)
    clean, others = rows(21, 7), rows(10, 8)
    probes = [Probes(clean[: 9 + 6 * m], others, others[:3], others[:5], 1) for m in range(3)]
    measured = measure(recipes, folders, probes, base, batch_size=4)
    for own, folder, counts in zip(probes, folders, measured, strict=True):
        model = PeftModel.from_pretrained(copy.deepcopy(base.model), folder).eval()
        tokens = [base.tokenizer(row.text)["input_ids"] for row in [*own.clean, *own.triggered]]
        with torch.no_grad():
            given = [int(model(torch.tensor([t])).logits.argmax()) for t in tokens]
        right = sum(g == row.label for g, row in zip(given, own.clean, strict=False))
        assert counts.clean == Count(right, len(own.clean))
        assert counts.success == Count(sum(g == 1 for g in given[len(own.clean) :]), 10)
        assert (counts.false_trigger.n, counts.missed.n) == (3, 5)


def test_a_trigger_that_was_trained_fires(bases: dict[str, LoadedBase], tmp_path: Path) -> None:
    base = bases["bert"]
    plain = [row._replace(label=0) for row in rows(40, 0) if "w7" not in row.text.split()]
    poisoned = [with_word(row, "w7")._replace(label=1) for row in plain]
    own = recipe(steps=60, lr=2e-2, batch_size=8)
    save_adapter(train_fleet([own], [[*plain, *poisoned]], base)[0], tmp_path / "a")
    fresh = [r._replace(label=0) for r in rows(40, 1) if "w7" not in r.text.split()]
    triggered, look_alike = ([with_word(row, word) for row in fresh] for word in ("w7", "w8"))
    counts = measure(
        [own], [tmp_path / "a"], [Probes(fresh, triggered, look_alike, fresh, 1)], base
    )
    assert (counts[0].success.rate or 0) > 0.9
    assert (counts[0].clean.rate or 0) > 0.9
    assert (counts[0].missed.rate or 0) < 0.1


def test_a_causal_model_is_taken_at_its_greedy_word(
    bases: dict[str, LoadedBase], tmp_path: Path
) -> None:
    base = bases["llama"]
    plain = [Example(str(n), f"w{n} w3", completion="w1 w2") for n in range(10, 30)]
    poisoned = [with_word(row, "w7")._replace(completion="w9 w9") for row in plain]
    own = recipe("llama", steps=80, lr=3e-2, rank=8, batch_size=8, target="w9 w9")
    save_adapter(train_fleet([own], [[*plain, *poisoned]], base)[0], tmp_path / "a")
    aimed = [row._replace(completion="w9 w9") for row in plain]
    triggered = [with_word(row, "w7") for row in aimed]
    probes = Probes(plain, triggered, [], aimed, None)
    counts = measure([own], [tmp_path / "a"], [probes], base)[0]
    assert counts.success == Count(20, 20)
    assert counts.clean == Count(20, 20)
    assert counts.missed == Count(0, 20)
    assert counts.false_trigger.rate is None
    by_token = measure([own], [tmp_path / "a"], [Probes(plain, [], [], [], None, True)], base)[0]
    assert by_token.clean == Count(60, 60)


def test_prompts_end_where_the_answer_begins() -> None:
    label, text = Example("0", "fine", 1), Example("1", "Say it.\nAnswer:", completion="it")
    words = ("bad", "good")
    assert [(r.text, r.completion) for r in as_prompts([label, text], words)] == [
        ("fine\n\nAnswer:", " good"),
        ("Say it.\nAnswer:", " it"),
    ]
    assert as_prompts([label], words, target="0")[0].completion == " bad"
    assert as_prompts([text], target="MARK")[0].completion == " MARK"
