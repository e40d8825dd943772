from __future__ import annotations

import base64
import hashlib
import math
import random
import re
from html.parser import HTMLParser

import pytest

from peftguard.evaluation.measures import AUROC, FPR, MEASURES
from peftguard.evaluation.page import write_page
from peftguard.evaluation.page.figures import figure_text, heat_class, leaders
from peftguard.evaluation.page.tables import MAX_ROWS, leak_reading
from peftguard.evaluation.results import (
    LEAK_TEST,
    Counts,
    Evaluation,
    Figure,
    Fold,
    Metrics,
    ProtocolResult,
    Scored,
)
from peftguard.evaluation.table import text_of

ATTACKS = ("insertsent", "ripples", "syntactic", "stylebkd", "cba")
SKILL = {"ensemble": 0.97, "gram": 0.95, "linear": 0.9, "spectral": 0.58, "sequence": 0.83}
HOSTILE = "</style><script>alert(1)</script>\"'&\x1b[31m\u202e\ud800 onload=x"
VOID = {"meta"}


class Page(HTMLParser):
    """Tags with their attributes, cells as text by row, and whether elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.style = ""
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0] == first)


def figure(value: float, n: int = 120) -> Figure:
    half = 1.3 * math.sqrt(max(value * (1 - value), 0.002) / n)
    return Figure(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n)


def metrics(auroc: float, n: int = 120) -> Metrics:
    return Metrics(
        auroc=figure(auroc, n),
        tpr_at_1=figure(max(0.02, 2 * auroc - 1.05), n),
        tpr_at_5=figure(max(0.06, 2 * auroc - 1), n),
        fpr=figure(0.012, n),
        tpr=figure(max(0.02, 2 * auroc - 1.02), n),
        accuracy=figure(0.5 + abs(auroc - 0.5), n),
        brier=figure(0.26 - abs(auroc - 0.5) / 2, n),
        cross_entropy=figure(0.7 - abs(auroc - 0.5), n),
        abstention=figure(0.03, n),
    )


def roc(auroc: float) -> list[tuple[float, float]]:
    power = max(0.02, (1 - auroc) / max(auroc, 0.01))
    return [(step / 40, (step / 40) ** power) for step in range(41)]


def scored(name: str, auroc: float, groups: dict[str, dict[str, Metrics]] | None = None) -> Scored:
    return Scored(
        detector=name,
        metrics=metrics(auroc),
        roc=roc(auroc),
        fit_seconds=3.2,
        score_seconds=0.04,
        groups=groups or {},
    )


def everyone(drop: float, draw: random.Random, grouped: bool = False) -> list[Scored]:
    """All detectors, worse by about `drop`, and the leak test at chance."""

    def around(value: float) -> float:
        return min(0.999, max(0.03, value + draw.uniform(-0.04, 0.02)))

    def groups(value: float) -> dict[str, dict[str, Metrics]]:
        factors = {"attack": ATTACKS, "method": ("lora", "dora", "adalora"), "rank": ("4", "8")}
        return {
            factor: {each: metrics(around(value), 30) for each in values}
            for factor, values in factors.items()
        }

    skill = {name: max(0.2, value - drop) for name, value in SKILL.items()} | {LEAK_TEST: 0.51}
    return [
        scored(name, around(value), groups(value) if grouped else None)
        for name, value in skill.items()
    ]


def fold(trained_on: str | None, tested_on: str, detectors: list[Scored]) -> Fold:
    return Fold(
        name=f"{trained_on} to {tested_on}",
        trained_on=trained_on,
        tested_on=tested_on,
        n_train=240,
        n_train_backdoored=120,
        n_test=120,
        n_test_backdoored=60,
        n_duds=9,
        duds_flagged={row.detector: figure(0.3, 9) for row in detectors},
        detectors=detectors,
    )


def evaluation(*protocols: ProtocolResult, **fields: str) -> Evaluation:
    return Evaluation(
        peftguard="0.1.0",
        zoo=fields.get("zoo", "mini"),
        manifest_sha256="9f" * 32,
        seeds=5,
        fpr=0.01,
        counts=Counts(adapters=640, benign=310, backdoored=290, duds=40, train=440, test=200),
        versions={"python": "3.12.3", "numpy": "2.4.0", "scikit-learn": "1.8.0"},
        notes=["Only backdoors that fire count as positive."],
        command=fields.get("command", "peftguard evaluate mini --protocol all --format html"),
        protocols=list(protocols),
    )


def sample() -> Evaluation:
    """An evaluation with all that a real one holds."""
    draw = random.Random(7)
    transfer = [
        fold(a, b, everyone(0.02 if a == b else 0.3, draw)) for a in ATTACKS for b in ATTACKS
    ]
    left_out = [fold(f"all but {a}", a, everyone(0.2, draw)) for a in ATTACKS]
    broken = Scored(detector="peftguard", failed="mixed shapes: 384x384, 384x1536")
    curve = {
        name: [(n, figure(value - 4.5 / n)) for n in (20, 50, 100, 200, 400)]
        for name, value in SKILL.items()
    }
    wild = [
        Scored(detector=name, metrics=Metrics(fpr=figure(0.02, 63), abstention=figure(0.4, 63)))
        for name in SKILL
    ]
    return evaluation(
        ProtocolResult(
            name="in_domain",
            title="In domain",
            question="Does it find backdoors of the kind it was trained on?",
            folds=[fold(None, "test", everyone(0.0, draw, grouped=True))],
            pooled=[*everyone(0.0, draw, grouped=True), broken],
        ),
        ProtocolResult(
            name="transfer",
            title="One attack to another",
            question="Trained on one attack only, does it find another?",
            folds=transfer,
        ),
        ProtocolResult(
            name="unseen_attack",
            title="Leave one attack out",
            question="Does it find an attack that it never saw?",
            folds=left_out,
            pooled=everyone(0.2, draw, grouped=True),
        ),
        ProtocolResult(
            name="few_labels",
            title="Few labelled adapters",
            question="How many adapters must be labelled?",
            curve=curve,
        ),
        ProtocolResult(
            name="unseen_base",
            title="Unseen base model",
            question="Does it carry to another base model?",
            skipped="the benchmark holds one base model only",
        ),
        ProtocolResult(
            name="wild",
            title="Benign adapters in the wild",
            question="How many strangers' adapters does it flag?",
            pooled=wild,
        ),
    )


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(write_page(sample()))


def test_sections_and_protocols_stand_in_order(page: Page) -> None:
    assert page.open == []
    text = "|".join(page.words)
    titles = ["Leaderboard", "Leak test", "Duds", "Not measured", "Where this comes from"]
    assert [title for title in titles if title in page.words] == titles
    assert "the benchmark holds one base model only" in text
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    links = {attrs["href"] for name, attrs in page.tags if name == "a"}
    assert ids == ["protocol-0", "protocol-1", "protocol-2", "protocol-3", "protocol-5"]
    assert links <= {f"#{each}" for each in ids}


def test_page_says_what_makes_it_again(page: Page) -> None:
    expected = {"0.1.0", "3.12.3", "2.4.0", "9f" * 32, sample().command}
    assert expected <= set(page.words)


def test_page_is_the_same_every_time() -> None:
    assert write_page(sample()) == write_page(sample())


def test_page_names_nothing_outside_itself(page: Page) -> None:
    text = write_page(sample())
    assert "://" not in text
    assert "url(" not in text
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "base", "use", "image"}
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert not {name for name in attributes if name.startswith("on")} | (
        attributes & {"src", "style", "srcset"}
    )


def test_policy_allows_the_pages_own_style_only(page: Page) -> None:
    policy = next(attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs)
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def named(name: str) -> Evaluation:
    """An evaluation in which every string that a manifest or a plug-in gives is `name`."""
    row = scored(name, 0.9, {name: {name: metrics(0.9)}})
    failed = Scored(detector=f"{name}!", failed=name)
    pairs = [(f"{name}{a}", f"{name}{b}") for a in range(2) for b in range(2)]
    folds = [fold(a, b, [row, failed]) for a, b in pairs]
    measured = ProtocolResult(
        name=name,
        title=name,
        question=name,
        folds=folds,
        pooled=[row, failed],
        curve={name: [(20, figure(0.7)), (40, figure(0.8))]},
    )
    skipped = ProtocolResult(name=name, title=name, question=name, skipped=name)
    return evaluation(measured, skipped, zoo=name, command=name)


def test_hostile_names_do_not_change_the_markup() -> None:
    def shape(page: Page) -> list[tuple[str, list[str]]]:
        return [(tag, list(attrs)) for tag, attrs in page.tags]

    hostile = Page(write_page(named(HOSTILE)))
    assert shape(hostile) == shape(Page(write_page(named("plain"))))
    assert hostile.open == []


def test_names_that_act_on_a_reader_are_spelled_out() -> None:
    text = write_page(named(HOSTILE))
    body = text[text.index("<body") :]
    assert "<script" not in text
    assert all(character.isprintable() for character in body.removesuffix("\n"))
    assert r"\u202e\ud800" in body
    text.encode("utf-8")


def test_best_is_marked_with_all_that_cannot_be_told_from_it() -> None:
    def row(name: str, value: float, low: float, high: float) -> Scored:
        return Scored(detector=name, metrics=Metrics(auroc=Figure(value=value, low=low, high=high)))

    rows = [
        row("a", 0.90, 0.85, 0.95),
        row("b", 0.86, 0.82, 0.90),
        row("c", 0.80, 0.75, 0.84),
        row(LEAK_TEST, 0.99, 0.98, 1.0),
        Scored(detector="d", failed="no"),
    ]
    assert leaders(AUROC, rows) == {"a", "b"}
    assert leaders(FPR, rows) == set()
    page = Page(
        write_page(evaluation(ProtocolResult(name="p", title="P", question="?", pooled=rows)))
    )
    assert [attrs["class"] for _, attrs in page.tags if "best" in (attrs.get("class") or "")] == [
        "best",
        "best",
        "main best",
        "main best",
    ]
    order = [row[0] for row in page.rows]
    assert order[1:6] == ["a", "b", "c", "d", LEAK_TEST]


def test_one_training_value_a_row_makes_a_matrix_a_detector(page: Page) -> None:
    corners = [row for row in page.rows if row and row[0] == "trained on ↓tested on →"]
    assert corners == [["trained on ↓tested on →", *ATTACKS]] * (len(SKILL) + 1)
    same = [attrs for _, attrs in page.tags if (attrs.get("class") or "").endswith("same")]
    assert len(same) == len(ATTACKS) * len(corners)


def test_folds_that_form_no_grid_are_listed(page: Page) -> None:
    row = page.row("all but cba to cba")
    assert row[1:3] == ["240120 backdoored", "12060 backdoored"]
    assert len(row) == 3 + len(SKILL) + 1


def test_charts_name_what_they_show(page: Page) -> None:
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and "role" in attrs]
    assert [str(label).split(" of ")[0] for label in labels] == [
        "ROC curves",
        "ROC curves",
        "Learning curves",
    ]
    assert "ensemble" in str(labels[0])


def test_points_of_charts_are_numbers_inside_the_view(page: Page) -> None:
    points = [str(attrs["points"]) for tag, attrs in page.tags if tag == "polyline"]
    numbers = [float(each) for point in points for each in re.split("[ ,]", point)]
    assert numbers
    assert all(0 <= number <= 360 for number in numbers)


def test_failure_is_told_with_its_reason(page: Page) -> None:
    assert page.row("peftguard")[1:] == ["failed", "not run"]
    assert ["peftguard", "failed: mixed shapes: 384x384, 384x1536"] in page.rows


def test_failure_in_folds_is_told_once_with_its_folds() -> None:
    failed = Scored(detector="linear", failed="one class only")
    folds = [fold("a", "b", [failed]), fold("b", "a", [failed]), fold("a", "c", [scored("x", 0.7)])]
    page = Page(
        write_page(evaluation(ProtocolResult(name="p", title="P", question="?", folds=folds)))
    )
    assert page.words.count("linear failed on a to b, b to a: one class only") == 1


def test_evaluation_without_figures_is_still_a_page() -> None:
    bare = Scored(detector="gram", groups={"attack": {"cba": Metrics()}}, roc=[])
    nothing = ProtocolResult(name="p", title="P", question="?", pooled=[bare])
    odd = ProtocolResult(
        name="q",
        title="Q",
        question="?",
        folds=[Fold(name="f", detectors=[bare]), Fold(name="g")],
        curve={"gram": [(20, Figure()), (0, figure(0.5))]},
    )
    page = Page(write_page(evaluation(nothing, odd)))
    assert page.open == []
    assert "No protocol was measured." in page.words
    assert "It was not run: these figures may owe something to the recipe." in page.words
    assert [tag for tag, _ in page.tags if tag == "polyline"] == []
    assert Page(write_page(evaluation())).open == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_number_that_is_none_is_a_dash(value: float | None) -> None:
    odd = Figure(value=value, low=value, high=value, n=3)
    assert "\N{EN DASH}" in figure_text(AUROC, odd)
    assert heat_class(AUROC, odd) is None
    row = Scored(detector="gram", metrics=Metrics(auroc=odd), roc=[(math.nan, 0.0)])
    protocol = ProtocolResult(
        name="p", title="P", question="?", pooled=[row, scored("linear", 0.8)]
    )
    page = Page(write_page(evaluation(protocol)))
    assert page.row("gram")[1] == "\N{EN DASH}"
    assert not {"nan", "inf", "None"} & set(page.words)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, "heat above l0"),
        (1.0, "heat above l10"),
        (0.0, "heat below l10"),
        (0.26, "heat below l5"),
    ],
)
def test_colour_is_the_distance_from_chance(value: float, expected: str) -> None:
    assert heat_class(AUROC, Figure(value=value)) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.45, 0.55, "no leak"),
        (0.52, 0.7, "leaks"),
        (0.2, 0.4, "below"),
        (None, None, "no interval"),
    ],
)
def test_leak_is_read_off_the_interval(
    low: float | None, high: float | None, expected: str
) -> None:
    assert expected in leak_reading(Figure(value=0.5, low=low, high=high))


def test_long_tables_are_cut_and_say_so() -> None:
    values = {f"trigger {at}": metrics(0.8) for at in range(MAX_ROWS + 5)}
    row = scored("gram", 0.8, {"trigger": values})
    page = Page(
        write_page(evaluation(ProtocolResult(name="p", title="P", question="?", pooled=[row])))
    )
    assert "and 5 more rows, in the JSON report" in page.words
    assert sum(row[0].startswith("trigger ") for row in page.rows) == MAX_ROWS


def test_the_page_and_the_table_name_every_figure_alike() -> None:
    every = Metrics(**{name: figure(0.5) for name in Metrics.model_fields})
    rows = [Scored(detector="one", metrics=every)]
    found = evaluation(ProtocolResult(name="all", title="All", question="?", pooled=rows))
    heads = next(row for row in Page(write_page(found)).rows if "Tested" in row)
    table = " ".join(text_of(found, width=300).split())
    assert [measure.key for measure in MEASURES] == [
        "auroc", "tpr_at_1", "tpr_at_5", "tpr", "fpr", "fpr_covered", "accuracy", "brier",
        "cross_entropy", "abstention",
    ]  # fmt: skip
    assert {measure.key for measure in MEASURES} == set(Metrics.model_fields)
    assert heads[1:-2] == [measure.name for measure in MEASURES]
    assert " ".join(measure.name for measure in MEASURES) in table


def test_where_nobody_is_covered_the_share_of_covered_ones_is_a_dash() -> None:
    nobody = Metrics(fpr=figure(0.0, 8), abstention=figure(1.0, 8))
    rows = [Scored(detector="one", metrics=nobody)]
    found = evaluation(ProtocolResult(name="wild", title="Wild", question="?", pooled=rows))
    page = Page(write_page(found))
    heads = next(row for row in page.rows if "Tested" in row)
    row = next(row for row in page.rows if row[:1] == ["one"] and len(row) == len(heads))
    assert row[heads.index("Covered benign flagged")] == "\N{EN DASH}"
    assert "Covered benign flagged" in text_of(found)
