"""The large model: its features against simulated truth, its size, its form, and a whole run."""

import ast
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal as dsp

import too_feature
from helpers import drawn, signals, simulated
from tools import classify, large_model, make_demo

ROOT = Path(too_feature.__file__).parent
NAMES = [name for name, _, _ in large_model.EXTRA_FEATURES]
INPUTS = 8 + len(NAMES)


def measure(signal, r_peaks, fs=500):
    """Return the features by name, having taken no warning for granted."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dict(zip(NAMES, large_model.extra_features(signal, fs, r_peaks), strict=True))


def built(sequence_length=500, mean=(0.0,) * INPUTS, variance=(1.0,) * INPUTS):
    keras = too_feature.load_tensorflow()[1]
    return large_model.create_large_model(keras, 5, sequence_length, mean, variance)


@pytest.fixture(scope="module")
def model():
    return built()


# -------------------------------------------------------------------------------------- features
def test_every_feature_has_a_name_of_its_own_and_a_unit():
    assert len(set(NAMES)) == len(NAMES) >= 20
    assert not set(NAMES) & {name for name, _, _ in too_feature.FEATURES}
    assert {type(unit) for _, unit, _ in large_model.EXTRA_FEATURES} == {str}
    assert not any("mV" in unit for _, unit, _ in large_model.EXTRA_FEATURES)    # see invariance


@given(signals(475, 700), st.sampled_from([50, 61.5, 100, 250]),
       st.lists(st.floats(0, 699), max_size=40))
def test_no_record_and_no_peaks_raise_or_give_an_infinity(signal, fs, peaks):
    leads = np.clip(too_feature._as_leads(signal, 1), -1000, 1000)    # as read_record returns it
    before = leads.copy()
    found = large_model.extra_features(leads, fs, [p for p in peaks if p < len(leads) - 1])
    assert found.shape == (len(NAMES),)
    assert not np.isinf(found).any()
    assert np.array_equal(leads, before)


@pytest.mark.parametrize("fs", [50, 500, 4000])
@pytest.mark.parametrize("peaks", ["none", "one", "two", "at the ends", "unsorted", "all"])
def test_few_or_odd_peaks_and_flat_leads_give_nan_and_no_warning(peaks, fs):
    signal, true = simulated(rate=70)
    signal, true = dsp.resample(signal, 10 * fs), true * fs / 500
    chosen = {"none": [], "one": true[3:4], "two": true[3:5], "unsorted": true[[5, 2, 2, 7]],
              "at the ends": [0, 10 * fs - 1], "all": true}[peaks]
    for flat in ([], [1], [0, 6, 11], range(12)):
        leads = signal.copy()
        leads[:, flat] = 0
        found = measure(leads, chosen, fs)
        assert not np.isinf(list(found.values())).any()
        if peaks in ("none", "at the ends") or len(flat) == 12:
            assert np.isnan(found["QRS width"])
        if 1 in flat:
            assert np.isnan(found["T wave II"])
    whole = measure(signal, true, fs)
    assert not np.isnan(list(whole.values())).any()


@pytest.mark.parametrize("category", make_demo.CLASSES)
@pytest.mark.parametrize(("gain", "offset"), [(0.05, 0), (20, 0), (1, 5), (0.3, -2)])
def test_gain_and_offset_of_the_record_change_nothing(category, gain, offset):
    signal, r_peaks = drawn(category, "medium", 3)
    before, after = measure(signal, r_peaks), measure(gain * signal + offset, r_peaks)
    np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fs", [100, 250, 1000])
def test_the_sampling_rate_changes_next_to_nothing(fs):
    signal, r_peaks = simulated(rate=80)
    before, after = measure(signal, r_peaks), measure(dsp.resample(signal, 10 * fs),
                                                      r_peaks * fs / 500, fs)
    grid_ms = 1000 / large_model.GRID    # where a complex begins and ends is a sample of the grid
    for name, unit, _ in large_model.EXTRA_FEATURES:
        assert after[name] == pytest.approx(before[name], rel=0.02, nan_ok=True,
                                            abs=grid_ms if unit == "ms" else 0.02), name


@pytest.mark.parametrize("noise", ["clean", "low", "medium", "high"])
def test_qrs_is_wider_in_every_bundle_branch_block_than_in_any_other_record(noise):
    width = {category: [measure(*drawn(category, noise, seed))["QRS width"] for seed in range(25)]
             for category in make_demo.CLASSES}
    blocked = width.pop(make_demo.BBB)
    assert min(blocked) > 130    # ms; 120 is the limit that cardiologists draw
    for widths in width.values():
        assert 70 < min(widths) <= max(widths) < 120


def test_of_the_demos_records_too_those_of_bundle_branch_block_are_the_wide_ones(demo_dir):
    widths = {make_demo.BBB: [], make_demo.NORMAL: []}
    settings = too_feature.Settings(model="large")
    for _, path, category, _ in make_demo.catalogue():
        if category in widths and len(widths[category]) < 25:
            features = too_feature.prepare_record(demo_dir / path, demo_dir, settings)[1]
            assert features.shape == (INPUTS,)
            widths[category].append(features[8 + NAMES.index("QRS width")])
    blocked, normal = map(np.array, widths.values())
    higher = (blocked[:, None] > normal).mean()    # area under the ROC curve
    assert higher > 0.95
    assert np.median(blocked) > 120 > np.median(normal)


@pytest.mark.parametrize("noise", ["clean", "medium", "high"])
def test_fibrillation_is_irregular_has_no_p_wave_that_repeats_and_waves_in_between(noise):
    found = {category: [measure(*drawn(category, noise, seed, ectopic=False)) for seed in range(20)]
             for category in (make_demo.AF, make_demo.NORMAL)}

    def values(category, name):
        return np.array([one[name] for one in found[category]])

    def higher(name):
        return (values(make_demo.AF, name)[:, None] > values(make_demo.NORMAL, name)).mean()

    for name in ("RR deviation", "RR change", "irregular RR share", "fibrillatory power",
                 "fibrillatory size"):
        assert higher(name) > 0.95, name
    for name in ("P consistency", "best P consistency", "P consistency II"):
        assert higher(name) < 0.02, name
    assert values(make_demo.AF, "best P consistency").max() < 0.5
    assert values(make_demo.NORMAL, "best P consistency").min() > 0.7


def test_rhythm_features_are_those_of_the_rr_intervals():
    signal, _ = simulated()
    peaks = 500 + 400 * np.array([0, 1, 2, 3, 3.6, 5, 6])    # 75 bpm, one beat early, a pause
    found = measure(signal, peaks)
    assert found["median heart rate"] == pytest.approx(75)
    assert found["shortest RR"] == pytest.approx(0.6)
    assert found["longest RR"] == pytest.approx(1.4)
    assert found["RR deviation"] == pytest.approx(0)    # of the median beat
    assert found["irregular RR share"] == pytest.approx(3 / 5)
    assert np.isnan(measure(signal, peaks[:1])["median heart rate"])
    assert np.isnan(measure(signal, peaks[:3])["RR change"])


# ----------------------------------------------------------------------------------------- model
def test_the_large_model_has_at_most_a_million_parameters(model):
    assert 8461 < model.count_params() <= 1_000_000


def test_its_inputs_are_ecg_and_all_features_and_its_output_probabilities(model):
    assert [tuple(x.shape) for x in model.inputs] == [(None, 500, 12), (None, INPUTS)]
    assert [x.name for x in model.inputs] == ["ecg", "features"]
    rng = np.random.default_rng(0)
    out = np.asarray(model([rng.normal(size=(3, 500, 12)), rng.normal(size=(3, INPUTS))]))
    assert out.shape == (3, 5)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(out, axis=0).max() > 1e-4


def test_its_last_layer_takes_a_temperature(model):
    """`train` divides the weights of the last layer: it has to be the softmax's own."""
    last = model.layers[-1]
    assert (type(last).__name__, last.activation.__name__) == ("Dense", "softmax")


