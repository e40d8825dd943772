"""A CycloneDX 1.6 ML-BOM: adapters, their files, and the base models that they claim to fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftguard.errors import MissingExtra
from peftguard.reports.uris import hub_uri
from peftguard.reports.visible import visible
from peftguard.reports.wording import facts
from peftguard.results import Result, Scan

if TYPE_CHECKING:
    from cyclonedx.model import ExternalReference, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component


def render(scan: Scan) -> str:
    """The BOM as JSON; its serial number and timestamp are new each time.

    Raises:
        MissingExtra: cyclonedx-python-lib is not installed.
    """
    try:
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError:
        raise MissingExtra("writing a CycloneDX BOM", "cyclonedx") from None
    return f"{JsonV1Dot6(_bom(scan)).output_as_string(indent=2)}\n"


def _bom(scan: Scan) -> Bom:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType

    bom = Bom()
    bom.metadata.tools.components.add(
        Component(name=scan.tool.name, version=scan.tool.version, type=ComponentType.APPLICATION)
    )
    bases: dict[str, Component] = {}
    for number, result in enumerate(scan.results):
        adapter = _adapter(result, f"adapter-{number}")
        bom.components.add(adapter)
        name = result.adapter.base_model if result.adapter is not None else None
        if name is not None:
            base = bases.setdefault(name, _base_model(name, f"base-model-{len(bases)}"))
            bom.register_dependency(adapter, [base])
    bom.components.update(bases.values())
    return bom


def _adapter(result: Result, ref: str) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=visible(result.target, 1024),
        version=result.origin.revision if result.origin is not None else None,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        hashes=_own_hash(result),
        components=_files(result, ref),
        external_references=_origin(result),
        properties=[
            Property(name=f"peftguard:{name}", value=visible(value, 2000))
            for name, value in _statements(result)
        ],
    )


def _base_model(name: str, ref: str) -> Component:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=visible(name, 1024),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        properties=[Property(name="peftguard:claim", value="named by the adapter, not checked")],
    )


def _files(result: Result, ref: str) -> list[Component]:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(
            name=visible(digest.path, 1024),
            type=ComponentType.FILE,
            bom_ref=f"{ref}-file-{number}",
            hashes=[_sha256(digest.sha256)],
            properties=[Property(name="peftguard:bytes", value=str(digest.n_bytes))],
        )
        for number, digest in enumerate(result.files)
    ]


def _origin(result: Result) -> list[ExternalReference]:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri

    if result.origin is None:
        return []
    uri = XsUri(hub_uri(result.origin))
    return [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=uri)]


def _sha256(digest: str) -> HashType:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _own_hash(result: Result) -> list[HashType]:
    """The joint hash of several shards is no file's hash, so it is only a property."""
    digests = {digest.sha256 for digest in result.files}
    return [_sha256(result.sha256)] if result.sha256 in digests else []


def _statements(result: Result) -> Iterator[tuple[str, str]]:
    """(name, value) of everything the scan says; names may repeat."""
    verdict = result.verdict
    yield "verdict", verdict.label
    yield from (("verdict:reason", reason) for reason in verdict.reasons)
    figures = {"score": verdict.score, "p-value": verdict.p_value, "fpr": verdict.fpr}
    for name, figure in figures.items():
        if figure is not None:
            yield f"verdict:{name}", f"{figure:.6g}"
    if verdict.detector is not None:
        yield "verdict:detector", verdict.detector.name
        yield "verdict:detector:sha256", verdict.detector.sha256
        yield "verdict:detector:coverage", verdict.detector.coverage
    if result.sha256 is not None:
        yield "sha256", result.sha256
    if result.adapter is not None:
        for name, value in facts(result.adapter):
            yield f"adapter:{name.replace(' ', '-')}", value
    for finding in result.findings:
        yield f"finding:{finding.code}", f"{finding.severity}: {finding.message}"
