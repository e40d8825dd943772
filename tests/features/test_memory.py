"""Kept results are the ones that would be computed."""

from __future__ import annotations

import numpy as np

from peftguard.features.inner_product import Site, inner_products
from peftguard.features.memory import Memory
from peftguard.features.weights import Factors, Weights

SITE = Site("q", (6, 4))


def adapters(count: int) -> list[Weights]:
    rng = np.random.default_rng(count)
    return [
        Weights("same name", {"q": Factors(rng.normal(size=(6, r)), rng.normal(size=(r, 4)))})
        for r in range(1, count + 1)
    ]


def test_computes_once_for_each_adapter_and_name() -> None:
    one, other = adapters(2)
    calls: list[Weights] = []

    def compute(adapter: Weights) -> int:
        calls.append(adapter)
        return len(calls)

    memory = Memory()
    assert [memory.of("a", x, compute) for x in (one, other, one)] == [1, 2, 1]
    assert memory.of("b", one, compute) == 3


def test_products_with_and_without_being_told() -> None:
    some = adapters(4)
    expected = inner_products(some, some, SITE)
    memory = Memory()
    np.testing.assert_array_equal(memory.products(inner_products, some, some, SITE), expected)
    memory.expect(some[:2])
    np.testing.assert_allclose(memory.products(inner_products, some, some, SITE), expected)
    memory.expect(some)
    np.testing.assert_allclose(memory.products(inner_products, some, some, SITE), expected)
    np.testing.assert_allclose(
        memory.products(inner_products, some[3:1:-1], some[:3], SITE), expected[3:1:-1, :3]
    )


def test_adapters_that_come_later() -> None:
    first, second = adapters(3), adapters(2)
    memory = Memory()
    memory.expect(first)
    memory.products(inner_products, first, first, SITE)
    memory.expect(second)
    everyone = [*second, *first]
    expected = inner_products(everyone, everyone, SITE)
    np.testing.assert_allclose(memory.products(inner_products, everyone, everyone, SITE), expected)


def test_adapters_that_come_twice() -> None:
    one, other, last = adapters(3)
    memory = Memory()
    memory.expect([one, other, one, last])
    found = memory.products(inner_products, [last, one, one], [last], SITE)
    np.testing.assert_allclose(found, inner_products([last, one, one], [last], SITE))
