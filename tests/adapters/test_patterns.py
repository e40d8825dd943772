"""Expressions of an adapter's author: as PEFT reads them, and never for long."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.adapters.patterns import (
    MAX_EXPRESSIONS,
    Expressions,
    first_match,
    is_plain,
    suffixes,
    targets,
)
from peftguard.errors import InputError

MODULES = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.10.self_attn.q_proj",
    "model.layers.1.mlp.experts.0.w1",
    "transformer.h.1.attn.c_attn",
    "q_proj",
    "xq_proj",
]
EXPRESSIONS = [
    "q_proj",
    "layers.1.mlp",
    "layers.0.self_attn.q_proj",
    "model.layers.1?.self_attn.q_proj",
    r"layers\.\d+\..*proj",
    ".*",
    ".q_proj",
    "(q|v)_proj",
    "[qk]_proj|c_attn",
    r"(?:.*\.)?w1",
    r"^model\.layers\.(0|1)\..+",
    "h.{1,3}attn.c_attn",
    r"(?!x).*q_proj",
    "",
    "layersx0.self_attn.q_proj",
    "layers.0.self-attn.q_proj",
]
HOSTILE = ["(a|aa)+$", "(a|a)*[^a!]", "(a|aa)+y|(?:a|aa)+[^a]x"]


def as_peft(expressions: list[str], module: str) -> str | None:
    """`get_pattern_key` of peft 0.21, None for its default."""
    matched = next((e for e in expressions if re.match(rf"(.*\.)?({e})$", module)), module)
    return matched if matched in expressions else None


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("module", MODULES)
def test_matches_as_peft_does(expression: str, module: str) -> None:
    assert first_match([expression], module) == as_peft([expression], module)
    assert targets(expression, module) == (re.fullmatch(expression, module) is not None)


def test_takes_the_first_that_matches() -> None:
    assert first_match([".*_proj", "q_proj"], "model.q_proj") == ".*_proj"
    assert first_match(["q_proj", ".*_proj"], "model.q_proj") == "q_proj"
    assert first_match(["q_proj", ".*_proj", "q_proj"], "model.q_proj") == "q_proj"
    assert first_match(["0", ".", "0"], "0") == "0"


def test_a_key_that_is_the_module_itself_counts_without_matching() -> None:
    assert first_match(["a+b"], "a+b") == "a+b"


NAMES = st.text("ab.-_0", min_size=1, max_size=8)
"""No empty ones: an empty expression matches the end of anything, and no module is called so."""


@given(st.lists(NAMES, max_size=4), NAMES)
def test_plain_names_equal_the_expressions_they_are(names: list[str], module: str) -> None:
    assert all(is_plain(name) for name in names)
    assert first_match(names, module) == as_peft(names, module)
    assert [targets(n, module) for n in names] == [bool(re.fullmatch(n, module)) for n in names]


@given(st.lists(NAMES, max_size=4), NAMES)
def test_a_list_of_targets_matches_suffixes(names: list[str], module: str) -> None:
    expected = module in names or any(module.endswith(f".{name}") for name in names)
    assert targets(names, module) == expected


@pytest.mark.parametrize("expression", HOSTILE)
def test_a_slow_expression_is_reported_not_defaulted(expression: str) -> None:
    module = "a" * 1000 + "!"
    with pytest.raises(InputError, match="was not run") as error:
        first_match([expression], module)
    assert error.value.code == "integrity.pattern-skipped"


def test_a_slow_expression_is_not_tried_again() -> None:
    expression = "(a|aaa)+$"
    for _ in range(200):
        with pytest.raises(InputError):
            first_match([expression], "a" * 1000 + "!")


NOT_RUN = ["(", "[a", "*a", "a{2,1}", "(?P<x>a)", r"\p{L}+", "(abc){e<=2}", "[[:alpha:]]+", "(?R)"]
NOT_RUN += ["[a--b]", "a" * 600 + "+", "(" * 400, r"\L<names>", "(?i)q_proj"]


@pytest.mark.parametrize("expression", NOT_RUN)
def test_what_cannot_be_run_alike_is_reported(expression: str) -> None:
    for run in (
        lambda: first_match([expression], "model.q_proj"),
        lambda: targets(expression, "q"),
    ):
        with pytest.raises(InputError) as error:
            run()
        assert error.value.code == "integrity.pattern-skipped"
        assert len(str(error.value)) < 300


def test_the_number_of_expressions_is_bounded() -> None:
    expressions = [f"x{n}|y" for n in range(MAX_EXPRESSIONS + 1)]
    with pytest.raises(InputError) as error:
        first_match(expressions, "model.q_proj")
    assert error.value.code == "integrity.pattern-skipped"
    assert first_match([f"x{n}" for n in range(1000)], "model.x999") == "x999"


def test_plain_names_load_no_engine() -> None:
    program = (
        "import sys; from peftguard.adapters.patterns import first_match; "
        "first_match(['layers.0', 'q_proj'], 'model.q_proj'); sys.exit('regex' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_hundred_thousand_names_cost_look_ups_only() -> None:
    names = [f"layers.{n}.q_proj" for n in range(100_000)]
    prepared = Expressions([*names, ".*k_proj"])
    found = [prepared.first_match(f"model.layers.{n}.q_proj") for n in range(0, 100_000, 10)]
    assert found == names[::10]
    assert prepared.first_match("model.k_proj") == ".*k_proj"


def test_suffixes_begin_after_each_dot() -> None:
    assert list(suffixes("a.b..c")) == ["a.b..c", "b..c", ".c", "c"]
    assert list(suffixes("a.")) == ["a.", ""]
