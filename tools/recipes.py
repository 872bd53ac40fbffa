"""What `too_feature.py --recipe NAME` and `--model large` set otherwise than the defaults.

The script imports this file when one of them is asked for; it knows nothing of the script.
"""

import runpy
from pathlib import Path

RECIPES = {
    "default": {},
    # The thesis's way, with only its mistakes mended: the right clock, features scaled inside the
    # model, no record repeated in validation or test.
    "thesis": {"high_pass": 0.0, "central_share": 0.5, "span": 1.0, "memory": 0.0,
               "feature_limit": 1000.0, "keep": "best", "shift": 0.0, "lead_gain": 0.0,
               "amplitude_noise": 0.0, "settle": 0},
    "best": {"batch_size": 16, "epochs": 40, "learning_rate": 0.002, "schedule": "cosine",
             "stop_patience": 40, "settle": 0},
}


def defaults(recipe, model):
    """Return the settings, by name, of a recipe and a model (lstm or large).

    The large model has a recipe of its own, which is its best.
    """
    if model == "large" and recipe != "thesis":
        return runpy.run_path(str(Path(__file__).with_name("large_model.py")))["RECIPE"]
    return RECIPES[recipe]
