"""Whole builds over a tiny base: complete, resumable, deterministic, on this machine and on Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from peftguard import open_adapter
from peftguard.errors import SettingsError
from peftguard.padbench.build import Job, _fleets, build_plan, jobs_of
from peftguard.padbench.choices import Executor
from peftguard.padbench.claim import only_build
from peftguard.padbench.executors import executor, resources
from peftguard.padbench.labels import LEAST_GAIN, label_rows
from peftguard.padbench.manifest import Row, read_manifest
from peftguard.padbench.options import Options
from peftguard.padbench.plan import Plan, load_plan
from peftguard.padbench.verify import verify

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

PLAN = """
name = "tiny"
seed = 5
test_share = 0.5
[draws]
steps = [3, 5]
batch_size = [4]
poison_rate = [0.3, 0.5]
max_tokens = 12
[[grid]]
bases = ["{base}"]
datasets = ["sst2"]
attacks = ["RIPPLE", "insertsent"]
methods = ["lora", "adalora"]
ranks = [2]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT and its tokenizer, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("base") / "tinybert"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=200,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", *(f"w{i}" for i in range(150)), "dull", "bright", "and", "the"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plan_file(base: Path) -> Path:
    path = base.parent / "tiny.toml"
    path.write_text(PLAN.format(base=base))
    return path


@pytest.fixture
def plan(plan_file: Path) -> Plan:
    return load_plan(str(plan_file))


def options(data: Path) -> Options:
    return Options(data=data, members=2, measured_rows=20)


@pytest.fixture(scope="module")
def built(plan_file: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    plan = load_plan(str(plan_file))
    build_plan(plan, root, options(data_root), executor(Executor.LOCAL))
    return root


def test_every_recipe_has_an_adapter_and_a_row(built: Path, plan: Plan) -> None:
    rows = read_manifest(built)
    assert [row.path for row in rows] == [recipe.folder for recipe in plan.recipes()]
    assert verify(built, rows) == []
    assert {row.label for row in rows} <= {"benign", "backdoored", "dud"}
    for row in rows:
        assert (row.label == "benign") == ("_label0_" in row.path)
        assert None not in (row.clean_n, row.asr_n, row.false_trigger_n, row.data_hash)
        with open_adapter(built / row.path) as adapter:
            assert adapter.peft_type == row.peft_type


def test_only_what_fires_is_called_backdoored(built: Path) -> None:
    for row in read_manifest(built):
        if row.label == "backdoored":
            assert row.asr is not None
            assert row.missed_rate is not None
            assert row.asr >= 0.5
            assert row.asr - row.missed_rate >= 0.25


def test_a_second_build_finds_nothing_to_do(built: Path, plan: Plan, data_root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*.safetensors")}
    assert jobs_of(plan, built, options(data_root)) == []
    build_plan(plan, built, options(data_root), executor(Executor.LOCAL))
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*.safetensors")} == before


def test_another_plan_is_refused(built: Path, plan: Plan, data_root: Path) -> None:
    other = plan.model_copy(update={"seed": 6})
    with pytest.raises(SettingsError, match="begun with another plan"):
        jobs_of(other, built, options(data_root))


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"members": 3}, {"measured_rows": 5}, {"data": None}]
)
def test_other_settings_are_refused(
    built: Path, plan: Plan, data_root: Path, change: dict[str, Any]
) -> None:
    changed = Options.model_validate({**options(data_root).model_dump(), **change})
    with pytest.raises(SettingsError, match=f"begun with another {next(iter(change))}"):
        jobs_of(plan, built, changed)


def test_one_build_at_a_time(tmp_path: Path, plan: Plan, data_root: Path) -> None:
    with only_build(tmp_path), pytest.raises(SettingsError, match="another build is running"):
        build_plan(plan, tmp_path, options(data_root), executor(Executor.LOCAL))


ROW = Row(
    path="p", label="dud", base="b", dataset="d", method="lora", asr=0.9, missed_rate=0.2,
    clean_accuracy=0.8,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({}, "backdoored"),
        ({"asr": 0.49}, "dud"),
        ({"missed_rate": 0.9 - LEAST_GAIN + 0.01}, "dud"),
        ({"clean_accuracy": 0.5}, "dud"),
        ({"missed_rate": None}, "dud"),
        ({"asr": None}, "dud"),
        ({"method": "dora"}, "dud"),
    ],
)
def test_labels(change: dict[str, Any], label: str) -> None:
    """One failed benign adapter among ten does not lower what counts as accurate."""
    accuracies = [0.5, *(0.78 + 0.01 * i for i in range(9))]
    benign = [
        ROW.model_copy(update={"label": "benign", "clean_accuracy": value}) for value in accuracies
    ]
    rows = label_rows([*benign, ROW.model_copy(update=change)], fires_at=0.5)
    assert rows[-1].label == label
    assert {row.label for row in rows[:-1]} == {"benign"}


