"""Saved models open in every release of Keras from 3.5 to 3.15, with our code and without."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import too_feature as script
from ecg.files import ROOT
from tests.support.models import save

RELEASES = "3.5.0", "3.9.2", "3.12.4", "3.15.1"
SHIPPED = [str(ROOT / f"models/real_{kind}.keras") for kind in ("default", "large")]

OPEN = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
import too_feature as script
from tools.classify import classify_record
_, keras = script.load_tensorflow()
record, *paths = sys.argv[1:]
answers = [keras.__version__]
for path in paths:
    loaded = script.load(path)
    ecg, features, _ = script.prepare_record(record, recipe=loaded.recipe)
    inputs = ecg[None], features[None]
    plain = keras.models.load_model(path, compile=False)
    classified = classify_record(record, path)
    answers.append([np.ravel(model.predict_on_batch(inputs)).tolist()
                    for model in (loaded.model, plain)]
                   + [[classified[name] for name in loaded.classes]])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def opened(demo_dir, tmp_path_factory):
    """Return a function that opens models in a release of Keras and returns their answers."""
    folder = tmp_path_factory.mktemp("keras")
    models = [*SHIPPED, str(save("ensemble", folder / "ensemble.keras"))]
    adapted = script.load(SHIPPED[0])
    last = adapted.model.layers[-1]
    last.set_weights([1.1 * array for array in last.get_weights()])
    script.save(adapted.model, adapted.card, folder / "adapted.keras")
    models.append(str(folder / "adapted.keras"))
    record = next(demo_dir.rglob("*.hea")).with_suffix("")

    def answers(release):
        target = folder / release
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target]
        installed = subprocess.run([*pip, f"keras=={release}"], capture_output=True, text=True)
        if installed.returncode:
            assert "CI" not in os.environ, installed.stderr
            pytest.skip(f"pip cannot install Keras {release}")
        result = subprocess.run(
            [sys.executable, "-c", OPEN, record, *models], capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(target)}, cwd=folder, timeout=600)
        assert result.returncode == 0, result.stderr[-2000:]
        version, *rows = json.loads(result.stdout.splitlines()[-1])
        assert version == release
        return np.array(rows)

    return answers


@pytest.mark.slow
def test_models_give_the_same_in_every_release_of_keras_with_our_code_and_without(opened):
    of_releases = [opened(release) for release in RELEASES]
    for answers in of_releases:    # (models, ways to open, classes)
        np.testing.assert_allclose(answers, np.broadcast_to(
            of_releases[0][:, :1], answers.shape), atol=1e-6)
