"""The contract in a model's card: who follows its words alone gets the model's probabilities.

`prepared` knows nothing of this project: NumPy, SciPy, wfdb, the numbers of the text, and R peaks.
"""

import functools
import re

import numpy as np
import pytest
import wfdb
from scipy import fft

import too_feature as script
from ecg import card, rate_step
from tests.support import models

LABELS = script.files.ROOT / "ecg_5_class_data.csv"


def numbers(sentences, pattern):
    """Return the numbers that one of the sentences has where the pattern has #."""
    asked = re.escape(pattern).replace(r"\#", r"(-?[\d.]*\d)")
    found = [match for match in (re.search(asked, words) for words in sentences) if match]
    assert len(found) == 1, (pattern, sentences)
    return [float(number) for number in found[0].groups()]


def whole(x, contract):
    """Fill the gaps of a lead, and silence it where it carries no signal."""
    beyond, = numbers(contract["Preparation"], "beyond # mV")
    least, most_missing = numbers(contract["Preparation"], "less than # mV, or of which more "
                                                           "than #%")
    known = np.abs(x) <= beyond
    if (~known).mean() > most_missing / 100:
        return np.zeros(len(x))
    x = np.interp(np.arange(len(x)), np.flatnonzero(known), x[known])
    return x if np.ptp(x) >= least else np.zeros(len(x))


@functools.cache
def cosines(n, points):
    """Return the numbers of the coefficients, and the wave of each at each point."""
    k = np.arange(min(n, points))
    p = np.arange(points)[:, None] * n / points
    return k, np.cos(np.pi * k * (2 * p + 1) / (2 * n))


def scaled(x, contract):
    """Centre, filter, resample, scale and clip a lead."""
    steps = contract["Preparation"]
    n = len(x)
    halves, = numbers(steps, "frequency f = k / # Hz")
    points = int(numbers(steps, "Resample to # points")[0])
    k, waves = cosines(n, points)
    spectrum = fft.dct(x - x.mean(), type=2)[:len(k)]
    if any("f^4" in words for words in steps):
        corner, = numbers(steps, "(f^4 + #^4)")
        spectrum = spectrum * (k / halves) ** 4 / ((k / halves) ** 4 + corner**4)
    y = (spectrum[0] + 2 * waves[:, 1:] @ spectrum[1:]) / (2 * n)

    low, middle, high, = numbers(steps, "quantiles #, # and #")
    low, middle, high = np.quantile(y, [low, middle, high])
    distance = (high - low) / numbers(steps, "outer two over #")[0]
    if high - low < numbers(steps, "less than # of the")[0] * np.ptp(y):
        distance = y.std()
    clip = numbers(steps, "Clip to # and #")
    return np.clip((y - middle) / (distance or 1), *clip)


def measured(x, rr):
    """Compute the eight features by their formulas, in the order of the text."""
    z = (x - x.mean()) / x.std()
    d = np.diff(rr)
    s = np.sqrt(np.sum((rr - rr.mean()) ** 2) / (len(rr) - 1))
    return [x.mean(), x.std(), np.mean(z**3), np.mean(z**4) - 3, 60 / rr.mean(), 1000 * s,
            1000 * np.sqrt(np.mean(d**2)), s / rr.mean()]


def prepared(path, contract, r_peaks):
    """Return both inputs of a record, from the words of the contract alone, and its R peaks."""
    seconds, = numbers(contract["Preparation"], "the first # s")
    record = wfdb.rdrecord(str(path))
    signal = record.p_signal[:int(seconds * record.fs)]
    order = re.search("in this order: (.*)[.]", contract["Inputs"][1])[1].split(", ")
    leads = {name: whole(signal[:, record.sig_name.index(name)], contract) for name in order}
    ecg = np.column_stack([scaled(lead, contract) for lead in leads.values()])
    return ecg, measured(leads["II"], np.diff(r_peaks) / record.fs)


