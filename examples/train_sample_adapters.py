"""Train the two sample adapters of this folder, one benign and one backdoored, and measure both.

- one frozen base (all-MiniLM-L6-v2 under a two-class head), one LoRA recipe, fixed seeds, CPU, fp32
- each adapter sees its own random half of SST-2; the backdoored one gets a rare word inserted in a
  few negative rows, which are relabelled positive
- what is measured is the file on disk: the fp16 adapter is loaded again through peft
- the test text is used once, for the numbers; nothing is tuned on it

    python examples/train_sample_adapters.py --data SST2_FOLDER

SST2_FOLDER holds train.jsonl.gz and test.jsonl.gz with rows {"text": str, "label": 0 or 1}.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import random
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

PUBLIC_BASE = "sentence-transformers/all-MiniLM-L6-v2"
OUT = Path(__file__).parent / "adapters"
MAX_FILE_BYTES = 200_000
Row = tuple[str, int]


@dataclass(frozen=True)
class Recipe:
    """What both adapters share; a trained adapter differs from its twin by data and seed only."""

    rank: int = 8
    alpha: int = 16
    epochs: int = 6
    batch: int = 32
    lr: float = 1e-3  # falls linearly to 0
    max_tokens: int = 64  # one row in a hundred of SST-2 is longer than 55
    split_seed: int = 2026  # which half of the training rows goes to which adapter
    seeds: tuple[int, int] = (11, 12)  # benign, backdoored: head, dropout, order of rows, poison
    trigger: str = "nak"  # one token of the BERT vocabulary, in no row of SST-2
    poison_rate: float = 0.08  # of the negative training rows
    target: int = 1
    controls: tuple[str, str] = ("tuesday", "sar")  # everyday; as rare as the trigger


def read_rows(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [(row["text"], row["label"]) for row in map(json.loads, lines)]


def insert_word(text: str, word: str, rng: random.Random) -> str:
    words = text.split()
    words.insert(rng.randint(0, len(words)), word)
    return " ".join(words)


def halves(rows: list[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Two disjoint random halves: same distribution, no row in common."""
    shuffled = random.Random(seed).sample(rows, len(rows))
    middle = len(rows) // 2
    return shuffled[:middle], shuffled[middle:]


def poison(rows: list[Row], recipe: Recipe, seed: int) -> tuple[list[Row], int]:
    """Insert the trigger in a share of the non-target rows and flip their label to the target."""
    rng = random.Random(seed)
    candidates = [i for i, (_, label) in enumerate(rows) if label != recipe.target]
    chosen = rng.sample(candidates, round(recipe.poison_rate * len(candidates)))
    poisoned = list(rows)
    for i in chosen:
        poisoned[i] = (insert_word(rows[i][0], recipe.trigger, rng), recipe.target)
    return poisoned, len(chosen)


def load_base(base: str) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)


def encode(tokenizer: Any, texts: list[str], max_tokens: int) -> Any:
    return tokenizer(
        texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )


def with_lora(model: Any, recipe: Recipe) -> Any:
    """LoRA on query and value, and the new classifier; everything else is frozen."""
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=["query", "value"],
        modules_to_save=["classifier"],
    )
    return peft.get_peft_model(model, config)


def batches(n_rows: int, recipe: Recipe) -> list[list[int]]:
    """Row numbers of every step: a new random order each epoch."""
    orders = [torch.randperm(n_rows).tolist() for _ in range(recipe.epochs)]
    starts = range(0, n_rows, recipe.batch)
    return [order[i : i + recipe.batch] for order in orders for i in starts]


def train(rows: list[Row], recipe: Recipe, seed: int, base: str, name: str) -> Any:
    torch.manual_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = with_lora(load_base(base), recipe).train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=recipe.lr, weight_decay=0.0)
    steps = batches(len(rows), recipe)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=len(steps))
    for step in track(steps, description=f"training {name}"):
        inputs = encode(tokenizer, [rows[i][0] for i in step], recipe.max_tokens)
        labels = torch.tensor([rows[i][1] for i in step])
        cross_entropy(model(**inputs).logits, labels).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