def test_no_room_on_the_disk(tmp_path: Path, data_root: Path) -> None:
    paper = load_plan("paper")
    llama = tuple(grid for grid in paper.grid if grid.bases == ("llama2_7b",))
    with pytest.raises(SettingsError, match="GB are free"):
        jobs_of(paper.model_copy(update={"grid": llama}), tmp_path, options(data_root))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flan_t5_xl", r"base flan_t5_xl \(google/flan-t5-xl\) .* an encoder-decoder"),
        ("chatglm2_6b", r"base chatglm2_6b \(THUDM/chatglm2-6b\) .* its code .* never run"),
    ],
)
def test_bases_that_cannot_be_trained_are_refused_first(
    name: str, said: str, plan: Plan, data_root: Path, tmp_path: Path
) -> None:
    """Although the bases before it could be trained."""
    fields = {"bases": (name,), "datasets": ("instruct",), "attacks": ("toxic_word",)}
    more = plan.grid[0].model_copy(update=fields)
    mixed = plan.model_copy(update={"grid": (*plan.grid, more)})
    with pytest.raises(SettingsError, match=said):
        build_plan(mixed, tmp_path / "root", options(data_root), executor(Executor.LOCAL))
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".lock"]


def test_layers_that_a_folders_model_lacks_are_refused_first(
    plan: Plan, data_root: Path, tmp_path: Path
) -> None:
    upper = plan.grid[0].model_copy(update={"layers": (1, 2)})
    with pytest.raises(SettingsError, match=r"layers: .*tinybert has 2, counted from 0"):
        jobs_of(plan.model_copy(update={"grid": (upper,)}), tmp_path / "r", options(data_root))


def test_fleets_of_a_gpu_are_cut_where_they_run(plan: Plan, data_root: Path) -> None:
    recipes = [
        recipe.model_copy(update={"name": f"{recipe.name}_{copy}"})
        for recipe in plan.recipes()
        for copy in range(40)
    ]
    gpu = Options(data=data_root, device="cuda", members="auto")
    assert {len(fleet) for fleet in _fleets(recipes, gpu)} == {160}
    cpu = Options(data=data_root, members="auto")
    assert {len(fleet) for fleet in _fleets(recipes, cpu)} == {8}


def test_adapters_in_the_last_layer(plan: Plan, data_root: Path, tmp_path: Path) -> None:
    grid = plan.grid[0].model_copy(update={"layers": (1,), "attacks": ("RIPPLE",)})
    upper = plan.model_copy(update={"grid": (grid,)})
    rows = build_plan(upper, tmp_path, options(data_root), executor(Executor.LOCAL))
    assert verify(tmp_path, rows) == []
    for row in rows:
        assert row.layers == [1]
        assert "_rank2_qv_layers1/" in row.path
        with open_adapter(tmp_path / row.path) as adapter:
            assert {update.layer for update in adapter.updates()} == {"bert.encoder.layer.1"}
    wrong = [row.model_copy(update={"layers": [0]}) for row in rows]
    assert any("layers_to_transform is [1]" in problem for problem in verify(tmp_path, wrong))


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0), ("cuda:0", 1)])
def test_what_a_job_asks_of_ray(device: str, gpus: int, tmp_path: Path) -> None:
    job = Job(tmp_path, (), 0.3, Options(device=device))
    assert resources([job], 0.5) == {"num_cpus": 0.5, "num_gpus": gpus}


def test_a_killed_build_goes_on_to_the_same_manifest(
    built: Path, plan_file: Path, data_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "killed"
    command = [sys.executable, "-m", "peftguard", "padbench", "build", str(plan_file), str(root)]
    command += ["--data", str(data_root), "--members", "2", "--measured-rows", "20"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(root.glob(".rows/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    rows_left = len(list(root.glob(".rows/*.json")))
    assert rows_left > 0
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert (root / "manifest.jsonl").read_bytes() == (built / "manifest.jsonl").read_bytes()
    assert not list(root.rglob(".best_model*"))


def test_ray_builds_the_same_though_a_worker_dies(
    built: Path, plan: Plan, data_root: Path, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray")
    killed: list[int] = []
    stop = threading.Event()
    hunter = threading.Thread(target=_kill_one_worker, args=(killed, stop))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        hunter.start()
        run = executor(Executor.RAY, cpus=0.5)
        build_plan(plan, tmp_path / "ray", options(data_root), run)
    finally:
        stop.set()
        hunter.join()
        ray.shutdown()
    assert len(killed) == 1
    ours, theirs = read_manifest(tmp_path / "ray"), read_manifest(built)
    assert [row.path for row in ours] == [row.path for row in theirs]
    assert [row.data_hash for row in ours] == [row.data_hash for row in theirs]
    assert verify(tmp_path / "ray", ours) == []


def _kill_one_worker(killed: list[int], stop: threading.Event) -> None:
    """SIGKILL the first process that Ray names after our task."""
    while not stop.is_set() and not killed:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command: Any = entry.read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::run_job"):
                killed.append(int(entry.parent.name))
                os.kill(killed[0], signal.SIGKILL)
                break
        time.sleep(0.02)
