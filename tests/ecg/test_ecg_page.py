"""ECG pages: their scale in millimetres, each lead in its place, nothing over anything else."""

import itertools
import re

import numpy as np
import pytest

import too_feature as script
from ecg import explain, origin
from ecg.output import ecg_page, style
from tests.support.results import CLASSES, draw, texts, words, write_results
from tools import make_labels


def lines_of(figure):
    """Return the points of all lines by what they show."""
    lines = {}
    for line in figure.axes[0].lines:
        lines.setdefault(line.get_label(), []).append(line.get_xydata())
    return lines


def test_an_ecg_has_the_physical_scale_on_paper(tmp_path):
    fs, seconds = 500, np.arange(5000) / 500
    signal = np.outer(seconds, np.arange(1, 13) / 100)    # mV, ramps
    leads = list(script.LEADS)[::-1]
    peaks = np.array([100, 2500.5, 4900])
    figure = ecg_page.draw_ecg(signal, fs, leads, peaks, "Title", "Text", "Note")
    axes, = figure.axes
    box = axes.get_window_extent()
    millimetres = np.array([box.width, box.height]) / figure.dpi * 25.4
    assert millimetres == pytest.approx(np.ravel(np.diff([axes.get_xlim(), axes.get_ylim()])))

    lines = lines_of(figure)
    for row, names in enumerate(ecg_page.LAYOUT[:3]):
        for place, name in enumerate(names):
            line, slope = lines[name][0], (leads.index(name) + 1) / 100    # mV/s
            assert line[0, 0] == pytest.approx(15 + 62.5 * place)        # 2.5 s are 62.5 mm
            assert np.ptp(line[:, 0]) == pytest.approx(62.5, abs=26 / fs)
            height = 140 - 40 * row + 10 * slope * (2.5 * place - 5)
            assert line[0, 1] == pytest.approx(height, abs=0.01)

    assert len(lines["II"][1]) == 5000    # the rhythm strip
    assert np.allclose(lines["R peaks"][0][:, 0], 15 + 25 * peaks / fs)
    for pulse in lines["pulse"]:    # 1 mV for 0.2 s
        assert np.ptp(pulse[:, 1]) == 10
        assert np.ptp(pulse[pulse[:, 1] == pulse[:, 1].max(), 0]) == 5
    pdf = style.save(figure, tmp_path / "ecg")[0].read_bytes()
    box = [float(x) for x in re.search(rb"/MediaBox \[ *([\d. ]+)\]", pdf)[1].split()]
    assert box == pytest.approx([0, 0, 297 / 25.4 * 72, 210 / 25.4 * 72], abs=0.01)


@pytest.mark.parametrize(("peak", "gain"), [(1.9, 10), (-2.1, 5)])
def test_a_trace_that_leaves_its_row_halves_the_gain_and_the_page_says_so(peak, gain):
    signal = np.zeros((5000, 12))
    signal[4000:4005, 11] = peak    # V6, where it is drawn
    signal[0, 11] = 9               # where it is not
    figure = ecg_page.draw_ecg(signal, 500, script.LEADS)
    lines = lines_of(figure)
    assert {np.ptp(pulse[:, 1]) for pulse in lines["pulse"]} == {gain}
    assert np.ptp(lines["V6"][0][:, 1]) == pytest.approx(gain * abs(peak))
    shown = words(figure)
    assert f"25 mm/s, {gain} mm/mV" in shown
    assert ("HALF THE GAIN" in shown) == (gain == 5)


def test_an_ecg_is_coloured_where_a_lead_is_important():
    importance = np.random.default_rng(0).uniform(-1, 1, (5000, 12))
    reasons = ecg_page.Reasons(importance, 0.0123, "leads 4 %, features 96 %")
    figure = ecg_page.draw_ecg(np.zeros((5000, 12)), 500, script.LEADS, reasons=reasons)
    images = {image.get_label(): image for image in figure.axes[0].images}
    for name, place in (("I", 0), ("V6", 3)):
        part = importance[place * 1250:(place + 1) * 1250 + 1, script.LEADS.index(name)]
        assert np.array_equal(images[name].get_array()[0], part)
        assert images[name].get_extent()[0] == pytest.approx(15 + 62.5 * place)
    assert "−0.012 to +0.012: change of the class's probability by 0.1 s" in words(figure)


@pytest.mark.parametrize("of_labels", [make_labels.ORIGIN_OF_LABELS, "o" * 100, "心" * 100])
def test_texts_do_not_cover_each_other_or_the_colour_bar(of_labels):
    note = origin.note({"labels_origin": of_labels, "synthetic": True})
    spikes = 3.0 * (np.arange(5000) % 500 < 20)[:, None] * np.ones(12)    # mV: half the gain
    names = [name for name, _, _ in script.feature_names(script.RECIPES["large"])]
    importance = explain.Importance(np.zeros((500, 12)), np.linspace(1, 0, 48), 0, 1, 0)
    brief = explain.in_brief(importance, sorted(names, key=len, reverse=True))
    figure = ecg_page.draw_ecg(
        spikes, 500, script.LEADS, [900, 1800], "title", "text\ntext\ntext", note,
        ecg_page.Reasons(spikes, 0.0123, brief), "Heart rate 60 bpm, PR 140 ms, QT 400 ms")
    draw(figure)
    boxes = [text.get_window_extent() for text in texts(figure)]
    assert min(min(box.x0, box.y0) for box in boxes) >= 0
    assert "".join(note.split()) in "".join(words(figure).split())
    boxes.append(figure.axes[0].child_axes[0].get_window_extent())
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize(("samples", "fs"), [(950, 100), (30_000, 1000)])
def test_an_ecg_of_any_length_with_gaps_stays_on_the_paper(samples, fs):
    signal = np.random.default_rng(0).normal(size=(samples, 12))
    signal[:, 3] = signal[0] = np.nan
    axes, = ecg_page.draw_ecg(signal, fs, script.LEADS, [-5, 0, samples - 1, 1e9]).axes
    assert all(line.get_clip_on() for line in axes.lines)
    assert axes.get_xlim() == (0, 265) and axes.get_ylim() == (0, 160)    # the paper


def test_the_page_of_a_test_record_says_and_draws_what_is_known_of_it(tmp_path):
    results = write_results(tmp_path / "run", unknown=0)
    assert results.true[results.examples].tolist() == [0, 1, 3, 4]
    row = results.examples[0]
    figure = ecg_page.draw_tested(results, row)
    shown = words(figure)
    tested = results.table.iloc[row]
    assert f"Label {tested['true']}, predicted {tested['predicted']}" in shown
    assert f"Heart rate {tested['heart rate [bpm]']:.0f} bpm, QRS 99 ms, record " in shown
    assert tested["record"] in shown and "500 Hz, unfiltered" in shown
    assert all(f"{name} {tested[f'p {name}']:.2f}" in shown for name in CLASSES)
    signal, _, r_peaks = results.ecgs[row]
    assert np.allclose(lines_of(figure)["V5"][0][:, 1], 100 + 10 * (
        signal[3750:, 10] - np.median(signal[:, 10])))
    assert len(lines_of(figure)["R peaks"][0]) == len(r_peaks)
