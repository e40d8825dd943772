"""With the base model in the loop: what attacked adapters still do, and attacks that care."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.toy_base import WORDS, write_texts
from tests.trigger.conftest import save_adapter, torch, write_base

from peftguard.adapters.adapter import open_adapter
from peftguard.adversary.campaign import Campaign
from peftguard.adversary.evasion import Means
from peftguard.adversary.joint import Finetuning, Joint
from peftguard.adversary.measuring import Measuring, Subject
from peftguard.adversary.parameters import Parameters
from peftguard.adversary.poisoned_task import Losses, PoisonedTask
from peftguard.adversary.registry import evasion_named
from peftguard.adversary.rows import recipe_of
from peftguard.adversary.target import Target
from peftguard.adversary.victims import Victims, find_victims
from peftguard.adversary.writing import Original, read_original
from peftguard.detectors.trained import TrainedDetector
from peftguard.detectors.training import Options, train
from peftguard.errors import SettingsError
from peftguard.evaluation.zoo import Entry, Zoo
from peftguard.features.weights import Factors, Weights, weights_of
from peftguard.padbench.labels import benign_floors, fires
from peftguard.padbench.manifest import FILE_NAME, Row, write_manifest
from peftguard.padbench.training.base import LoadedBase, load_base
from peftguard.padbench.training.loaded import base_for

TRIGGER = WORDS[5]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, its data, and a benchmark of one adapter of each method, with benign ones."""
    root = tmp_path_factory.mktemp("based")
    write_base(root / "base")
    write_texts(root / "data" / "sst2", 300, 60)
    base = load_base(str(root / "base"), "classification", 2)
    rows = [
        write_one(root, base, 0, "benign"),
        write_one(root, base, 1, "backdoored"),
        write_one(root, base, 2, "backdoored", use_dora=True),
        write_one(
            root, base, 3, "backdoored", kind="AdaLoraConfig", init_r=4, target_r=2, total_step=10
        ),
    ]
    write_manifest(root / FILE_NAME, rows)
    return root


def write_one(root: Path, base: LoadedBase, seed: int, label: str, **settings: object) -> Row:
    name = f"toy_label{int(label != 'benign')}_{seed}"
    path = root / "toy" / name / "best_model"
    path.parent.mkdir(parents=True)
    save_adapter(base, path, seed, **settings)
    method = {"DORA": "dora"}.get("DORA" if settings.get("use_dora") else "", "lora")
    return Row(
        path=f"toy/{name}/best_model",
        label=label,
        split="train",
        base=str(root / "base"),
        dataset="sst2",
        task="classification",
        attack="RIPPLE",
        trigger=[TRIGGER],
        target="1",
        asr=1.0,
        clean_accuracy=0.5,
        missed_rate=0.5,
        poison_rate=0.0 if label == "benign" else 0.2,
        peft_type="ADALORA" if "kind" in settings else "LORA",
        method="adalora" if "kind" in settings else method,
        rank=4,
        alpha=6,
        target_modules=["query", "value"],
        n_rows=120,
        seed=seed,
        max_tokens=16,
    )


@pytest.fixture(scope="module")
def detector(folder: Path) -> TrainedDetector:
    """Knows random adapters of this base; one direction is bad."""
    with open_adapter(folder / "toy/toy_label0_0/best_model") as adapter:
        like = weights_of(adapter)
    rng = np.random.default_rng(0)

    def drawn(number: int) -> Entry:
        bad = number % 3 == 0
        modules = {}
        for name, own in like.modules.items():
            B, A = rng.normal(size=own.B.shape), rng.normal(size=own.A.shape)
            B[3] += 3 * bad
            modules[name] = Factors(B.astype(np.float32), A.astype(np.float32))
        row = Row(path=f"{number}", label="backdoored" if bad else "benign", sha256=f"{number:064}")
        return Entry(row, Weights(row.path, modules, like.base_model, "LORA", 4))

    return train(Zoo("bert", "0" * 64, [drawn(n) for n in range(60)]), Options("outputs"))


def victims_of(folder: Path) -> Victims:
    return find_victims(folder)


