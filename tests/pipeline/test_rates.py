"""No silent wrong number: rates of 8 to 300 bpm, pauses, single beats, noise, mains, gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg.demo import CLASSES
from ecg.r_peaks import GRID, Aligned, _add_close_beats, _share_repeated
from tests.support.ecgs import beats, drawn, r_peaks_of, write_record
from too_feature import (
    RECIPES,
    Rhythm,
    extract_core_medical_features,
    feature_names,
    measure_rhythm,
    prepare_record,
)

FS, SECONDS = 500, 10
TIME = np.arange(FS * SECONDS) / FS
GAINS = np.array([0.6, 1, 0.5, -0.8, 0.3, 0.8, -0.5, 0.7, 0.9, 1.2, 1, 0.8])
FEW = settings(max_examples=30, derandomize=True, deadline=None)
NOISE = st.sampled_from([0, 0.005, 0.03])    # mV
SEED = st.integers(0, 10**6)


def ecg(times, noise=0.0, seed=0, t_wave=0.25):
    """Return ten seconds of 12 leads (mV) with P, QRS and T around each R peak of `times` (s)."""
    rr = np.median(np.diff(times)) if len(times) > 1 else 1.0
    late = np.clip(np.sqrt(rr), 0.45, 1.3)    # Bazett
    waves = [(0, 0.011, 1), (-0.022, 0.008, -0.12), (0.023, 0.010, -0.15),
             (-0.15 * min(late, 1), 0.018, 0.1), (0.27 * late, 0.045 * late, t_wave)]
    lead = sum(size * np.exp(-0.5 * ((TIME - time - offset) / width) ** 2)
               for time in times for offset, width, size in waves)
    return lead[:, None] * GAINS + noise * np.random.default_rng(seed).normal(size=(5000, 12))


def regular(rate, start=0.3):
    """Return R-peak times (s) of a regular rhythm, from `start` of an interval."""
    return np.arange(start * min(60 / rate, 5), SECONDS + 0.5, 60 / rate)


def heart_rate(signal):
    return extract_core_medical_features(signal, FS)[4]


def is_right_or_nan(measured, rate):
    return np.isnan(measured) or abs(measured - rate) < 1


@given(st.floats(200, 240), st.floats(0.1, 0.9), NOISE, SEED)
@FEW
def test_rates_up_to_240_read_back_within_1_bpm(rate, start, noise, seed):
    assert abs(heart_rate(ecg(regular(rate, start), noise, seed)) - rate) < 1


@given(st.floats(205, 235), SEED)
@FEW
def test_a_fast_rate_that_varies_a_little_reads_back_within_1_bpm(rate, seed):
    rr = 60 / rate * (1 + 0.02 * np.random.default_rng(seed).normal(size=60))
    times = np.cumsum(rr) - 0.1
    inside = times[(times > 0.05) & (times < SECONDS - 0.05)]
    measured = heart_rate(ecg(times[times < SECONDS + 0.5], 0.01, seed))
    assert abs(measured - 60 / np.diff(inside).mean()) < 1


@given(st.floats(241, 300) | st.floats(300, 400), st.floats(0.1, 0.9), NOISE, SEED)
@FEW
def test_a_rate_above_240_is_right_or_not_measurable(rate, start, noise, seed):
    assert is_right_or_nan(heart_rate(ecg(regular(rate, start), noise, seed)), rate)


@given(st.floats(8, 20), st.floats(0.1, 0.9), st.floats(0.1, 1.2), NOISE, SEED)
@FEW
def test_a_rate_below_20_is_right_or_not_measurable(rate, start, t_wave, noise, seed):
    assert is_right_or_nan(heart_rate(ecg(regular(rate, start), noise, seed, t_wave)), rate)


@given(st.lists(st.floats(0.2, 9.7), min_size=2, max_size=5), st.floats(0.1, 0.6), NOISE, SEED)
@FEW
def test_pauses_are_long_intervals_and_not_filled_with_t_waves(times, t_wave, noise, seed):
    times = np.sort(times)
    times = times[np.diff(times, prepend=-1) > 0.6]
    rate = 60 / np.diff(times).mean() if len(times) > 1 else np.nan
    assert is_right_or_nan(heart_rate(ecg(times, noise, seed, t_wave)), rate)


@pytest.mark.parametrize("noise", [0, 0.005, 0.03, 0.1])
def test_four_beats_around_a_long_pause_read_20_bpm(noise):
    assert abs(heart_rate(ecg([0.5, 1.3, 8.5, 9.3], noise)) - 20.45) < 1


@given(st.floats(-2, 1), st.sampled_from(["white", "red"]), SEED)
@FEW
def test_noise_alone_has_no_r_peaks_at_any_size(exponent, colour, seed):
    noise = 10**exponent * np.random.default_rng(seed).normal(size=(5000, 12))
    noise = np.cumsum(noise, axis=0) / 10 if colour == "red" else noise
    assert np.isnan(heart_rate(noise))
    assert len(measure_rhythm(noise, FS).r_peaks) == 0


@given(st.floats(0.05, 5), SEED)
@FEW
def test_a_lead_ii_of_noise_gives_way_to_another_lead(size, seed):
    signal = ecg(regular(75))
    signal[:, 1] = size * np.random.default_rng(seed).normal(size=5000)
    assert abs(heart_rate(signal) - 75) < 1


@given(st.floats(0.19, 0.6), SEED)
@FEW
def test_peaks_of_noise_that_could_be_beats_make_a_lead_unmeasurable(size, seed):
    assert is_right_or_nan(heart_rate(ecg(regular(75), size, seed)), 75)


@given(st.floats(0.6, 3), SEED)
@FEW
def test_beats_that_noise_hides_in_all_leads_are_not_measurable(size, seed):
    assert np.isnan(heart_rate(ecg(regular(75), size, seed)))


@given(st.sampled_from([16.7, 50, 60, 8]), st.floats(0.2, 3), st.floats(0, 8), SEED)
@FEW
def test_mains_alone_has_no_r_peaks_even_if_it_comes_late(frequency, size, start, seed):
    mains = size * np.sin(2 * np.pi * frequency * TIME) * (start <= TIME)
    noise = 0.01 * np.random.default_rng(seed).normal(size=(5000, 12))
    assert np.isnan(heart_rate(mains[:, None] + noise))


@pytest.mark.parametrize("filled", [False, True])
@given(st.floats(50, 120), st.floats(1, 6), st.floats(0.7, 2), SEED)
@FEW
def test_an_interpolated_gap_is_no_rr_interval(filled, rate, start, length, seed):
    rr = 60 / rate * (1 + 0.01 * np.random.default_rng(seed).normal(size=30))
    signal = ecg(np.cumsum(rr) - 0.3, 0.01, seed)
    gap = slice(int(start * FS), int((start + length) * FS))
    line = np.linspace(signal[gap.start - 1], signal[gap.stop], gap.stop - gap.start + 2)[1:-1]
    signal[gap] = line if filled else np.nan
    features = extract_core_medical_features(signal, FS)
    assert abs(features[4] - rate) < 0.03 * rate
    assert np.isnan(features[6]) or features[6] < 0.1 * 60_000 / rate    # RMSSD, ms


@pytest.mark.parametrize("ends", [None, 0.05])
def test_a_gap_in_a_record_on_disk_is_no_rr_interval(ends, tmp_path):
    """Between equal samples it is read as a level line, which an electrode gives too."""
    signal = ecg(regular(75), 0.01)
    signal[1500:2400] = np.nan
    if ends:
        signal[[1499, 2400]] = ends
    _, features, _ = prepare_record(write_record(tmp_path / "gap", signal), recipe=RECIPES["large"])
    names = [name for name, *_ in feature_names(RECIPES["large"])]
    measured = dict(zip(names, features, strict=True))
    assert abs(measured["heart rate"] - 75) < 1
    assert measured["SDNN"] < 5
    assert 0.95 < measured["longest RR"] < 1.05


def test_a_lead_ii_with_more_than_a_fifth_of_gaps_has_no_amplitude_but_a_rate(tmp_path):
    signal = ecg(regular(75), 0.01)
    for share, is_measured in (0.19, True), (0.21, False):
        signal[:int(share * 5000), 1] = np.nan
        features = prepare_record(write_record(tmp_path / "gaps", signal))[1]
        assert np.isfinite(features[:4]).all() == is_measured
        assert abs(features[4] - 75) < 1


def test_a_gap_of_most_leads_is_no_rr_interval_although_lead_ii_is_whole():
    is_missing = np.zeros((5000, 12), bool)
    is_missing[1500:2400, 2:] = True
    assert np.isnan(measure_rhythm(ecg(regular(75), 0.01), FS, is_missing).rr).any()


def test_a_gap_that_hides_no_complex_costs_no_interval():
    signal = ecg(regular(75), 0.01)
    whole = extract_core_medical_features(signal, FS)
    signal[2280:2310] = np.nan    # 60 ms of the pause between two beats
    np.testing.assert_allclose(extract_core_medical_features(signal, FS)[4:], whole[4:], atol=1)


@pytest.mark.parametrize("seed", range(3))
def test_one_artefact_of_twenty_times_the_size_hides_no_beat(seed):
    times = regular(70, 0.2 + 0.1 * seed)
    lead = ecg(times, 0.01, seed)[:, 1]
    lead += 20 * np.exp(-0.5 * ((TIME - (times[4] + times[5]) / 2) / 0.02) ** 2)
    inside = times[(times > 0.05) & (times < SECONDS - 0.05)]
    peaks = r_peaks_of(lead)
    assert np.abs(peaks[:, None] - inside * FS).min(axis=0).max() < 10


def test_rmssd_is_over_intervals_that_meet():
    rr = np.array([0.8, 0.81, np.nan, 1.2, 1.21])    # s
    rhythm = Rhythm(1, np.zeros(6), rr)
    features = extract_core_medical_features(ecg(regular(60)), FS, rhythm)
    known = rr[[0, 1, 3, 4]]
    expected = [60 / known.mean(), 1000 * known.std(ddof=1), 10, known.std(ddof=1) / known.mean()]
    np.testing.assert_allclose(features[4:], expected)


@pytest.mark.parametrize("end", [1.42, 1.6])
def test_no_interval_begins_or_ends_at_the_edge_of_a_gap(end):
    """The step there looks like a beat, and is none."""
    signal = beats(0.5, 1.5, 2.5, 3.5, 4.5, noise=0.005)
    is_missing = np.zeros(signal.shape, bool)
    is_missing[int(500 * (end - 0.1)):int(500 * end)] = True
    rr = measure_rhythm(signal, FS, is_missing).rr
    np.testing.assert_allclose(rr, [np.nan, np.nan, 1, 1], atol=0.01)


# ----------------------------------------------------------------- what one lead alone has or lacks
SPIKED = st.sampled_from([[0, 1], [1], [6]])    # I and II, II, V1
SIMULATED = st.tuples(st.sampled_from(CLASSES), st.sampled_from(["clean", "low", "medium"]),
                      st.integers(0, 50))


def assert_same_beats(changed, whole):
    """The same number of beats, at the same intervals: of a notched QRS any top may be the peak."""
    peaks = [measure_rhythm(signal, FS).r_peaks for signal in (whole, changed)]
    before, after = (each[(each > 100) & (each < 4900)] for each in peaks)    # none that is cut
    assert len(before) == len(after)
    np.testing.assert_allclose(np.diff(after), np.diff(before), atol=25)


@given(SIMULATED, SPIKED, st.floats(0.3, 1), st.floats(0.3, 0.7), st.integers(0, 4))
@FEW
def test_a_spike_of_two_samples_between_two_beats_is_no_beat(record, leads, factor, place, beat):
    whole, true = drawn(*record)
    changed = whole.copy()
    start = int(true[beat] + place * (true[beat + 1] - true[beat]))
    changed[start:start + 2, leads] -= 1.9 * factor
    assert_same_beats(changed, whole)


@given(SIMULATED, st.integers(1, 4), st.floats(0, 0.25))
@FEW
def test_a_beat_that_is_low_or_flat_in_lead_ii_alone_is_a_beat(record, beat, size):
    whole, true = drawn(*record)
    changed = whole.copy()
    around = slice(int(true[beat]) - 50, int(true[beat]) + 51)
    changed[around, 1] *= size
    assert_same_beats(changed, whole)


@given(SIMULATED, st.sampled_from([0, 1, 6]), st.floats(-3, 3), st.integers(1000, 4000))
@FEW
def test_a_step_of_the_baseline_in_one_lead_is_no_beat(record, lead, size, start):
    whole, _ = drawn(*record)
    changed = whole.copy()
    changed[start:, lead] += size
    assert_same_beats(changed, whole)


@given(st.floats(40, 110), st.floats(0.1, 0.9), st.floats(0.8, 1), st.booleans(), NOISE, SEED)
@FEW
def test_p_and_t_waves_as_tall_as_qrs_are_no_beats(rate, start, size, has_tall_p, noise, seed):
    times = regular(rate, start)
    times = times[(times > 0.2) & (times < SECONDS - 0.1)]    # no P wave without its QRS complex
    signal = ecg(times, noise, seed, t_wave=size)
    if has_tall_p:
        p_waves = sum(np.exp(-0.5 * ((TIME - time + 0.15) / 0.018) ** 2) for time in times)
        signal += size * p_waves[:, None] * GAINS
    assert abs(heart_rate(signal) - rate) < 1


@given(st.floats(50, 110), st.floats(0.1, 0.25), st.floats(0.01, 0.06), SEED)
@FEW
def test_p_waves_of_a_low_noisy_lead_ii_are_no_beats(rate, size, noise, seed):
    times = regular(rate)
    signal = ecg(times, 0.005, seed)
    p_waves = sum(np.exp(-0.5 * ((TIME - time + 0.15) / 0.018) ** 2) for time in times)
    signal[:, 1] = 0.2 * signal[:, 1] + size * p_waves
    signal[:, 1] += noise * np.random.default_rng(seed).normal(size=5000)
    assert abs(heart_rate(signal) - rate) < 1


# ------------------------------------------------------------------------------- one rule by itself
def summits(places, heights):
    """Return an envelope of ten seconds with narrow summits at `places` (s)."""
    time = np.arange(GRID * SECONDS) / GRID
    return sum(height * np.exp(-0.5 * ((time - place) / 0.02) ** 2)
               for place, height in zip(places, heights, strict=True))


@pytest.mark.parametrize(("size", "rate"), [(0.38, 66.7), (0.43, 135.7)])
def test_a_wave_soon_after_each_beat_with_a_sixth_of_its_energy_is_a_t_wave(size, rate):
    places = np.arange(0.6, 9.6, 0.9)
    signal = beats(*places) + size * beats(*(places + 0.3))
    assert heart_rate(signal) == pytest.approx(rate, abs=0.1)


@pytest.mark.parametrize(("places", "taken", "expected"), [
    (np.arange(1, 9, 0.224), slice(None, None, 2), "all"),    # of 268 bpm, half was detected
    (np.delete(np.arange(1, 9, 0.224), [20]), slice(None, None, 2), "none"),    # a beat is missing
    (np.sort([*np.arange(1, 9), 3.22]), [0, 1, 2, 4, 5, 6, 7, 8], "taken")])    # at 60 bpm
def test_close_beats_are_added_at_fast_rates_and_only_if_none_is_missing(places, taken, expected):
    every = np.rint(places * GRID).astype(int)
    added = _add_close_beats(every[taken], summits(places, np.ones(len(places))))
    np.testing.assert_array_equal(
        added, {"all": every, "none": every[:0], "taken": every[taken]}[expected])


@pytest.mark.parametrize(("sides", "share"), [([-1], 0), ([1], 0), ([-1, 1], 1)])
def test_a_wave_on_one_side_of_a_beat_may_be_a_t_wave(sides, share):
    centres = GRID * np.arange(1, 9)
    correlation = np.zeros(GRID * SECONDS)
    correlation[centres] = 1
    for side in sides:
        correlation[centres + side * round(0.15 * GRID)] = 0.95
    aligned = Aligned(centres, np.zeros(25), correlation, np.ones(len(correlation)))
    assert _share_repeated(aligned) == share
