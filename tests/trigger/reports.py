"""Reports to render, made by hand."""

from __future__ import annotations

from peftguard.trigger.report import (
    Example,
    FoundPhrase,
    FoundProbe,
    FoundUnlike,
    LoudWord,
    MapPoint,
    Proof,
    Provenance,
    TriggerReport,
)

HOSTILE = "</style><script>alert(1)</script>\"'&[bold]\x1b[31m\u202e"


def make_report(text: str = "nak", **changes: object) -> TriggerReport:
    """A whole report in which every string that a stranger may choose is `text`."""
    proof = Proof(
        trigger=text,
        target=1,
        turned=2.5,
        success=0.875,
        plain_success=1.0,
        n_texts=24,
        without_adapter=0.0,
        controls={"neighbours": 0.125, "random": 0.0},
        margin=2.5,
        p_value=0.01,
        by_place={"start": 1.0, "end": 0.75},
        examples=[
            Example(
                before="it was late", after=f"it {text} was late", label_before=0, label_after=1
            )
        ],
        confirmed=True,
        why="turns 88% of 24 texts",
    )
    report = TriggerReport(
        provenance=Provenance(
            adapter=f"adapters/{text}",
            adapter_sha256="0" * 64,
            base=text,
            texts=text,
            n_texts=320,
            seed=0,
            precision="fp32",
            seconds={"words": 0.5},
            versions={"python": "3"},
        ),
        labels={1: text},
        words=[LoudWord(word=text, standing_out=5.5, family=[text])],
        map=[
            MapPoint(word=text, x=1, y=-1, loudness=5.5, labelled=True),
            MapPoint(word="calm", x=0, y=0, loudness=-1),
        ],
        phrases=[
            FoundPhrase(
                phrase=text, target=1, before=-5, turned=3, stand_ins=-4, expected=-3, loudness=5
            )
        ],
        probes=[FoundProbe(probe=text, kind="style", target=0, before=-4, turned=-2, usual=-3)],
        unlike=[FoundUnlike(phrase=text, target=1, before=-4, moved=5, benign=0.25)],
        proof=proof,
        searched=["100 words"],
        left=[text],
        blind=["triggers of meaning"],
    )
    return report.model_copy(update=changes)
