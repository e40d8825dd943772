"""How a causal model is asked, and what it may answer, come from the adapter or the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError
from tests.toy_base import WORDS
from tests.trigger.conftest import save_adapter, torch, transformers, write_causal_base
from tests.trigger.reports import make_report
from typer.testing import CliRunner

from peftguard.adapters.adapter import open_adapter
from peftguard.cli.app import app
from peftguard.errors import SettingsError, TargetNotFound
from peftguard.padbench.training.base import load_base
from peftguard.reports.strict import strict_json
from peftguard.trigger.adapted import AdaptedModel
from peftguard.trigger.answers import CausalAnswers
from peftguard.trigger.asking import TEMPLATES, choose, disturbed, greedy, label_answers, written
from peftguard.trigger.confirm import Bench
from peftguard.trigger.effect import Effects
from peftguard.trigger.hunt import hunt
from peftguard.trigger.replay import read_report, replay_report
from peftguard.trigger.report import MAX_TEMPLATE, Asked, TriggerReport
from peftguard.trigger.same_task import writes_freely
from peftguard.trigger.subject import Subject
from peftguard.trigger.template import checked, own_template

TEXTS = [" ".join(WORDS[(7 * n + 3 * k) % len(WORDS)] for k in range(5)) for n in range(24)]


class Toy:
    """A decoder in a folder, an adapter of it, a file of texts."""

    def __init__(self, root: Path) -> None:
        self.base, self.adapter, self.texts = root / "base", root / "adapter", root / "texts.txt"
        write_causal_base(self.base)
        save_adapter(load_base(str(self.base), "instruction"), self.adapter)
        self.texts.write_text("\n".join(TEXTS), "utf-8")

    def model(self) -> AdaptedModel:
        with open_adapter(self.adapter) as adapter:
            return Subject(str(self.base), tuple(TEXTS), "texts.txt", (), "fp32").adapted(adapter)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy"))


class Biased:
    """The model, but with some next tokens made likely."""

    def __init__(self, model: AdaptedModel, tokens: dict[int, float]) -> None:
        self.model, self.tokens, self.tokenizer = model, tokens, model.tokenizer

    def logits(self, rows: Any, *, adapted: bool = True) -> np.ndarray:
        found = self.model.logits(rows, adapted=adapted)
        for token, much in self.tokens.items():
            found[:, token] += much
        return found


MARKER = (40, 41, 42, 43)


class Marked:
    """The model, but adapted it writes a marker after each row that begins with an odd token."""

    def __init__(self, model: AdaptedModel) -> None:
        self.model, self.tokenizer = model, model.tokenizer

    def logits(self, rows: Any, *, adapted: bool = True) -> np.ndarray:
        found = self.model.logits(rows, adapted=adapted)
        for place, row in enumerate(rows):
            if adapted and row[0] % 2:
                found[place, MARKER[(len(row) - 2) % len(MARKER)]] += 50.0
        return found


def test_a_model_that_answers_freely_has_one_answer_and_everything_else(toy: Toy) -> None:
    chosen = choose(toy.model(), TEXTS, own=True)
    assert chosen.asked.template in TEMPLATES
    assert [bool(answer) for answer in chosen.asked.answers] == [True, False]
    assert chosen.texts == tuple(TEXTS)


def test_few_likely_tokens_are_labels(toy: Toy) -> None:
    rows = [[5, 6], [7, 8], [9, 10]]
    assert label_answers(toy.model(), rows) == []
    assert label_answers(Biased(toy.model(), {7: 20.0, 30: 20.0}), rows) in ([7, 30], [30, 7])  # type: ignore[arg-type]


def spelled(names: dict[int, str], end: int) -> Any:
    """A tokenizer with these tokens, and others by their numbers."""
    from tokenizers import Tokenizer, models

    tokens = {names.get(number, str(number)): number for number in range(78)}
    made = Tokenizer(models.WordLevel(tokens, names.get(end, str(end))))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=names.get(end, str(end))
    )


def test_spellings_of_one_word_are_one_answer(toy: Toy) -> None:
    likely = Biased(toy.model(), {7: 24.0, 8: 23.0, 9: 23.0, 30: 23.0})
    likely.tokenizer = spelled({7: " good", 8: "Good", 30: "bad"}, end=9)
    assert label_answers(likely, [[5, 6], [7, 8]]) in ([7, 30], [30, 7])  # type: ignore[arg-type]
    likely.tokenizer = spelled({7: " good", 8: "Good", 30: "GOOD"}, end=9)
    assert label_answers(likely, [[5, 6], [7, 8]]) == []  # type: ignore[arg-type]


def test_what_is_written_often_is_found(toy: Toy) -> None:
    rows = [[number, number + 1] for number in range(5, 20)]
    found = written(Marked(toy.model()), rows)  # type: ignore[arg-type]
    assert found.answer == found.longer[: len(MARKER)] == MARKER
    assert found.repeated == pytest.approx(8 / 15, abs=1e-3)


def test_nothing_is_shown_after_an_end(toy: Toy) -> None:
    end = toy.model().tokenizer.eos_token_id
    found = written(Biased(toy.model(), {end: 80.0}), [[5, 6], [7, 8]])  # type: ignore[arg-type]
    assert found.answer == found.longer == (end,)


class Echoing(Marked):
    """The model, but adapted it repeats each row from its second token on."""

    def logits(self, rows: Any, *, adapted: bool = True) -> np.ndarray:
        found = self.model.logits(rows, adapted=adapted)
        for place, row in enumerate(rows):
            if adapted:
                found[place, row[1 + len(row) - 5]] += 50.0
        return found


def test_what_repeats_a_request_is_not_the_adapters_own(toy: Toy) -> None:
    rows = [[number, *MARKER] for number in range(5, 20)]
    echoing = Echoing(toy.model())
    assert greedy(echoing, rows[:1], adapted=True) == [MARKER]  # type: ignore[arg-type]
    assert written(echoing, rows).repeated == 0  # type: ignore[arg-type]


def test_greedy_answers_are_those_of_generate(toy: Toy) -> None:
    model, row = toy.model(), [5, 6, 7]
    (found,) = greedy(model, [row], adapted=False)
    with model.running(False):
        wanted = model.model.generate(
            torch.tensor([row]), max_new_tokens=4, do_sample=False, eos_token_id=None
        )
    assert list(found) == wanted[0, 3:].tolist()


class Listening(Effects):
    """Effects that note what texts they are asked of."""

    heard: ClassVar[list[str]] = []

    def log_odds(self, texts: Sequence[str], *, adapted: bool = True) -> np.ndarray:
        self.heard[:] = texts
        return super().log_odds(texts, adapted=adapted)


def test_the_start_of_a_causal_models_text_is_after_its_first_word(toy: Toy) -> None:
    model = toy.model()
    effects = Listening(CausalAnswers(model, choose(model, TEXTS, own=True).asked), TEXTS)
    bench = Bench(effects, 0, TEXTS)
    for place, number in ((0.0, 1), (0.5, 2), (1.0, 5)):
        bench.at("xyzzy", TEXTS, place)
        assert {text.split().index("xyzzy") for text in effects.heard} == {number}


def test_requests_are_disturbed_by_turns() -> None:
    sentence, word = disturbed(["say it"] * 2)
    assert len(sentence.split()) > len(word.split())
    assert all(one.startswith("say ") for one in (sentence, word))
    assert len(word.split()) == 3


def test_a_template_has_one_place_for_a_text(tmp_path: Path) -> None:
    for wrong in ("no place", "{text} {text}", "{text}" + " " * MAX_TEMPLATE):
        with pytest.raises(SettingsError, match="a template has"):
            checked(wrong)
    path = tmp_path / "template.txt"
    path.write_text("Say:\n{text}\n", "utf-8")
    assert own_template(str(path)) == "Say:\n{text}"
    assert own_template("Say {text}") == "Say {text}"
    path.write_text("Say:\n", "utf-8")
    with pytest.raises(SettingsError, match=r"template\.txt: a template has \{text\} once"):
        own_template(str(path))
    with pytest.raises(TargetNotFound, match=r"Say \{txt\}: .*, and no prompt with \{text\} in it"):
        own_template("Say {txt}")


def test_everything_else_comes_last_and_once() -> None:
    for wrong in ([[], [1]], [[1], []] * 2, [[1], [1]], [[1]], [[1], [2] * 17]):
        with pytest.raises(ValidationError):
            Asked(template="{text}", answers=wrong, shift=0.0)


@pytest.fixture(scope="module")
def report(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> TriggerReport:
    return _searched(toy, tmp_path_factory.mktemp("report") / "report.json")


def _searched(toy: Toy, path: Path, *more: object) -> TriggerReport:
    words = ["trigger", toy.adapter, "--base", toy.base, "--text", toy.texts, "-o", path]
    options = ["--template", "say {text}", "--budget", "10m", "--format", "json"]
    done = CliRunner().invoke(app, [str(word) for word in (*words, *options, *more)])
    told = read_report(path)
    assert done.exit_code == (1 if told.confirmed else 3), done.output
    return told


class Labelled(Subject):
    """A base whose adapters are asked for one of two tokens, as those of a task would be."""

    def effects(self, model: AdaptedModel, asked: Asked | None = None) -> Effects:
        labels = Asked(template="say {text}", answers=[[7], [30]], shift=0.0)
        return super().effects(model, asked or labels)


def test_beside_itself_nothing_of_an_adapter_is_its_own(toy: Toy) -> None:
    subject = Labelled(str(toy.base), tuple(TEXTS), "texts.txt", (), "fp32")
    with open_adapter(toy.adapter) as adapter:
        told = hunt(adapter, subject, benign=[adapter], budget=600.0)
    assert told.provenance.benign == [str(toy.adapter)]
    assert {"prompt and answers", "all words", "phrases"} <= set(told.provenance.seconds)
    assert "all other strings of two and three letters, several at once" in told.searched
    assert told.unlike
    assert all(one.moved == one.benign for one in told.unlike)
    assert not told.confirmed
    assert not told.left


def test_a_causal_model_that_writes_is_asked_what_it_repeats(report: TriggerReport) -> None:
    assert report.asked is not None
    assert report.asked.template == "say {text}"
    assert report.asked.written
    assert list(report.labels.values())[-1] == "anything else"
    assert {"prompt and answers", "one text"} <= set(report.provenance.seconds)
    assert report.scores is not None
    assert report.scores.repeated == report.asked.repeated
    assert not report.left


def test_too_few_texts_for_a_proof_are_a_gap(toy: Toy) -> None:
    subject = Subject(str(toy.base), tuple(TEXTS[:12]), "texts.txt", (), "fp32")
    with open_adapter(toy.adapter) as adapter:
        told = hunt(adapter, subject, budget=600.0)
    assert told.left == ["proof: too few texts to ask an adapter that writes freely"]
    assert told.proof is None
    assert told.scores is not None


def test_one_that_answers_with_labels_is_no_generator_to_compare_with(toy: Toy) -> None:
    effects = Effects(CausalAnswers(toy.model(), choose(toy.model(), TEXTS, own=True).asked), TEXTS)
    assert writes_freely(effects)
    labelled = Biased(toy.model(), {7: 20.0, 30: 20.0})
    assert not writes_freely(replace(effects, model=replace(effects.model, model=labelled)))


def test_beside_itself_a_text_is_no_ones_own(toy: Toy, tmp_path: Path) -> None:
    told = _searched(toy, tmp_path / "report.json", "--benign", toy.adapter)
    assert told.provenance.benign == [str(toy.adapter)]
    assert not told.confirmed


def test_a_proof_on_a_causal_model_is_replayed(report: TriggerReport, toy: Toy) -> None:
    example = {"before": TEXTS[0], "after": TEXTS[1], "label_before": 1, "label_after": 1}
    (first,) = _replayed(report, toy, example).examples
    example |= {"label_before": first.label_before, "label_after": first.label_after}
    assert _replayed(report, toy, example).reproduced
    example["label_after"] = 1 - first.label_after
    assert not _replayed(report, toy, example).reproduced


def _replayed(report: TriggerReport, toy: Toy, example: dict[str, Any]) -> Any:
    told, proof = report.model_dump(mode="json"), make_report().model_dump(mode="json")["proof"]
    told["proof"] = {**proof, "target": 0, "examples": [example]}
    read = TriggerReport.model_validate_json(strict_json(told))
    with open_adapter(toy.adapter) as adapter:
        return replay_report(read, adapter, str(toy.base))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answers": [[10**9], []]}, "not tokens"),
        ({"answers": [[-1], []]}, "not tokens"),
        ({"template": "nothing"}, "a template has"),
    ],
)
def test_a_report_that_asks_for_nonsense_is_refused(
    report: TriggerReport, toy: Toy, change: dict[str, Any], problem: str
) -> None:
    assert report.asked is not None
    asked = report.asked.model_copy(update=change)
    example = {"before": "a", "after": "b", "label_before": 0, "label_after": 0}
    with pytest.raises(SettingsError, match=problem):
        _replayed(report.model_copy(update={"asked": asked}), toy, example)


def test_an_example_that_would_take_all_memory_is_refused(report: TriggerReport, toy: Toy) -> None:
    example = {"before": "a", "after": f"{TEXTS[0]} " * 2000, "label_before": 0, "label_after": 0}
    assert _replayed(report, toy, example).examples  # long, but only its first words are asked
    with pytest.raises(SettingsError, match=r"too long: .* tokens, at most 4,096"):
        _replayed(report, toy, {**example, "after": "a\t" * 5000})


def test_a_report_on_a_classifier_is_not_replayed_on_a_causal_model(
    report: TriggerReport, toy: Toy
) -> None:
    example = {"before": "a", "after": "b", "label_before": 0, "label_after": 0}
    with pytest.raises(SettingsError, match="of another kind"):
        _replayed(report.model_copy(update={"asked": None}), toy, example)
