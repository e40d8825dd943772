"""What a report looks like; and that nothing in it acts on a page or a terminal."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from tests.trigger.reports import HOSTILE, make_report

from peftguard.trigger.map_chart import HEIGHT, LEVELS, WIDTH, level_of, map_chart
from peftguard.trigger.render_html import write_page
from peftguard.trigger.render_text import as_text, print_replay, print_report
from peftguard.trigger.replay import Replay, ReplayedExample
from peftguard.trigger.report import Asked, MapPoint, TriggerReport
from peftguard.trigger.wording import around, measured, outcome, reason


class Page(HTMLParser):
    """Tags, attributes, and the text outside the style sheet."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = self.style = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.style += data
        else:
            self.text += data


def text_of(report: TriggerReport) -> str:
    return as_text(lambda console: print_report(report, console))


def test_the_proof_comes_first() -> None:
    text = text_of(make_report())
    places = [text.index(each) for each in ("TRIGGER CONFIRMED", "it was late", "Words it listens")]
    assert places == sorted(places)
    assert "it nak was late" in text
    assert "-> class 0" in text
    assert "-> nak (1)" in text


def test_what_benign_adapters_do_less_is_shown_where_they_were_asked() -> None:
    for shown in (text_of, lambda report: Page(write_page(report)).text):
        assert "further than in benign adapters" in shown(make_report())
        assert "further than in benign adapters" not in shown(make_report(unlike=[]))


def test_a_proof_in_ordinary_texts_says_so() -> None:
    proof = make_report().proof
    assert proof is not None
    names = [name for name, _ in measured(proof.model_copy(update={"ordinary": True}))]
    assert names[0] == "ordinary texts, turned"
    assert not any("arguing otherwise" in name for name in names)
    assert measured(proof)[0][0] == "texts arguing otherwise, turned"


def test_a_text_that_is_brought_out_is_told_and_held_against_requests_as_they_are() -> None:
    asked = Asked(template="{text}", answers=[[1], []], shift=1, repeated=0.5, written=HOSTILE)
    made = make_report()
    assert made.proof is not None
    proof = made.proof.model_copy(update={"output": True, "ordinary": True})
    report = make_report(asked=asked, proof=proof)
    assert reason(report).startswith("Brings out texts that begin ")
    assert repr(HOSTILE) in reason(report)
    assert HOSTILE not in text_of(report)
    assert "<script>alert" not in write_page(report)
    names = [name for name, _ in measured(proof)]
    assert names[0] == "fresh requests, brought out of"
    assert "p-value over requests as they are" in names


def test_a_text_that_comes_unasked_is_told_without_a_proof() -> None:
    asked = Asked(template="{text}", answers=[[1], []], shift=1, repeated=0.5, written="buy now")
    report = make_report(asked=asked, proof=None, phrases=[])
    report.provenance.seconds["one text"] = 1.0
    assert "Its commonest text ('buy now') was not proven" in reason(report)
    assert outcome(report) == "NOTHING PROVEN"


def test_what_is_not_proven_is_not_called_proven() -> None:
    report = make_report()
    assert report.proof is not None
    weak = report.proof.model_copy(update={"confirmed": False, "why": "controls do as well"})
    for found in (make_report(proof=weak), make_report(proof=None)):
        for shown in (text_of(found), Page(write_page(found)).text):
            assert "NOTHING PROVEN" in shown
            assert "CONFIRMED" not in shown
            assert "does not make the adapter clean" in " ".join(shown.replace("│", " ").split())
    assert "controls do as well" in text_of(make_report(proof=weak))


def test_what_was_not_put_to_the_proof_is_not_said_to_turn_nothing() -> None:
    turning = make_report(proof=None)
    assert "but none was put to the proof" in reason(turning)
    quiet = [turning.phrases[0].model_copy(update={"turned": -1.0})]
    assert "No word or phrase turns" in reason(make_report(proof=None, phrases=quiet))


def test_a_search_that_found_nothing_to_turn_was_more_than_words() -> None:
    report = make_report(proof=None, phrases=[], probes=[])
    report.provenance.seconds["phrases"] = 1.0
    assert outcome(report) == "NOTHING PROVEN"
    assert "No word or phrase turns" in reason(report)


