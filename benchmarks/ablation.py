"""From the thesis's recipe to the default, one change after the other."""

import dataclasses

import too_feature as script
from benchmarks.systems import OURS, recipe_system

CHANGES = (    # title, and the fields of `Recipe` that take the default's values
    ("+ band-pass, percentile scaling", ("high_pass", "central_share", "scale_span")),
    ("+ lstm_memory: start of the forget gates", ("lstm_memory",)),
    ("+ limit on scaled features", ("feature_limit",)),
    ("+ noise on amplitude features", ("amplitude_noise",)),
    ("+ shift in time, gain of leads", ("shift", "lead_gain")),
    ("+ batch normalisation settled", ("freeze_bn_after",)),
    ("+ last weights kept", ("keep_weights",)),
    ("+ curve of the heart rate", ("rate_curve",)),
)


def steps():
    """Return the recipes from the thesis's, its mistakes fixed, to the default {title: Recipe}."""
    default = script.RECIPES["default"]
    recipe = script.RECIPES["thesis"]
    found = {"thesis, mistakes fixed": recipe}
    for title, names in CHANGES:
        recipe = dataclasses.replace(recipe, **{name: getattr(default, name) for name in names})
        found[title] = recipe

    left = differing(recipe, default)
    if left:
        found[f"+ all else ({', '.join(left)})"] = default
    return found


def differing(recipe, other):
    """Return the names of the fields in which two recipes differ, apart from their own names."""
    names = [field.name for field in dataclasses.fields(recipe) if field.name != "name"]
    return [name for name in names if getattr(recipe, name) != getattr(other, name)]


def step_system(title, recipe):
    """Return the system that trains one step."""
    return recipe_system(title, recipe, OURS["default"].quick_epochs)
