"""From a path to the adapters it holds."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftguard.adapters.filenames import (
    is_chat_template,
    is_code,
    is_main,
    is_tokenizer,
    is_training_state,
    natural,
    printable,
    shard_of,
)
from peftguard.adapters.source import Source
from peftguard.adapters.sources import find_sources
from peftguard.errors import InputError, LimitExceeded, TargetNotFound
from peftguard.limits import Limits


def make(root: Path, *names: str) -> Path:
    """Files with a little content, and the folders they need."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    return root


def find(target: Path | str, **limits: int) -> list[Source]:
    return list(find_sources(str(target), limits=Limits(**limits), offline=True))


def names(source: Source) -> list[str]:
    return [path.name for path in source.weights]


def codes(source: Source) -> list[str]:
    return [finding.code for finding in source.findings]


def below(root: Path, sources: list[Source]) -> list[str]:
    return [os.path.relpath(source.target, root) for source in sources]


PEFT = ("adapter_config.json", "adapter_model.safetensors")


def peft(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in PEFT)


def test_a_peft_folder(tmp_path: Path) -> None:
    (source,) = find(make(tmp_path, *PEFT, "README.md", "extra/run.py"))
    assert source.target == str(tmp_path)
    assert source.root == tmp_path
    assert source.weights == (tmp_path / "adapter_model.safetensors",)
    assert source.config == tmp_path / "adapter_config.json"
    assert [source.relative(path) for path in source.beside] == ["README.md", "extra/run.py"]
    assert source.findings == ()
    assert source.origin is None


def test_safetensors_wins_over_bin_as_in_peft(tmp_path: Path) -> None:
    (source,) = find(make(tmp_path, *PEFT, "adapter_model.bin"))
    assert names(source) == ["adapter_model.safetensors"]
    assert codes(source) == ["file.unread-weights"]
    assert "adapter_model.bin" in source.findings[0].message
    assert tmp_path / "adapter_model.bin" in source.beside


def test_a_whole_model_beside_is_unread_and_training_state_only_beside(tmp_path: Path) -> None:
    make(tmp_path, *PEFT, "model.safetensors", "optimizer.pt", "rng_state_0.pth")
    (source,) = find(tmp_path)
    assert [finding.message for finding in source.findings] == ["not read: model.safetensors"]
    assert {path.name for path in source.beside} == {
        "model.safetensors",
        "optimizer.pt",
        "rng_state_0.pth",
    }


def test_config_without_weights_and_weights_without_config(tmp_path: Path) -> None:
    make(tmp_path, "a/adapter_config.json", "b/adapter_model.bin")
    lonely, bare = find(tmp_path)
    assert (lonely.weights, lonely.config) == ((), tmp_path / "a/adapter_config.json")
    assert (names(bare), bare.config) == (["adapter_model.bin"], None)


def test_an_index_without_shards_is_an_adapter_without_weights(tmp_path: Path) -> None:
    (source,) = find(make(tmp_path, "adapter_model.safetensors.index.json"))
    assert source.weights == ()


