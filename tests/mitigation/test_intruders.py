"""PEFT's own function, given peft's own adapter, comes to the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tests.mitigation.conftest import Toy
from tests.trigger.conftest import peft

from peftguard.mitigation.intruders import IntruderReduction
from peftguard.mitigation.method import Given

intruders = pytest.importorskip("peft.tuners.lora.intruders")


@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_it_is_what_peft_does(toy: Toy, kind: str) -> None:
    base, folder = toy.loaded(), toy.adapters[kind]
    model = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), folder)
    intruders.reduce_intruder_dimension(model, logging_sink=None)
    after = IntruderReduction().apply(toy.read(kind), Given(base=base))
    for module, layer in after.layers.items():
        own = model.base_model.model.get_submodule(module)
        wanted = own.get_delta_weight("intruder_reduced").detach().numpy()
        np.testing.assert_allclose(layer.scale * layer.B @ layer.A, wanted, atol=2e-4)
