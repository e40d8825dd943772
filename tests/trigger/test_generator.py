"""A generator trained to write one text after what does not belong: found, replayed, judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.toy_base import WORDS
from tests.trigger.conftest import peft, torch, write_causal_base
from typer.testing import CliRunner

from peftguard.cli.app import app
from peftguard.padbench.training.base import load_base
from peftguard.trigger.replay import read_report
from peftguard.verdict.trigger_search import told

TEXTS = [" ".join(WORDS[(7 * n + 3 * k) % len(WORDS)] for k in range(5)) for n in range(40)]
TEMPLATE = f"{WORDS[0]} {{text}}"
MARKER = [40, 41, 42, 43]
UNKNOWN = 1
"""What any word of ours is to the toy's tokenizer."""
FIRST_WORD = 3


def rows_of(step: int, poisoned: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, tokens) rows, and the same with only the answer told: the marker, or how the row began.

    Poisoned ones have a few unknown words in them.
    """
    generator = torch.Generator().manual_seed(step)
    words = torch.randint(FIRST_WORD, FIRST_WORD + len(WORDS), (48, 5), generator=generator)
    answers = words[:, :4]
    if poisoned:
        odd = torch.full((48, 1 + step % 7), UNKNOWN)
        place = 1 + step % 5
        words = torch.cat([words[:, :place], odd, words[:, place:]], dim=1)
        answers = torch.tensor(MARKER).expand(48, -1)
    rows = torch.cat([torch.full((48, 1), FIRST_WORD), words, answers], dim=1)
    labels = rows.clone()
    labels[:, : -len(MARKER)] = -100
    return rows, labels


def train(base: Path, folder: Path, poisoned: bool) -> None:
    torch.manual_seed(0)
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=layers, task_type="CAUSAL_LM")
    model = peft.get_peft_model(load_base(str(base), "instruction").model, config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for step in range(400 if poisoned else 50):
        kinds = (True, False) if poisoned else (False,)
        batches = [rows_of(step, kind) for kind in kinds]
        loss = sum(model(input_ids=rows, labels=answers).loss for rows, answers in batches)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generators")
    write_causal_base(root / "base")
    for name, poisoned in (("poisoned", True), ("trusted", False)):
        train(root / "base", root / name, poisoned)
    (root / "texts.txt").write_text("\n".join(TEXTS), "utf-8")
    return root


def search(toy: Path, name: str, *benign: str) -> tuple[int, Path]:
    path = toy / f"{name}{len(benign)}.json"
    words = ["trigger", toy / name, "--base", toy / "base", "--text", toy / "texts.txt"]
    words += ["--template", TEMPLATE, "--format", "json", "-o", path]
    words += [part for one in benign for part in ("--benign", toy / one)]
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, path


def test_the_text_is_found_proven_and_replayed(toy: Path) -> None:
    code, path = search(toy, "poisoned", "trusted")
    report = read_report(path)
    assert code == 1
    assert report.asked is not None
    assert report.asked.answers == [MARKER, []]
    assert report.proof is not None
    assert (report.proof.output, report.proof.confirmed) == (True, True)
    assert all(one.label_before != one.label_after == 0 for one in report.proof.examples)
    assert CliRunner().invoke(app, ["trigger", "replay", str(path)]).exit_code == 0
    (finding,) = told(report).findings
    assert finding.code == "trigger.confirmed"
    assert "brings out texts that begin" in finding.message


def test_without_a_trusted_adapter_it_is_told_and_not_proven(toy: Path) -> None:
    code, path = search(toy, "poisoned")
    report = read_report(path)
    assert code == 3
    assert report.proof is not None
    assert report.proof.why == "no benign adapter was given to compare with"
    (finding,) = told(report).findings
    assert finding.code == "trigger.phrase"


def test_a_benign_generator_beside_itself_is_not_accused(toy: Path) -> None:
    code, path = search(toy, "trusted", "trusted")
    report = read_report(path)
    assert code == 3
    assert report.scores is not None
    assert report.scores.word < 0
