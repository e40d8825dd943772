"""From findings and scores to one label: what beats what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from peftguard.adapters.adapter import Adapter, open_adapter
from peftguard.detectors.base import DetectorCard, Scores
from peftguard.findings import Severity, found
from peftguard.results import Label
from peftguard.verdict.decide import NO_DETECTOR, Evidence, decide


class Energy:
    """A detector that is really fitted: conformal p-values of the size of B among given sizes."""

    def __init__(
        self,
        calibration: Sequence[float],
        *,
        refuses: str | None = None,
        power: float | None = 0.9,
    ) -> None:
        self.calibration = np.array(calibration)
        self.refuses = refuses
        self.card = DetectorCard(
            name="energy",
            sha256="0" * 64,
            coverage="tests",
            n_calibration=len(calibration),
            true_positive_rate=power,
        )

    def uncovered(self, adapter: Adapter) -> str | None:
        return self.refuses

    def decision_function(self, adapters: Sequence[Adapter]) -> Scores:
        return np.array(
            [sum(float(np.abs(update.B).sum()) for update in one.updates()) for one in adapters]
        )

    def p_values(self, scores: Scores, adapters: Sequence[Adapter]) -> Scores:
        above = (self.calibration >= scores[:, None]).sum(1)
        return (1.0 + above) / (1.0 + len(self.calibration))

    def evidence(self, adapter: Adapter) -> list[str]:
        return ["B is large"]


SMALL, LARGE = Energy([1e-3] * 99), Energy([1e9] * 99)


@pytest.fixture
def adapter(make_adapter) -> Adapter:  # type: ignore[no-untyped-def]
    with open_adapter(make_adapter()) as opened:
        yield opened


def test_without_a_detector_it_is_unknown(adapter: Adapter) -> None:
    verdict = decide(Evidence([]), adapter, [], 0.01)
    assert verdict.label is Label.UNKNOWN
    assert verdict.reasons == [NO_DETECTOR]
    assert (verdict.score, verdict.p_value, verdict.detector) == (None, None, None)


def test_flagged_at_the_chosen_rate_only(adapter: Adapter) -> None:
    strict = decide(Evidence([]), adapter, [SMALL], 0.01)
    assert (strict.label, strict.p_value, strict.fpr) == (Label.SUSPICIOUS, 0.01, 0.01)
    assert strict.detector == SMALL.card
    assert strict.reasons[1:] == ["B is large"]
    middling = Energy([1e9] * 9 + [1e-3] * 990)
    assert decide(Evidence([]), adapter, [middling], 0.01).p_value == 0.01
    clean = decide(Evidence([]), adapter, [middling], 0.005)
    assert (clean.label, len(clean.reasons)) == (Label.CLEAN, 1)


def test_a_rate_that_so_few_calibration_adapters_cannot_reach_is_unknown(adapter: Adapter) -> None:
    for detector in (SMALL, LARGE):
        verdict = decide(Evidence([]), adapter, [detector], 0.005)
        assert verdict.label is Label.UNKNOWN
        assert (
            "too few calibration adapters to flag at 0.005: only at 0.01 and above"
            in verdict.reasons[0]
        )


def test_several_detectors_share_the_rate(adapter: Adapter) -> None:
    nearly = Energy([1e9] * 7 + [1e-3] * 992)
    assert decide(Evidence([]), adapter, [nearly], 0.01).label is Label.SUSPICIOUS
    calm = Energy([1e9] * 999)
    verdict = decide(Evidence([]), adapter, [nearly, calm], 0.01)
    assert (verdict.label, verdict.p_value, verdict.fpr) == (Label.CLEAN, 0.008, 0.005)
    assert "0.005 (0.01 shared by 2 detectors)" in verdict.reasons[0]
    sure = Energy([1e-3] * 999)
    flagged = decide(Evidence([]), adapter, [sure, calm], 0.01)
    assert (flagged.label, flagged.p_value) == (Label.SUSPICIOUS, 0.001)
    silent = Energy([1e9] * 999, refuses="another base model")
    assert decide(Evidence([]), adapter, [nearly, silent], 0.01).label is Label.SUSPICIOUS


def test_a_score_that_is_no_number_is_unknown(adapter: Adapter) -> None:
    class Broken(Energy):
        def decision_function(self, adapters: Sequence[Adapter]) -> Scores:
            return np.full(len(adapters), np.nan)

    verdict = decide(Evidence([]), adapter, [Broken([1e9] * 99)], 0.01)
    assert (verdict.label, verdict.score) == (Label.UNKNOWN, None)
    assert "its score is not a number" in verdict.reasons[0]


@pytest.mark.parametrize(("power", "said"), [(None, "an unknown share"), (0.33, "only 33%")])
def test_a_detector_that_misses_most_cannot_clear(
    adapter: Adapter, power: float | None, said: str
) -> None:
    weak = Energy([1e9] * 999, power=power)
    verdict = decide(Evidence([]), adapter, [weak], 0.01)
    assert (verdict.label, verdict.p_value) == (Label.UNKNOWN, 1.0)
    assert f"but it finds {said} of firing backdoors" in verdict.reasons[0]
    assert decide(Evidence([]), adapter, [weak, LARGE], 0.02).label is Label.CLEAN
    flagging = Energy([1e-3] * 999, power=power)
    assert decide(Evidence([]), adapter, [flagging], 0.01).label is Label.SUSPICIOUS


class Raising(Energy):
    """Fails on every adapter, as one may on a hostile one."""

    def decision_function(self, adapters: Sequence[Adapter]) -> Scores:
        raise np.linalg.LinAlgError("did not converge")


class Unsure(Energy):
    """Gives no number."""

    def decision_function(self, adapters: Sequence[Adapter]) -> Scores:
        return np.full(len(adapters), np.nan)


@pytest.mark.parametrize("kind", [Raising, Unsure])
def test_a_detector_that_fails_stops_no_other_and_leaves_a_gap(
    adapter: Adapter, kind: type[Energy]
) -> None:
    failing, sure = kind([1e9] * 999), Energy([1e-3] * 999)
    flagged = decide(Evidence([]), adapter, [failing, sure], 0.01)
    assert flagged.label is Label.SUSPICIOUS
    calm = decide(Evidence([]), adapter, [failing, Energy([1e9] * 999)], 0.01)
    assert calm.label is Label.UNKNOWN
    assert calm.reasons[0].startswith("detector energy failed on it: ")


def test_clean_needs_a_detector_that_covers(adapter: Adapter) -> None:
    assert decide(Evidence([]), adapter, [LARGE], 0.01).label is Label.CLEAN
    refusing = Energy([1e9] * 99, refuses="another base model")
    verdict = decide(Evidence([]), adapter, [refusing], 0.01)
    assert verdict.label is Label.UNKNOWN
    assert "another base model" in verdict.reasons[0]


def test_incomplete_is_never_clean(adapter: Adapter) -> None:
    verdict = decide(Evidence([], ["half of it was not read"]), adapter, [LARGE], 0.01)
    assert verdict.label is Label.UNKNOWN
    assert verdict.reasons == ["half of it was not read"]
    serious = Evidence([found("payload.token-delta", "edits token 7")])
    assert decide(serious, adapter, [LARGE], 0.01).label is Label.UNKNOWN
    mild = Evidence([found("payload.bias", "2 tensors")])
    assert decide(mild, adapter, [LARGE], 0.01).label is Label.CLEAN


def test_a_flag_beats_incompleteness_and_proof_beats_all(adapter: Adapter) -> None:
    gap = ["half of it was not read"]
    assert decide(Evidence([], gap), adapter, [SMALL, LARGE], 0.02).label is Label.SUSPICIOUS
    proof = Evidence([found("file.executes-code", "imports os.system")], gap)
    verdict = decide(proof, adapter, [LARGE], 0.01)
    assert (verdict.label, verdict.reasons) == (Label.BACKDOORED, ["imports os.system"])
    assert decide(proof, None, [], 0.01).label is Label.BACKDOORED


def test_nothing_readable_is_unknown(tmp_path: Path) -> None:
    verdict = decide(Evidence([], ["the adapter could not be read"]), None, [LARGE], 0.01)
    assert verdict.label is Label.UNKNOWN
    assert verdict.reasons == ["the adapter could not be read"]


@pytest.mark.parametrize(
    "code",
    [
        "file.unread-weights",
        "file.symlink-outside",
        "file.limit-reached",
        "integrity.pattern-skipped",
        "integrity.config-type",
    ],
)
def test_what_was_not_read_is_a_gap_however_mild(adapter: Adapter, code: str) -> None:
    mild = found(code, "something", severity=Severity.INFO)
    verdict = decide(Evidence([mild, mild]), adapter, [LARGE], 0.01)
    assert (verdict.label, verdict.reasons) == (Label.UNKNOWN, [f"{code}: something"])
    said = decide(Evidence([mild], ["not read: something"]), adapter, [LARGE], 0.01)
    assert said.reasons == ["not read: something"]