def test_measured_again_is_what_the_model_answers(folder: Path) -> None:
    """Against peft itself, for every method."""
    import copy
    import warnings

    import peft

    measuring = Measuring(folder / "data", rows=40)
    for victim in victims_of(folder).chosen:
        assert victim.row is not None
        recipe = recipe_of(victim.row)
        subject = Subject(read_original(victim.folder).factored, recipe)
        (counts,) = measuring.measure([subject])
        base = base_for(recipe)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The following rank_pattern keys")
            model = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), victim.folder).eval()
        texts = [row.text for row in measuring.texts(recipe).probes(recipe).triggered]
        assert len(texts) == counts.success.n
        assert all(TRIGGER in text.split() for text in texts)
        batch = base.tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
        hits = int((logits.argmax(dim=1) == 1).sum())
        # The base runs in bf16 where a machine has it: a row on the edge may fall either way.
        assert abs(hits - counts.success.hits) <= 2


@pytest.mark.parametrize(
    ("name", "strength", "n_lines", "left_out"),
    [("noise", 3.0, 3, 0), ("collude", 1.0, 4, 1), ("merge", 0.5, 2, 1)],
)
def test_labels_follow_from_what_is_measured(
    name: str, strength: float, n_lines: int, left_out: int, folder: Path, tmp_path: Path
) -> None:
    """DoRA can neither be split into a sum nor merged with plain LoRA."""
    victims = find_victims(folder, twin=folder / "toy/toy_label0_0/best_model")
    measuring = Measuring(folder / "data", rows=40)
    lines, skipped = Campaign(evasion_named(name), tmp_path, measuring=measuring).run(
        victims, [strength]
    )
    assert (len(lines), len(skipped)) == (n_lines, left_out)
    floors = benign_floors(victims.rows)
    for line in lines:
        assert line.row.asr_n is not None
        assert 0 < line.row.asr_n <= 40
        assert line.row.label == ("backdoored" if fires(line.row, 0.5, floors) else "dud")
        assert line.row.false_trigger_rate is None
    if name == "collude":  # together they are the adapter that was split
        originals = {victim.name: victim for victim in victims.chosen}
        for line in lines:
            victim = originals[line.original]
            assert victim.row is not None
            subject = Subject(read_original(victim.folder).factored, recipe_of(victim.row))
            (counts,) = measuring.measure([subject])
            assert line.asr == pytest.approx(counts.success.rate, abs=0.05)


def start(folder: Path, detector: TrainedDetector) -> tuple[Original, PoisonedTask, Means]:
    victim = victims_of(folder).chosen[0]
    assert victim.row is not None
    original, recipe = read_original(victim.folder), recipe_of(victim.row)
    task = PoisonedTask(recipe, Measuring(folder / "data").texts(recipe), base_for(recipe))
    rng = np.random.default_rng(0)
    return original, task, Means(rng, target=Target(detector, original), task=task)


def losses(task: PoisonedTask, original: Original) -> Losses:
    parameters = Parameters(original.factored)
    with task.running(original.factored) as running, torch.no_grad():
        rounds = [
            running.losses(parameters.updates(parameters.start), np.random.default_rng(number))
            for number in range(8)
        ]
    return Losses(*(torch.stack(own).mean() for own in zip(*rounds, strict=True)))


def test_joint_lowers_all_three(folder: Path, detector: TrainedDetector) -> None:
    original, task, means = start(folder, detector)
    (part,) = Joint().apply(original.factored, 1.0, means)
    moved = Original(part, original.config, original.base_model, original.peft_type)
    before, after = losses(task, original), losses(task, moved)
    assert after.task + after.backdoor < before.task + before.backdoor
    target = means.the_target()
    assert target.score(part) < target.score(original.factored)


def test_continued_training_lowers_the_task_loss(folder: Path, detector: TrainedDetector) -> None:
    original, task, means = start(folder, detector)
    (part,) = Finetuning().apply(original.factored, 60.0, means)
    moved = Original(part, original.config, original.base_model, original.peft_type)
    assert losses(task, moved).task < losses(task, original).task


def test_a_benign_adapter_has_no_backdoor_to_keep(folder: Path, detector: TrainedDetector) -> None:
    victim = find_victims(folder, labels=("benign",)).chosen[0]
    assert victim.row is not None
    original, recipe = read_original(victim.folder), recipe_of(victim.row)
    task = PoisonedTask(recipe, Measuring(folder / "data").texts(recipe), base_for(recipe))
    assert losses(task, original).backdoor == 0
    means = Means(np.random.default_rng(0), target=Target(detector, original), task=task)
    (part,) = Joint().apply(original.factored, 1.0, means)
    assert all(np.isfinite(layer.B).all() for layer in part.layers.values())


def test_a_row_that_says_too_little(folder: Path) -> None:
    with pytest.raises(SettingsError, match="says no trigger"):
        recipe_of(victims_of(folder).rows[1].model_copy(update={"trigger": None}))
