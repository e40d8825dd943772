"""The result cache: only the bytes decide, and a broken cache is an empty one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from peftguard import scan
from peftguard.results import Result
from peftguard.verdict.cache import cache_path


def once(target: Path, **settings: Any) -> Result:
    (result,) = scan(target, offline=True, **settings).results
    return result


def test_the_same_bytes_elsewhere_hit(make_adapter: Any, tmp_path: Path) -> None:
    folder = make_adapter()
    first = once(folder)
    copied = shutil.copytree(folder, tmp_path / "copy")
    second = once(copied)
    assert (first.cached, second.cached) == (False, True)
    assert second.target == str(copied)
    assert second.modules == first.modules
    assert second.findings == first.findings


def test_a_changed_config_misses(make_adapter: Any) -> None:
    folder = make_adapter()
    once(folder)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    changed = once(folder)
    assert not changed.cached
    assert changed.adapter is not None
    assert changed.adapter.scale == [2.25]


def test_a_file_beside_it_misses(make_adapter: Any) -> None:
    folder = make_adapter()
    once(folder)
    (folder / "run.py").write_text("1")
    assert "file.code-beside" in {finding.code for finding in once(folder).findings}


@pytest.mark.parametrize("settings", [{"fpr": 0.05}, {"limits": {"max_tensors": 99}}])
def test_other_settings_miss(make_adapter: Any, settings: dict[str, Any]) -> None:
    folder = make_adapter()
    once(folder)
    assert not once(folder, **settings).cached
    assert once(folder, **settings).cached


def test_without_the_cache_nothing_is_kept(make_adapter: Any) -> None:
    assert not once(make_adapter(), cache=False).cached
    assert not cache_path().exists()


def test_an_unreadable_adapter_is_not_kept(make_adapter: Any) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert not once(folder).cached
    assert not once(folder).cached


def test_a_broken_cache_is_an_empty_one(make_adapter: Any) -> None:
    folder = make_adapter()
    cache_path().parent.mkdir(parents=True)
    cache_path().write_bytes(b"this is no database" * 100)
    result = once(folder)
    assert not result.cached
    assert result.adapter is not None


def test_nothing_is_kept_beside_an_initial_adapter(make_adapter: Any) -> None:
    final = make_adapter("final", config={"init_lora_weights": "pissa"}, seed=1)
    start = make_adapter("start", config={"init_lora_weights": "pissa"}, seed=2)
    first = once(final, initial_adapter=start)
    make_adapter("start", config={"init_lora_weights": "pissa"}, seed=3)
    second = once(final, initial_adapter=start)
    assert not second.cached
    assert second.modules != first.modules


def test_an_incomplete_result_is_not_kept(make_adapter: Any) -> None:
    folder = make_adapter(config={"rank_pattern": {"(?i)zzz": 4}})
    assert "integrity.pattern-skipped" in {finding.code for finding in once(folder).findings}
    assert not once(folder).cached