def test_it_is_saved_without_custom_objects_and_opens_in_safe_mode(model, tmp_path):
    too_feature.save(model, {}, tmp_path / "large.keras")
    code = ("import sys, json, numpy as np, keras\n"
            "model = keras.models.load_model('large.keras', safe_mode=True)\n"
            "x = np.load('inputs.npz')\n"
            "np.save('out.npy', model.predict([x['a'], x['b']], verbose=0))\n"
            "print('large_model' in sys.modules, 'too_feature' in sys.modules)")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, 500, 12)), rng.normal(size=(3, INPUTS))
    inputs[1][0, ::2] = np.nan
    np.savez(tmp_path / "inputs.npz", a=inputs[0], b=inputs[1])
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                            text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["False", "False"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.asarray(model(inputs)), atol=1e-5)


def test_features_that_are_missing_count_as_the_mean_and_far_ones_are_cut_off():
    mean = np.linspace(-5, 50, INPUTS)
    model = built(100, mean, np.full(INPUTS, 4.0))
    ecg = np.random.default_rng(0).normal(size=(1, 100, 12))

    def at(features):
        return np.asarray(model([ecg, np.array(features, dtype=float)[None]]))

    assert np.array_equal(at(mean), at(np.full(INPUTS, np.nan)))
    assert np.isfinite(at(np.full(INPUTS, np.nan))).all()
    far, farther = at(mean + 2 * 1e3), at(mean + 2 * 1e30)
    assert np.array_equal(far, farther)
    assert not np.allclose(far, at(mean), atol=1e-4)