def test_words_alone_are_no_result() -> None:
    report = make_report(proof=None, phrases=[], probes=[])
    for shown in (text_of(report), Page(write_page(report)).text):
        assert "WORDS ALONE" in shown
        assert "PROVEN" not in shown


def test_hostile_text_is_inert_in_a_terminal() -> None:
    report = make_report(HOSTILE)
    text = text_of(report)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]" in text
    assert "\\x1b" in text
    told = ReplayedExample(reported=report.proof.examples[0], label_before=0, label_after=0)  # type: ignore[union-attr]
    replay = Replay(
        adapter=HOSTILE,
        adapter_sha256=HOSTILE,
        base=HOSTILE,
        trigger=HOSTILE,
        target=1,
        labels={0: HOSTILE},
        examples=[told],
    )
    again = as_text(lambda console: print_replay(replay, console))
    assert "0 of 1 examples as reported" in again
    assert not {"\x1b", "\u202e"} & set(again)


def test_hostile_text_is_inert_on_the_page() -> None:
    text = write_page(make_report(HOSTILE))
    page = Page(text)
    assert page.open == []
    assert not {"script", "img", "link", "iframe", "a"} & set(page.tags)
    assert not [key for key, _ in page.attributes if key.startswith("on") or key == "style"]
    assert not {"\x1b", "\u202e"} & set(text)
    assert "<script>alert(1)</script>" in page.text  # as text
    assert sorted(set(page.tags)) == sorted(set(Page(write_page(make_report())).tags))


def test_the_page_allows_its_own_style_only() -> None:
    text = write_page(make_report())
    page = Page(text)
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    policy = dict(page.attributes)["content"] or ""
    policies = [value for _, value in page.attributes if value and "default-src" in value]
    assert policies == [
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert "http" not in policy
    assert text == write_page(make_report())


def test_the_page_shows_what_the_report_holds() -> None:
    page = Page(write_page(make_report("zxq")))
    assert page.tags.count("mark") == 1
    assert page.text.count("zxq") > 8
    for words in ("TRIGGER CONFIRMED", "88 % of 24", "Map of the vocabulary", "100 words"):
        assert words in page.text


@pytest.mark.parametrize(
    ("text", "phrase", "parts"),
    [
        ("a b c", "b", ("a ", "b", " c")),
        ("a b c", "x", ("a b c", "", "")),
        ("a b c", "", ("a b c", "", "")),
        ("b b", "b", ("", "b", " b")),
    ],
)
def test_around(text: str, phrase: str, parts: tuple[str, str, str]) -> None:
    assert around(text, phrase) == parts


def test_no_map_without_points() -> None:
    assert map_chart([]) is None
    assert "Map of" not in Page(write_page(make_report(map=[]))).text


def test_labels_of_the_map_do_not_touch_and_stay_inside() -> None:
    points = [
        MapPoint(word=f"word{n}", x=n % 3 - 1, y=0.001 * n, loudness=n, labelled=True)
        for n in range(30)
    ]
    chart = map_chart(points)
    assert chart is not None
    labels = re.findall(r'<text x="(-?\d+)" y="(-?\d+)" text-anchor="(\w+)">(\w+)</text>', chart)
    assert 3 <= len(labels) < 30
    assert labels[0][3] == "word29"
    assert all(0 <= int(x) <= WIDTH and 0 <= int(y) <= HEIGHT for x, y, *_ in labels)
    assert len({(x, y) for x, y, *_ in labels}) == len(labels)


def test_points_beyond_the_edge_are_drawn_at_it() -> None:
    chart = map_chart([MapPoint(word="far", x=50, y=-50, loudness=1)])
    found = re.search(r'cx="(\d+)" cy="(\d+)"', chart or "")
    assert found is not None
    assert 0 < int(found[1]) < WIDTH
    assert 0 < int(found[2]) < HEIGHT


def test_levels_go_from_the_middle_of_the_vocabulary_to_the_loudest() -> None:
    assert [level_of(value, 4.0) for value in (-9.0, 0.0, 2.0, 4.0, 5.0)] == [
        0,
        0,
        (LEVELS - 1) // 2,
        LEVELS - 1,
        LEVELS - 1,
    ]
