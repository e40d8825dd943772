"""Whole campaigns: what is written, what is claimed of it, and that a stopped one goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from peftguard.adversary.arithmetic import change
from peftguard.adversary.campaign import LINES, Campaign, read_lines
from peftguard.adversary.curve import curve, shown
from peftguard.adversary.registry import evasion_named
from peftguard.adversary.victims import Victims, drawn, find_victims
from peftguard.adversary.writing import read_original
from peftguard.detectors.trained import TrainedDetector
from peftguard.errors import SettingsError, TargetNotFound
from peftguard.evaluation.zoo import Zoo, read_zoo
from peftguard.padbench.manifest import FILE_NAME, read_manifest
from peftguard.padbench.verify import verify


def some(toy: Path, count: int = 3) -> Victims:
    return drawn(find_victims(toy), count, 0)


def test_a_benchmark_of_attacked_adapters(toy: Path, tmp_path: Path) -> None:
    victims, watched = some(toy), []
    campaign = Campaign(evasion_named("gauge"), tmp_path / "out")
    lines, skipped = campaign.run(victims, [0.0, 2.0], lambda *now: watched.append(now[:2]))
    assert skipped == {}
    assert watched == [(number, 6) for number in range(6)]
    rows = read_manifest(tmp_path / "out")
    assert rows == [line.row for line in lines]
    assert not [line for line in verify(tmp_path / "out", rows) if "benign twin" not in line]
    # What was measured of the originals holds for exact symmetries, and for nothing else.
    assert {row.label for row in rows} == {"backdoored"}
    assert all(line.fires for line in lines)
    assert {line.original for line in lines} == {victim.name for victim in victims.chosen}
    for line in lines:
        before, after = (read_original(root).factored for root in folders(line, toy, tmp_path))
        assert change(before, (after,)) == pytest.approx(line.change, abs=1e-7)


def folders(line: object, toy: Path, tmp_path: Path) -> tuple[Path, Path]:
    return toy / line.original, tmp_path / "out" / line.row.path  # type: ignore[attr-defined]


def test_what_was_not_measured_counts_as_not_firing(toy: Path, tmp_path: Path) -> None:
    (line,), _ = Campaign(evasion_named("noise"), tmp_path / "out").run(some(toy, 1), [0.5])
    assert (line.row.label, line.row.asr, line.fires) == ("dud", None, None)
    assert line.change == pytest.approx(0.5, abs=0.3)


def test_attacked_adapters_train_with_the_others(toy: Path, tmp_path: Path, zoo: Zoo) -> None:
    out = tmp_path / "all"
    shutil.copytree(toy, out)
    campaign = Campaign(evasion_named("split"), out / "attacked")
    lines, _ = campaign.run(find_victims(out), [10.0])
    rows = [
        *read_manifest(out),
        *(line.row.model_copy(update={"path": f"attacked/{line.row.path}"}) for line in lines),
    ]
    (out / FILE_NAME).write_text("".join(f"{row.model_dump_json()}\n" for row in rows))
    both = read_zoo(out)
    assert int(both.labels().sum()) == 2 * int(zoo.labels().sum())


def test_a_stopped_campaign_goes_on(toy: Path, tmp_path: Path) -> None:
    campaign, victims = Campaign(evasion_named("noise"), tmp_path / "out"), some(toy)

    def stop(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        campaign.run(victims, [0.5], stop)
    assert len(read_manifest(tmp_path / "out")) == 2
    kept = [line.row.sha256 for line in read_lines(tmp_path / "out")]
    with (tmp_path / "out" / LINES).open("a") as file:
        file.write('{"original": "a00')  # cut short by a kill
    lines, _ = campaign.run(victims, [0.5])
    assert [line.row.sha256 for line in lines][:2] == kept
    assert len(read_manifest(tmp_path / "out")) == 3
    again, _ = campaign.run(victims, [0.5])
    assert again == lines
    fresh, _ = Campaign(evasion_named("noise"), tmp_path / "fresh").run(victims, [0.5])
    assert [line.row.sha256 for line in fresh] == [line.row.sha256 for line in lines]


def test_another_seed_is_another_adapter(toy: Path, tmp_path: Path) -> None:
    lines = [
        line
        for seed in (0, 1)
        for line in Campaign(evasion_named("noise"), tmp_path, seed).run(some(toy, 1), [0.5])[0]
    ]
    assert lines[0].row.path != lines[1].row.path
    assert lines[0].row.sha256 != lines[1].row.sha256
    assert len(read_manifest(tmp_path)) == 2


def test_what_a_detector_says(
    toy: Path, tmp_path: Path, detectors: dict[str, TrainedDetector]
) -> None:
    pytest.importorskip("torch")
    campaign = Campaign(evasion_named("pgd-2"), tmp_path, detector=detectors["gram"])
    lines, _ = campaign.run(some(toy), [0.1, 1.0])
    assert all(line.detector == "toy-gram" for line in lines)
    assert all((line.score or 0) < (line.score_before or 0) for line in lines)
    mild, strong = curve(lines, 0.05)
    assert (mild.n, mild.fires.n, mild.found.n) == (3, 0, 3)
    assert mild.found_before.value == 1
    assert (strong.found.value or 0) <= (mild.found.value or 0)
    assert strong.found.low is not None
    assert strong.p_value is not None
    assert mild.p_value_before is not None
    assert strong.p_value > mild.p_value_before
    assert "was not measured" in shown(strong)
    assert "toy-gram flags" in shown(strong)


def test_a_flag_on_one_part_is_a_flag(
    toy: Path, tmp_path: Path, detectors: dict[str, TrainedDetector]
) -> None:
    campaign = Campaign(evasion_named("collude"), tmp_path, detector=detectors["gram"])
    lines, _ = campaign.run(some(toy), [0.0])
    assert len(lines) == 6
    (point,) = curve(lines, 0.05)
    assert point.n == point.found.n == 3
    halves = {line.original for line in lines if line.p_value is not None and line.p_value <= 0.05}
    covered = {line.original for line in lines if line.uncovered is None}
    assert round((point.found.value or 0) * 3) == len(halves & covered)


def test_one_adapter(toy: Path, tmp_path: Path) -> None:
    known = find_victims(toy / "a0070")
    assert [victim.name for victim in known.chosen] == ["a0070"]
    assert known.chosen[0].row is not None
    assert known.chosen[0].row.label == "backdoored"
    alone = tmp_path / "alone"
    shutil.copytree(toy / "a0070", alone)
    stranger = find_victims(alone)
    assert stranger.chosen[0].row is None
    (line,), _ = Campaign(evasion_named("gauge"), tmp_path / "out").run(stranger, [1.0])
    # Nobody said that it is backdoored: an exact disguise cannot know either.
    assert (line.row.label, line.fires) == ("dud", None)


def test_a_manifest_above_that_is_no_benchmarks_is_no_matter(toy: Path, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"repository": "someone/else"}\n')
    shutil.copytree(toy / "a0070", tmp_path / "alone")
    (victim,) = find_victims(tmp_path / "alone").chosen
    assert (victim.name, victim.row) == ("alone", None)


def test_which_adapters_of_a_benchmark(toy: Path) -> None:
    assert len(find_victims(toy).chosen) == 30
    assert len(find_victims(toy / FILE_NAME, labels=("benign", "dud")).chosen) == 64
    with pytest.raises(TargetNotFound, match="backdoored in split test"):
        find_victims(toy, split="test")
    with pytest.raises(TargetNotFound, match="neither"):
        find_victims(toy / "nowhere")


@pytest.mark.parametrize(
    ("name", "option"), [("fgsm", "--detector"), ("finetune", "--data"), ("merge", "--twin")]
)
def test_what_is_missing_is_said(name: str, option: str, toy: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=option):
        Campaign(evasion_named(name), tmp_path / "out").run(some(toy), [0.1])
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_into_a_victim(toy: Path) -> None:
    with pytest.raises(SettingsError, match="lies in an adapter"):
        Campaign(evasion_named("noise"), toy / "a0060" / "out").run(find_victims(toy), [0.1])


def test_a_symmetry_that_is_none_any_more(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no symmetry any more"):
        Campaign(evasion_named("gauge"), tmp_path).run(some(toy, 1), [7.0])


def test_a_p_value_of_nothing_is_a_flag(toy: Path, tmp_path: Path) -> None:
    (line,), _ = Campaign(evasion_named("noise"), tmp_path / "out").run(some(toy, 1), [0.5])
    zero = {"p_value": 0.0, "p_value_before": 0.0, "detector": "d"}
    (point,) = curve([line.model_copy(update=zero)])
    assert (point.found.value, point.found_before.value) == (1, 1)
    assert (point.p_value, point.p_value_before) == (0, 0)


def test_an_adapter_without_a_twin_is_left_out_and_named(toy: Path, tmp_path: Path) -> None:
    victims = drawn(find_victims(toy, twin=toy / "a0002"), 2, 0)
    first, second = victims.chosen
    alone = replace(victims, chosen=[replace(first, twin=None), second])
    lines, skipped = Campaign(evasion_named("merge"), tmp_path / "out").run(alone, [0.4])
    assert [line.original for line in lines] == [second.name]
    assert "no benign twin" in skipped[first.name]


def test_a_given_twin(toy: Path, tmp_path: Path) -> None:
    victims = drawn(find_victims(toy, twin=toy / "a0002"), 4, 0)
    lines, skipped = Campaign(evasion_named("merge"), tmp_path).run(victims, [0.5])
    assert len(lines) == 4
    assert skipped == {}
    config = json.loads((tmp_path / lines[0].row.path / "adapter_config.json").read_text())
    assert config["r"] == lines[0].row.rank