def test_the_large_models_recipe_is_made_of_settings_and_can_be_overridden():
    settings = too_feature.parse_settings(["--model", "large"])
    for name, value in large_model.RECIPE.items():
        assert getattr(settings, name) == value
    one = too_feature.parse_settings(["--model", "large", "--epochs", "3"])
    assert (one.epochs, one.batch_size) == (3, settings.batch_size)


def test_a_model_that_does_not_stop_early_gets_the_epochs_that_its_schedule_counts_on():
    settings = too_feature.parse_settings(["--model", "large"])
    if settings.schedule == "cosine":    # cut off halfway, the step size would still be large
        assert settings.stop_patience >= settings.epochs


def test_large_model_knows_nothing_of_the_training_script():
    tree = ast.parse(Path(large_model.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree)
             if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "numpy" in names
    assert not any("too_feature" in name or "tensorflow" in name for name in names)


@pytest.mark.slow
def test_from_labels_to_a_saved_large_model_that_classifies_a_record(demo_dir, tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "too_feature.py"), "--model", "large", "--labels",
         str(ROOT / "ecg_5_class_data.csv"), "--data-dir", str(demo_dir), "--output",
         "large.keras", "--train-samples", "100", "--val-samples", "25", "--test-samples", "25",
         "--epochs", "3"], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / "large.json").read_text())
    assert card["settings"]["model"] == "large"
    assert 1 <= len(card["history"][0]) <= 3
    keras = too_feature.load_tensorflow()[1]
    model = keras.models.load_model(tmp_path / "large.keras", safe_mode=True)
    assert model.count_params() <= 1_000_000
    settings = too_feature.Settings(**{**card["settings"], "data_dir": str(demo_dir)})
    split = too_feature.split_patients(too_feature.read_labels(settings.labels))["test"]
    test = too_feature.load_split("test", split, card["classes"], settings, [])
    out = model.predict([test.signals[:], test.features], verbose=0)
    assert np.mean(out.argmax(axis=1) == test.targets) == card["metrics"]["model"]["accuracy"][0]
    for i in range(3):
        found = classify.classify_record(demo_dir / test.rows["waveform_path"][i],
                                         tmp_path / "large.keras")
        assert found == pytest.approx(dict(zip(card["classes"], out[i], strict=True)), abs=1e-5)
