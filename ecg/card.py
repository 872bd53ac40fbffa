"""What a model takes and gives, in words and numbers: enough to use it without this project.

One text from a model's card. Its .json, the metadata of an ONNX file, MODEL_CARD.md and the page of
a run all show it.
"""

from typing import Any

from ecg import origin, r_peaks

# What the script prepares a record by and no recipe changes; a test compares them with the script's
SECONDS = 10            # of a record
SHORTEST = 9.5          # s
MOST_MILLIVOLTS = 1000  # beyond it, a sample counts as missing
LEAST_RANGE = 0.02      # mV; a lead that moves less carries no signal
MOST_MISSING = 0.2      # share of a lead
FEWEST_LEADS = 6        # with a signal

# Lead and formula of each of the first eight features
FORMULAS = {
    "mean": ("lead II", "mean of x"),
    "standard deviation": ("lead II", "sqrt(mean((x - mean)^2))"),
    "skewness": ("lead II", "mean(z^3) with z = (x - mean) / standard deviation"),
    "kurtosis": ("lead II", "mean(z^4) - 3, with the same z"),
    "heart rate": ("", "60 / mean(RR); at least one RR interval"),
    "SDNN": ("", "1000 * s with s = sqrt(sum((RR - mean(RR))^2) / (n - 1)); at least two"),
    "RMSSD": ("", "1000 * sqrt(mean(d^2)) with d the difference of two RR intervals that meet "
                  "in an R peak; at least one"),
    "CV_RR": ("", "s / mean(RR), with the same s"),
}


def feature_title(name: str, unit: str = "") -> str:
    """Return a feature's name with lead and unit: "mean, lead II [mV]"."""
    lead = FORMULAS.get(name, ("", ""))[0]
    title = f"{name}, {lead}" if lead else name
    return f"{title} [{unit}]" if unit else title


def contract(card: dict[str, Any]) -> dict[str, list[str]]:
    """Return what a model takes and gives, section by section, each a list of sentences.

    Parameters
    ----------
    card : the model's card; `temperature`, `metrics` and origins may be missing

    Returns
    -------
    dict
        "Inputs", "Preparation" (steps in order), "Features", "R peaks", "Outputs" and "Labels".
    """
    return {
        "Inputs": _inputs(card),
        "Preparation": _preparation(card["recipe"]),
        "Features": _features(card),
        "R peaks": _r_peaks(),
        "Outputs": _outputs(card),
        "Labels": _labels(card),
    }


def in_markdown(contract: dict[str, list[str]]) -> str:
    """Return a contract in Markdown: a heading and a numbered list for each section."""
    parts = []
    for heading, sentences in contract.items():
        lines = [f"{number}. {words}" for number, words in enumerate(sentences, start=1)]
        parts.append("\n".join([f"### {heading}", "", *lines]))
    return "\n\n".join(parts)


def _inputs(card):
    """Return names, order, shapes and units of the inputs."""
    points = card["recipe"]["sequence_length"]
    leads = ", ".join(card["leads"])
    width = len(card["features"])
    return [
        f'"ecg": float32, shape (n, {points}, 12), first: ten seconds of n records, '
        f"{points / SECONDS:g} points a second, prepared as below; no unit.",
        f"The 12 leads, in this order: {leads}.",
        f'"features": float32, shape (n, {width}), second: raw, in the units below. '
        "The model scales them itself.",
        "NaN is a feature that could not be measured. The model takes it for the mean of "
        "training" + _rate_unknown(card["recipe"]),
    ]


def _rate_unknown(recipe):
    """Return how a model of this recipe takes a heart rate that is NaN, as the end of a sentence.

    The large model's network knows its mean, and its regression the middle of its hinges.
    """
    if recipe["model"] == "large" or recipe["rate_curve"]:
        return ", and a heart rate that is NaN for 80 bpm where it is compared with 60 and 100."
    return "."


def _preparation(recipe):
    """Return the steps from a record to the input "ecg", in order."""
    points = recipe["sequence_length"]
    share = recipe["central_share"]
    low = 0.5 - share / 2
    return [
        f"Read: the first {SECONDS} s of the record ({SHORTEST:g} s at least), N samples at its "
        "own rate, each lead in mV by the header's gain, baseline and unit. Nothing is filtered.",
        f"Fill gaps: a sample that is missing or beyond {MOST_MILLIVOLTS:g} mV lies on the "
        "straight line between its neighbours in time; at an end it equals the nearest.",
        f"Silence leads: one that moves by less than {LEAST_RANGE:g} mV, or of which more than "
        f"{MOST_MISSING:.0%} was missing, becomes 0; {FEWEST_LEADS} at least carry a signal.",

        "Centre: subtract each lead's mean.",
        *_transform(recipe["high_pass"], points),
        f"Scale: of the {points} points of a lead take the quantiles {low:g}, 0.5 and "
        f"{1 - low:g} (interpolated linearly). Subtract the middle one, and divide by the distance "
        f"of the outer two over {recipe['scale_span']:g}. If that distance is less than 0.001 of "
        "the lead's range, divide by its standard deviation instead. A lead that was 0 stays 0.",
        "Clip to -3 and 3.",
    ]


