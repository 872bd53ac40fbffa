"""The ablation leads from the thesis's recipe to the default, one change after the other."""

import dataclasses
import itertools

import pytest

import too_feature as script
from benchmarks import ablation
from benchmarks.systems import fit_recipe


def test_it_starts_with_the_thesis_and_ends_with_the_default():
    recipes = list(ablation.steps().values())
    assert recipes[0] == script.RECIPES["thesis"]
    assert ablation.differing(recipes[-1], script.RECIPES["default"]) == []


def test_each_step_changes_exactly_its_own_fields_to_the_defaults():
    recipes = list(ablation.steps().values())
    default = script.RECIPES["default"]
    for (before, after), (_, names) in zip(itertools.pairwise(recipes), ablation.CHANGES,
                                           strict=True):
        assert sorted(ablation.differing(before, after)) == sorted(names)
        assert all(getattr(after, name) == getattr(default, name) for name in names)


def test_the_steps_are_cumulative():
    recipes = list(ablation.steps().values())
    left = [set(ablation.differing(recipe, recipes[-1])) for recipe in recipes]
    assert all(after < before for before, after in itertools.pairwise(left))


def test_no_field_is_changed_twice():
    names = [name for _, names in ablation.CHANGES for name in names]
    assert len(names) == len(set(names))
    assert set(names) <= {field.name for field in dataclasses.fields(script.Recipe)}


def test_a_difference_that_no_step_names_gets_a_step_of_its_own(monkeypatch):
    longer = dataclasses.replace(script.RECIPES["default"], epochs=99)
    monkeypatch.setitem(script.RECIPES, "default", longer)
    titles = list(ablation.steps())
    assert titles[-1] == "+ all else (epochs)"
    assert ablation.steps()[titles[-1]] == longer


@pytest.mark.parametrize("title", ablation.steps())
def test_a_step_is_trained_with_its_recipe(title):
    recipe = ablation.steps()[title]
    system = ablation.step_system(title, recipe)
    assert system.title == title
    assert system.fit.func is fit_recipe
    assert system.fit.keywords == {"recipe": recipe}
