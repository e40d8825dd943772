from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftguard.padbench.recipe import Method, Recipe
from peftguard.padbench.training.fleets import fleets

from .conftest import recipe

recipes = st.lists(
    st.builds(
        recipe,
        method=st.sampled_from([Method.LORA, Method.DORA]),
        batch_size=st.sampled_from([4, 8]),
        dataset=st.sampled_from(["sst2", "imdb"]),
        steps=st.integers(1, 50),
        name=st.uuids().map(str),
    ),
    max_size=30,
    unique_by=lambda own: own.name,
)


@given(recipes, st.integers(1, 8))
def test_every_recipe_is_in_one_fleet_it_fits(given_recipes: list[Recipe], most: int) -> None:
    made = fleets(given_recipes, most)
    assert sorted(own.name for fleet in made for own in fleet) == sorted(
        own.name for own in given_recipes
    )
    for fleet in made:
        assert 1 <= len(fleet) <= most
        assert len({(own.method, own.batch_size, own.dataset) for own in fleet}) == 1
    assert fleets(given_recipes[::-1], most) == made


@pytest.mark.parametrize(("tokens", "members"), [(64, 1), (128, 2), (1, 1)])
def test_tokens_bound_a_fleet(tokens: int, members: int) -> None:
    own = [recipe(name=str(number), batch_size=4, max_tokens=16) for number in range(4)]
    assert {len(fleet) for fleet in fleets(own, 8, tokens)} == {members}