def _transform(high_pass, points):
    """Return the steps that filter and resample."""
    response = "nothing is filtered (f is not needed)."
    if high_pass:
        response = (
            f"multiply X[k] by f^4 / (f^4 + {high_pass:g}^4), a second-order Butterworth high-pass "
            f"of {high_pass:g} Hz run forwards and backwards.")
    return [
        "High-pass: X[k] = 2 * sum over n of x[n] cos(pi k (2n + 1) / (2N)) is the type-II cosine "
        f"transform; X[k] has the frequency f = k / {2 * SECONDS} Hz; {response}",
        f"Resample to {points} points: point j is at p = j N / {points} samples from the first. "
        "It is (X[0] + 2 * sum over k of X[k] cos(pi k (2p + 1) / (2N))) / (2N), with k from 1 to "
        f"below {points} and below N.",
    ]


def _features(card):
    """Return name, unit, lead and formula of each feature, in order."""
    sentences = []
    for name, unit, _ in card["features"]:
        _, formula = FORMULAS.get(name, ("", ""))
        title = feature_title(name, unit)
        sentences.append(f"{title}: {formula}." if formula else f"{title}.")
    n_more = len(card["features"]) - len(FORMULAS)
    if n_more > 0:
        sentences.append(
            f"The last {n_more} are defined in ecg/large_features.py of version "
            f"{card.get('version', 'unknown')}, function extra_features, with sources.")

    return [
        *sentences,
        "x is a lead in mV after step 3, at the record's own rate. RR are the intervals between "
        "R peaks in s, n of them.",
        f"An interval that comes within {r_peaks.GAP_EDGE_S:g} s of a gap of "
        f"{r_peaks.MIN_GAP_S:g} s or more is left out, and no difference is taken across it. Less "
        "than a formula needs: NaN. So are skewness and kurtosis where the standard deviation is "
        "below 0.000001 mV.",
    ]


def _r_peaks():
    """Return the rule that finds R peaks."""
    low, high = r_peaks.REPEAT_DELAY_S
    return [
        "Lead: II where it is at least 0.4 times as steep as the median lead, else the steepest; "
        "where that has no two beats, the next. Steepness: the root of the summed squares of "
        "differences over 0.02 s.",
        "Energy: band-pass from 5 to 20 Hz (second-order Butterworth, forwards and backwards), "
        "derivative in mV/s, square, and twice a moving average over 0.08 s.",
        f"Envelope: subtract {r_peaks.MIN_QRS_ENERGY:g} (mV/s)^2 or, if it is more, "
        f"1/{1 / r_peaks.MIN_QRS_SIZE**2:g} of the largest energy that is 0.5 s or more from the "
        "largest of all; what is negative becomes 0; cut off at twice the median of the largest "
        "values in windows of 2 s.",

        "Candidates: summits as high as half the envelope's standard deviation, 0.25 s apart.",
        f"T waves are left out: a summit up to {r_peaks.T_WAVE_DELAY_S:g} s after another and less "
        f"than 1/4 as high; where beats are {r_peaks.SLOW_RR_S:g} s or more apart, up to "
        f"{r_peaks.LATE_T_WAVE_DELAY_S:g} s after it and less than 1/16.",
        f"Fast rates: summits from {r_peaks.REFRACTORY_S:g} s apart count too if a quarter of the "
        f"intervals are then below {r_peaks.SHORT_RR_S:g} s.",
        f"Refine: in the lead from 1 to 40 Hz, move each by up to {r_peaks.MAX_SHIFT_S:g} s to "
        f"where the window of {r_peaks.HALF_QRS_S:g} s on either side correlates best with the "
        "median window, then by a parabola to a fraction of a sample. The R peak is the median "
        f"window's top, or its nadir where that is {r_peaks.NADIR_RATIO:g} times as large; of a "
        f"beat that correlates by less than {r_peaks.MIN_CORRELATION:g}, its own.",
        f"No beats: where the windows are unlike (concordance {r_peaks.MIN_LIKENESS:g} or less) or "
        f"a third of them come again within {low:g} to {high:g} s, it is noise. To the letter: "
        "ecg/r_peaks.py.",
    ]


def _outputs(card):
    """Return what the output means, and from which probability a class is told."""
    classes = card["classes"]
    sentences = [
        f"float32, shape (n, {len(classes)}): a probability for each class, in this order: "
        f"{', '.join(classes)}. They add up to 1. The class is the one with the largest.",
    ]
    temperatures = card.get("temperature")
    if temperatures:
        values = ", ".join(f"{value:.4g}" for value in temperatures)
        is_of_start = card["recipe"].get("epochs") == 0    # of which only the start's card tells
        which = "start's temperature" if is_of_start else f"temperature ({values})"
        sentences.append(f"The {which} is inside the model already: do not divide again.")
    if temperatures and len(temperatures) > 1:
        sentences.append(
            f"They are the mean of the probabilities of {len(temperatures)} models in the file.")

    thresholds = card.get("metrics", {}).get("thresholds", {})
    return sentences + [
        _threshold(name, found) for name, found in thresholds.items() if found]


def _threshold(name, found):
    """Return from which probability a class is told, and how well that did on test patients."""
    on_test = [f"{kind} {found[kind]:.3f}" for kind in ("sensitivity", "specificity")
               if found.get(kind) is not None]
    words = f", on test patients {' and '.join(on_test)}" if on_test else ""
    return (f"To find 95 % of {name}, call it from a probability of {found['probability']:.4g} on: "
            f"chosen on validation patients{words}.")


def _labels(card):
    """Return where the labels come from."""
    of_test = str(card.get("test_labels_origin", ""))
    words = origin.about_results(origin.of_card(card), of_test)
    if card.get("synthetic"):
        words = f"{origin.TRAINED_ON_SYNTHETIC} {words}"
    return [words, *filter(None, [origin.caution(card)])]