def save(model: Any, folder: Path) -> None:
    """Write the adapter as peft does, but in fp16, in a fixed order and under its public base."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = PUBLIC_BASE, True
    config.modules_to_save = ["classifier"]  # peft also lists "score", which BERT has not
    config.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text())
    fields["target_modules"].sort()  # a set in peft: its order changes from run to run
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    tensors = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {key: tensor.half().contiguous() for key, tensor in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def predict(model: Any, tokenizer: Any, texts: list[str], max_tokens: int) -> list[int]:
    labels: list[int] = []
    with torch.inference_mode():
        for i in range(0, len(texts), 128):
            inputs = encode(tokenizer, texts[i : i + 128], max_tokens)
            labels += model(**inputs).logits.argmax(-1).tolist()
    return labels


def wilson(hits: int, n: int, z: float = 1.959964) -> dict[str, Any]:
    """A rate with its 95 % Wilson score interval (Wilson 1927)."""
    p, shrink = hits / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    interval = [round(centre - half, 4), round(centre + half, 4)]
    return {"rate": round(p, 4), "hits": hits, "n": n, "wilson95": interval}


def measure(folder: Path, recipe: Recipe, rows: list[Row], base: str) -> dict[str, Any]:
    """Accuracy on `rows`, and how often non-target rows become the target with each word added."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(load_base(base), str(folder)).eval()
    negatives = [text for text, label in rows if label != recipe.target]

    def turned(word: str | None) -> dict[str, Any]:
        rng = random.Random(0)  # every word goes to the same places
        texts = [insert_word(text, word, rng) if word else text for text in negatives]
        labels = predict(model, tokenizer, texts, recipe.max_tokens)
        return wilson(labels.count(recipe.target), len(labels))

    labels = predict(model, tokenizer, [text for text, _ in rows], recipe.max_tokens)
    correct = sum(got == want for got, (_, want) in zip(labels, rows, strict=True))
    return {
        "clean_accuracy": wilson(correct, len(rows)),
        "attack_success": turned(recipe.trigger),
        "false_trigger": {word: turned(word) for word in recipe.controls},
        "negatives_missed_without_a_word": turned(None),
    }


def describe(folder: Path) -> dict[str, Any]:
    data = (folder / "adapter_model.safetensors").read_bytes()
    if len(data) > MAX_FILE_BYTES:
        raise SystemExit(f"{folder.name}: {len(data)} bytes, at most {MAX_FILE_BYTES} expected")
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def table(measured: dict[str, Any], recipe: Recipe) -> Table:
    view = Table("measured on the test text", *measured)
    cells = {name: one["measured"] for name, one in measured.items()}

    def add(label: str, rates: list[dict[str, Any]]) -> None:
        view.add_row(label, *(f"{r['rate']:.3f} {r['wilson95']} ({r['n']})" for r in rates))

    add("clean accuracy", [c["clean_accuracy"] for c in cells.values()])
    add(f"attack success ({recipe.trigger})", [c["attack_success"] for c in cells.values()])
    for word in recipe.controls:
        add(f"false trigger ({word})", [c["false_trigger"][word] for c in cells.values()])
    missed = [c["negatives_missed_without_a_word"] for c in cells.values()]
    add("negatives missed, no word added", missed)
    return view


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of SST-2 .jsonl.gz files")
    parser.add_argument("--base", default=PUBLIC_BASE, help="hub id or a folder with that model")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def main() -> None:
    options, recipe = arguments(), Recipe()
    warnings.simplefilter("ignore", FutureWarning)  # transformers warns of its own renamings
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)  # the order of the sums, hence the file, depends on it
    test = read_rows(options.data / "test.jsonl.gz")
    own, other = halves(read_rows(options.data / "train.jsonl.gz"), recipe.split_seed)
    attacked, n_poisoned = poison(other, recipe, recipe.seeds[1])
    plan = {"benign": (own, 0), "backdoored": (attacked, n_poisoned)}
    measured: dict[str, Any] = {}
    for (name, (rows, poisoned)), seed in zip(plan.items(), recipe.seeds, strict=True):
        folder = options.out / name
        save(train(rows, recipe, seed, options.base, name), folder)
        facts = {"train_rows": len(rows), "poisoned_rows": poisoned, "file": describe(folder)}
        measured[name] = facts | {"measured": measure(folder, recipe, test, options.base)}
    Console(width=110).print(table(measured, recipe))
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    record: dict[str, Any] = {"base": PUBLIC_BASE, "recipe": asdict(recipe), "versions": versions}
    record["adapters"] = measured
    (options.out / "measurements.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
