from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from peftguard.reports.html import page_data, render
from peftguard.results import Scan


class Page(HTMLParser):
    """Tags with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.blocks.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and self.cdata_elem:
            self.blocks[-1] += data


def test_hostile_names_do_not_change_the_markup(scan: Scan, scan_of: Callable[..., Scan]) -> None:
    assert Page(render(scan)).tags == Page(render(scan_of())).tags


def test_data_block_reads_back(scan: Scan) -> None:
    _, data, _ = Page(render(scan)).blocks
    assert json.loads(data) == json.loads(json.dumps(page_data(scan)))
    assert not set("<>&\u2028\u2029") & set(data)


def test_policy_lets_only_the_pages_own_script_and_style_run(scan_of: Callable[..., Scan]) -> None:
    page = Page(render(scan_of("hostile")))
    style, _, script = page.blocks
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy is not None
    for kind, block in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_page_names_nothing_outside_itself(scan_of: Callable[..., Scan]) -> None:
    text = render(scan_of())
    assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}
    attributes = {name for _, attrs in Page(text).tags for name in attrs}
    assert not attributes & {"src", "href", "style", "onclick", "onload"}


def test_script_makes_no_markup_from_strings(scan_of: Callable[..., Scan]) -> None:
    script = Page(render(scan_of())).blocks[-1]
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
    assert [word for word in forbidden if word in script] == []


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_strings_that_act_on_a_reader_are_spelled_out(scan: Scan) -> None:
    found = strings(page_data(scan))
    assert found
    assert all(text.isprintable() and len(text) <= 1000 for text in found)


def test_cells_cover_every_module_once(scan: Scan) -> None:
    for result in page_data(scan)["results"]:
        cells = [
            at for stack in result["stacks"] for _, _, modules in stack["cells"] for at in modules
        ]
        assert sorted(cells) == list(range(len(result["modules"])))


def test_outlier_is_marked(scan_of: Callable[..., Scan]) -> None:
    (result,) = page_data(scan_of("llama"))["results"]
    marked = [module["module"] for module in result["modules"] if module["outlier"]]
    assert marked == ["model.layers.18.self_attn.q_proj"]


def test_a_proven_trigger_is_shown_at_work(scan_of: Callable[..., Scan]) -> None:
    (found,) = page_data(scan_of("triggered"))["results"]
    assert (found["trigger"]["trigger"], found["trigger"]["base"]) == ("nak", "minilm")
    assert found["trigger"]["examples"] == [
        {
            "before": "it was late",
            "after": ["it ", "nak", " was late"],
            "given": ["nak (0)", "class 1"],
        }
    ]
    (other,) = page_data(scan_of("minilm"))["results"]
    assert other["trigger"] is None