def test_shards_in_order_and_a_missing_one(tmp_path: Path) -> None:
    shards = [f"adapter_model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
    make(tmp_path, "adapter_config.json", "adapter_model.safetensors.index.json", *shards)
    (source,) = find(tmp_path)
    assert names(source) == shards
    assert source.findings == ()
    (tmp_path / shards[1]).unlink()
    (source,) = find(tmp_path)
    assert names(source) == [shards[0], shards[2]]
    assert codes(source) == ["file.truncated"]


def test_a_tree_in_natural_order(tmp_path: Path) -> None:
    make(
        tmp_path,
        *peft("run/checkpoint-10"),
        *peft("run/checkpoint-9"),
        *peft("run"),
        *peft("imdb/imdb_label0_2/best_model"),
        *peft("imdb/imdb_label1_10/best_model"),
        "base/config.json",
        "base/model.safetensors",
        "base/pytorch_model-00001-of-00002.bin",
        "run/checkpoint-9/optimizer.pt",
        "notes/readme.txt",
    )
    sources = find(tmp_path)
    assert below(tmp_path, sources) == [
        "imdb/imdb_label0_2/best_model",
        "imdb/imdb_label1_10/best_model",
        "run",
        "run/checkpoint-9",
        "run/checkpoint-10",
    ]
    assert sources[2].beside == ()
    assert [path.name for path in sources[3].beside] == ["optimizer.pt"]


def test_named_adapters_and_experts_have_their_own_result(tmp_path: Path) -> None:
    make(tmp_path, *PEFT, *peft("other"), *peft("experts/0"), "experts/router.py", "src/code.py")
    main, expert, other = find(tmp_path)
    assert below(tmp_path, [main, expert, other]) == [".", "experts/0", "other"]
    assert [main.relative(path) for path in main.beside] == ["experts/router.py", "src/code.py"]


def test_mlx_folder_with_numbered_checkpoints(tmp_path: Path) -> None:
    steps = ("0000100_adapters.safetensors", "0000200_adapters.safetensors")
    sources = find(make(tmp_path, "adapter_config.json", "adapters.safetensors", *steps))
    assert [names(source) for source in sources] == [
        ["adapters.safetensors"],
        *([s] for s in steps),
    ]
    assert {source.config for source in sources} == {tmp_path / "adapter_config.json"}
    assert all(source.findings == () for source in sources)


def test_a_folder_of_single_files(tmp_path: Path) -> None:
    make(
        tmp_path,
        "style.safetensors",
        "my_LoRA.pt",
        "weights.bin",
        "pytorch_lora_weights.safetensors",
        "pytorch_lora_weights.bin",
        "model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "preview.png",
    )
    sources = find(tmp_path)
    assert [names(source) for source in sources] == [
        ["my_LoRA.pt"],
        ["pytorch_lora_weights.safetensors"],
        ["style.safetensors"],
    ]
    assert [source.config for source in sources] == [None, None, None]
    assert codes(sources[1]) == ["file.unread-weights"]
    assert "preview.png" in [path.name for path in sources[0].beside]


def test_gguf_copies_count_and_whole_gguf_models_do_not(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    for kind, name in (
        (gguf.GGUFType.ADAPTER, "a.gguf"),
        (gguf.GGUFType.MODEL, "lora-merged.gguf"),
    ):
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_type(kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    (source,) = find(tmp_path)
    assert names(source) == ["a.gguf"]
    first, second = find(make(tmp_path, *PEFT))
    assert (names(first), codes(first)) == (["adapter_model.safetensors"], ["file.unread-weights"])
    assert "lora-merged.gguf" in first.findings[0].message
    assert names(second) == ["a.gguf"]


def test_a_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    make(tmp_path, "model.safetensors", "optimizer.pt", "0f3a", "run.py")
    for name in ("model.safetensors", "optimizer.pt", "0f3a"):
        (source,) = find(tmp_path / name)
        assert source.weights == (tmp_path / name,)
        assert (source.root, source.config, source.beside) == (tmp_path, None, ())


def test_a_named_weight_file_takes_its_folders_config(tmp_path: Path) -> None:
    make(tmp_path, *PEFT, "adapter_model.bin", "run.py", "style.safetensors")
    (source,) = find(tmp_path / "adapter_model.bin")
    assert source.target == str(tmp_path / "adapter_model.bin")
    assert names(source) == ["adapter_model.bin"]
    assert source.config == tmp_path / "adapter_config.json"
    assert codes(source) == ["file.unread-weights"]
    assert "run.py" in [path.name for path in source.beside]
    (other,) = find(tmp_path / "style.safetensors")
    assert other.config is None


def test_a_named_shard_brings_the_others(tmp_path: Path) -> None:
    shards = [f"adapter_model-{i:05d}-of-00002.bin" for i in (1, 2)]
    (source,) = find(make(tmp_path, *shards) / shards[1])
    assert names(source) == shards


def test_relative_targets_stay_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *peft("org/name"), *peft("org/name/checkpoint-1"))
    monkeypatch.chdir(tmp_path)
    assert [source.target for source in find("org/name")] == ["org/name", "org/name/checkpoint-1"]


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "secret.safetensors", *peft("adapter"))
    inside = make(tmp_path / "inside", "adapter_config.json", "adapter_model.bin", "sub/notes.txt")
    (inside / "adapter_model.safetensors").symlink_to(outside / "secret.safetensors")
    (inside / "sub" / "code.py").symlink_to("/etc/hostname")
    (inside / "more").symlink_to(outside)
    (source,) = find(inside)
    assert names(source) == ["adapter_model.bin"]
    assert codes(source).count("file.symlink-outside") == 3
    assert all(path.resolve().is_relative_to(inside) for path in source.beside)


def test_links_out_of_a_tree_are_results_of_their_own(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "style.safetensors", *peft("adapter"))
    tree = make(tmp_path / "tree", *peft("a"), "loose/other.safetensors")
    (tree / "b").symlink_to(outside / "adapter")
    (tree / "loose" / "style.safetensors").symlink_to(outside / "style.safetensors")
    (tree / "readme.md").symlink_to("/etc/hostname")
    sources = find(tree)
    assert below(tree, sources) == ["b", "a", "loose/other.safetensors", "loose/style.safetensors"]
    assert [source.weights == () for source in sources] == [True, False, False, True]
    assert [codes(source) for source in sources] == [
        ["file.symlink-outside"],
        [],
        [],
        ["file.symlink-outside"],
    ]


def test_links_within_are_followed_and_cycles_end(tmp_path: Path) -> None:
    make(tmp_path, *peft("run/checkpoint-1"), "blobs/weights")
    (tmp_path / "run" / "latest").symlink_to("checkpoint-1")
    (tmp_path / "run" / "loop").symlink_to(tmp_path)
    (tmp_path / "run" / "self").symlink_to("self")
    (tmp_path / "run" / "lora.safetensors").symlink_to("../blobs/weights")
    sources = find(tmp_path)
    assert below(tmp_path, sources) == ["run/lora.safetensors", "run/checkpoint-1"]
    assert codes(sources[0]) == ["file.not-found"]


def test_a_dangling_link_is_reported(tmp_path: Path) -> None:
    make(tmp_path, "adapter_config.json")
    (tmp_path / "adapter_model.safetensors").symlink_to(tmp_path / "gone")
    (source,) = find(tmp_path)
    assert (source.weights, codes(source)) == ((), ["file.not-found"])
    with pytest.raises(TargetNotFound):
        find(tmp_path / "adapter_model.safetensors")


def test_a_hub_cache_may_link_to_its_own_blobs_only(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    make(cache, "blobs/1", "snapshots/c0ffee/adapter_config.json")
    make(tmp_path, "elsewhere", "blobs/ab/" + "a" * 64)
    snapshot = cache / "snapshots" / "c0ffee"
    (snapshot / "adapter_model.safetensors").symlink_to("../../blobs/1")
    (snapshot / "shared.py").symlink_to("../../../blobs/ab/" + "a" * 64)
    (snapshot / "stolen.py").symlink_to("../../../elsewhere")
    (source,) = find(snapshot)
    assert names(source) == ["adapter_model.safetensors"]
    assert [path.name for path in source.beside] == ["shared.py"]
    assert codes(source) == ["file.symlink-outside"]


def test_special_files_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "adapter_config.json")
    os.mkfifo(tmp_path / "adapter_model.safetensors")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("adapters.safetensors")
        (source,) = find(tmp_path)
    assert (source.weights, codes(source)) == ((), ["file.malformed", "file.malformed"])
    with pytest.raises(TargetNotFound, match="not opened"):
        find(tmp_path / "adapter_model.safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_an_unreadable_folder_is_a_result(tmp_path: Path) -> None:
    make(tmp_path, *peft("a"), "b/c")
    (tmp_path / "b").chmod(0)
    sources = find(tmp_path)
    (tmp_path / "b").chmod(0o755)
    assert [codes(source) for source in sources] == [[], ["file.not-found"]]


@pytest.mark.parametrize(
    "target", ["gone", "a/b/c", "./org/name", "org/name.safetensors", "", "a\0b", "x" * 5000]
)
def test_what_is_not_there_is_one_error(target: str) -> None:
    with pytest.raises(TargetNotFound):
        find(target)


@pytest.mark.parametrize("target", ["hf://", "hf://name", "hf://a/b/c", "hf://a/b@", "hf://../b"])
def test_what_is_no_hub_id_says_so(target: str) -> None:
    with pytest.raises(TargetNotFound, match="not a hub id"):
        find(target)


def test_a_folder_without_adapters_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "config.json", "model.safetensors", "README.md", ".git/x.safetensors")
    with pytest.raises(TargetNotFound, match="no adapter in this folder"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("limits", "key"), [({"max_depth": 1}, "max_depth"), ({"max_files": 5}, "max_files")]
)
def test_what_was_found_before_a_limit_is_kept(
    tmp_path: Path, limits: dict[str, int], key: str
) -> None:
    make(tmp_path, *peft("a"), *peft("b/c"))
    iterator = find_sources(str(tmp_path), limits=Limits(**limits))
    assert below(tmp_path, [next(iterator)]) == ["a"]
    with pytest.raises(LimitExceeded, match=key):
        list(iterator)


def test_a_limit_inside_an_adapter_is_its_finding(tmp_path: Path) -> None:
    make(tmp_path, *PEFT, "a/b/code.py")
    iterator = find_sources(str(tmp_path), limits=Limits(max_depth=1))
    assert codes(next(iterator)) == ["file.limit-reached"]
    with pytest.raises(LimitExceeded):
        next(iterator)


def test_names_beyond_the_limit(tmp_path: Path) -> None:
    make(tmp_path, *PEFT, "n" * 60)
    iterator = find_sources(str(tmp_path), limits=Limits(max_name_length=50))
    assert codes(next(iterator)) == ["file.limit-reached"]
    with pytest.raises(LimitExceeded, match="max_name_length"):
        next(iterator)


def test_hostile_names_are_shown_harmlessly(tmp_path: Path) -> None:
    folder = tmp_path / "evil\x1b[2J\n\udcff"
    (source,) = find(make(folder, *PEFT).parent)
    assert source.target.endswith("evil?[2J??")
    assert source.target.encode()
    assert source.weights[0].exists()


FILES = st.lists(
    st.sampled_from(
        [
            *PEFT,
            "adapter_model.bin",
            "adapters.safetensors",
            "0000100_adapters.safetensors",
            "style.safetensors",
            "lora.pt",
            "model.safetensors",
            "optimizer.pt",
            "x.py",
        ]
    ).flatmap(lambda name: st.sampled_from([name, f"a/{name}", f"a/b/{name}", f"c/{name}"])),
    max_size=8,
    unique=True,
)


@settings(max_examples=60, deadline=None)
@given(files=FILES)
def test_every_file_that_travels_is_accounted_for(
    files: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Within an adapter's own folder nothing is dropped, and no weight file is read twice."""
    root = make(tmp_path_factory.mktemp("tree"), *files)
    try:
        sources = find(root)
    except InputError:
        sources = []
    read = [path for source in sources for path in source.weights]
    assert len(read) == len(set(read))
    for source in sources:
        known = {*read, *source.beside, source.config}
        here = {path for path in source.root.iterdir() if path.is_file()}
        assert here <= known


def test_natural_order_and_shards() -> None:
    assert sorted(["c-10", "c-9", "c", "c-09"], key=natural) == ["c", "c-09", "c-9", "c-10"]
    assert shard_of("m-00002-of-00003.bin") == ("m.bin", 2, 3)
    assert shard_of("m-2-of-3.bin") is None
    assert printable("a\tb\u202e") == "a?b?"


def test_letter_case_hides_nothing(tmp_path: Path) -> None:
    assert is_main("ADAPTER_MODEL.SAFETENSORS")
    assert is_chat_template("chat_template.JINJA")
    assert is_tokenizer("Tokenizer.json")
    assert is_training_state("Optimizer.PT")
    (source,) = find(make(tmp_path, "adapter_config.json", "ADAPTER_MODEL.SAFETENSORS"))
    assert names(source) == ["ADAPTER_MODEL.SAFETENSORS"]


def test_weights_in_the_loaders_own_letters_win(tmp_path: Path) -> None:
    make(tmp_path, "adapter_config.json", "adapter_model.bin", "ADAPTER_MODEL.SAFETENSORS")
    (source,) = find(tmp_path)
    assert names(source) == ["adapter_model.bin"]
    assert codes(source) == ["file.unread-weights"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.so", True), ("a.so.1", True), ("a.SO.1.2", True), ("a.so.txt", False), ("a.PY", True)],
)
def test_versioned_libraries_are_code(name: str, expected: bool) -> None:
    assert is_code(name) is expected