def sharp_model(recipe):
    """A model of random weights whose probabilities go from 0 to 1, as after training."""
    script.load_tensorflow()[1].utils.set_random_seed(3)
    model = script.create_lightweight_lstm_model(
        5, recipe.sequence_length, models.MEAN, models.VARIANCE, recipe.feature_limit,
        recipe.lstm_memory, recipe.rate_curve)
    last = model.layers[-1]
    last.set_weights([40 * array for array in last.get_weights()])
    return model


@pytest.mark.parametrize(("n", "changes"), [
    (12, {}),
    (12, {"high_pass": 0.8, "scale_span": 2.5, "central_share": 0.9, "sequence_length": 400}),
    (12, {"high_pass": 0.0, "scale_span": 1.0, "central_share": 0.5}),
], ids=["default", "others", "thesis"])
def test_who_follows_the_words_alone_gets_the_models_probabilities(n, changes, demo_dir):
    recipe = models.recipe_of(**changes)
    contract = card.contract(models.card(**changes))
    theirs, ours = [], []
    for path in script.read_labels(LABELS)["waveform_path"].iloc[::597 // n][:n]:
        signal, fs, *_ = script.read_record(demo_dir / path)
        peaks = script.measure_rhythm(signal, fs).r_peaks
        assert len(peaks) > 2
        theirs.append(prepared(demo_dir / path, contract, peaks))
        ours.append(script.prepare_record(demo_dir / path, None, recipe)[:2])

    model = sharp_model(recipe)
    found, expected = (
        model.predict([np.asarray(array, np.float32) for array in zip(*inputs, strict=True)],
                      verbose=0) for inputs in (theirs, ours))
    assert len(found) == n
    assert np.median(expected.max(axis=1)) > 0.9    # else agreement would say little
    assert len(set(expected.argmax(axis=1))) > 1
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_who_follows_the_words_on_the_rate_step_gets_the_models_probabilities():
    step = rate_step.RateStep([1, 3, 4], [58.5, 101.0])
    words = card.contract(models.card() | {"rate_limits": step.limits})["Rate step"]
    low, width = numbers(words, "Bradycardia gets S / (1 + exp((r - #) / #))")
    high, other_width = numbers(words, "tachycardia gets S / (1 + exp((# - r) / #))")
    most, = numbers(words, "but for what is above #: it goes half and half to the other two")
    assert (low, high, other_width) == (58.5, 101, width)

    core = sharp_model(models.recipe_of())
    rng = np.random.default_rng(0)
    ecg = rng.normal(size=(60, 500, 12)).astype(np.float32)
    features = rng.uniform(40, 130, (60, 8)).astype(np.float32)
    features[::3, script.HEART_RATE] = np.nan
    expected = core.predict([ecg, features], verbose=0)
    for p, r in zip(expected, features[:, script.HEART_RATE], strict=True):
        s = p[1] + p[3] + p[4]
        slow, fast = s / (1 + np.exp((r - low) / width)), s / (1 + np.exp((high - r) / width))
        excess = np.maximum(p[[1, 3, 4]] - most, 0)
        own = p[[1, 3, 4]] - excess + [excess[[1, 2]].sum() / 2, excess[[0, 2]].sum() / 2,
                                       excess[[0, 1]].sum() / 2]
        p[[1, 3, 4]] = own if np.isnan(r) else [slow, s - slow - fast, fast]

    model = step.behind(script.load_tensorflow()[1], core, script.HEART_RATE)
    found = model.predict([ecg, features], verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found[:, [1, 3, 4]], axis=0).min() > 0.1
    assert "Rate step" not in card.contract(models.card())


def test_decision_thresholds_and_origin_are_stated_and_braces_in_a_class_are_text():
    threshold = {"probability": 0.123, "sensitivity": 0.91, "specificity": None}
    contract = card.contract(models.card() | {
        "classes": ["A", "{B}"], "temperature": [1.25, 1], "labels_origin": "two cardiologists",
        "metrics": {"thresholds": {"{B}": threshold, "A": None}}})
    outputs = " ".join(contract["Outputs"])
    assert "in this order: A, {B}." in outputs
    assert "whose probabilities are averaged: 2." in outputs
    assert "test patients: {B} from a probability of 0.123: sensitivity 0.910; too few" in outputs
    assert "Origin of the labels: two cardiologists." in contract["Labels"][0]
