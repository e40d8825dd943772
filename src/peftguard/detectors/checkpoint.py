"""Checkpoints of the authors' own code as detectors: torch state dicts of conv1, fc1, fc2, fc3."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from peftguard.adapters.containers import open_container
from peftguard.adapters.containers.base import Container
from peftguard.detectors.convolution import towers_of
from peftguard.detectors.published import PeftGuardNet
from peftguard.detectors.published_net import Network
from peftguard.errors import MalformedFile, SettingsError
from peftguard.features.inner_product import Site
from peftguard.features.weights import Float32
from peftguard.limits import Deadline, Limits

_KEY = re.compile(
    r"(?:.*\.)?(?P<layer>conv1|fc1|fc2|fc3)(?P<tower>(?<=1)_\w+)?\.(?P<part>weight|bias)"
)


def from_checkpoint(
    path: str | PathLike[str],
    channels: Sequence[Site],
    *,
    conv: Sequence[int] | None = None,
    gain: float = 1.0,
    limits: Limits | None = None,
) -> PeftGuardNet:
    """The published network with weights from a file, ready to score.

    Layers may be prefixed (`module.conv1.weight`) and lie in a `state_dict` entry. Several towers
    are told apart by suffixes (`conv1_q`, `conv1_v`) and belong to the shapes among `channels` in
    their order. A pickle is scanned, then loaded by torch's weights-only loader in a child process
    within `limits`; a checkpoint for a 7B base takes more than the default 8 GiB and 300 s.

    Args:
        path: torch state dict, or the same as safetensors.
        channels: what each channel of the image was, in order. A state dict does not say;
            `sites_of([adapter])` gives the modules of an adapter in file order.
        conv: filters, kernel, stride, padding; None: as published for the shape.
        gain: what multiplies every update, as of `PeftGuardNet`.
        limits: bounds on the file.

    Raises:
        SettingsError: there is no channel, or `conv` does not fit one.
        MalformedFile: a layer is missing, unknown, not finite, or of another shape.
        InputError: the file cannot be read, as `open_container` says.
        MissingExtra: a pickle without torch.
    """
    limits = limits or Limits()
    if not channels:
        raise SettingsError("channels: expected at least one module, found none")
    network = Network(towers_of(channels, conv), gain)
    container = open_container((Path(path),), limits, Deadline(limits.max_seconds))
    try:
        names = _stored_names(container, network)
        parameters = {
            name: _read(container, names, name, shape) for name, shape in network.shapes().items()
        }
    finally:
        container.close()
    detector = PeftGuardNet(conv=conv, gain=gain)
    detector.network_, detector.parameters_ = network, parameters
    return detector


def _stored_names(container: Container, network: Network) -> dict[str, str]:
    """Name in the file by name in the network; suffixes become numbers in file order."""
    matches = {stored: _KEY.fullmatch(stored) for stored in container.tensors}
    suffixes = dict.fromkeys(
        match["tower"] or "" for match in matches.values() if match and match["layer"][-1] == "1"
    )
    towers = dict(zip(suffixes, network.tower_names(), strict=False))
    names: dict[str, str] = {}
    for stored, match in matches.items():
        layer, suffix = (match["layer"], match["tower"] or "") if match else ("", "")
        if layer in ("conv1", "fc1"):
            layer = dict(zip(("conv1", "fc1"), towers.get(suffix, ("", "")), strict=True))[layer]
        name = f"{layer}.{match['part']}" if match else ""
        if not layer or name in names:
            expected = ", ".join(sorted({name.split(".")[0] for name in network.shapes()}))
            raise MalformedFile(
                "not a layer of the published network, or one that comes twice",
                file=container.path.name,
                key=stored,
                expected=f"weight and bias of {expected}",
            )
        names[name] = stored
    return names


def _read(
    container: Container, names: Mapping[str, str], name: str, shape: tuple[int, ...]
) -> Float32:
    file = container.path.name
    if name not in names:
        raise MalformedFile("a layer is missing", file=file, key=name, expected=f"shape {shape}")
    info = container.tensors[names[name]]
    if info.shape != shape or not info.dtype.startswith(("F", "BF")):
        raise MalformedFile(
            "does not fit the published network on these channels",
            file=file,
            key=info.name,
            expected=f"floats of shape {shape}",
            found=f"{info.dtype} of shape {info.shape}",
        )
    array = container.read(info.name).astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise MalformedFile("not finite", file=file, key=info.name)
    return array
