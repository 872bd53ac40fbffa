"""tools/classify.py --windows: each 10 s of a longer record."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

import too_feature as script
from ecg import demo
from tests.support.ecgs import simulated
from tests.support.models import recipe_of, save
from tools import classify

RATES = 60, 75, 90, 110    # bpm, of 10 s each
REST = 4.2                 # s


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("lstm", tmp_path_factory.mktemp("model") / "m.keras")


def write(folder, signal, name="long"):
    digital = np.where(np.isnan(signal), demo.NO_SAMPLE, np.round(signal * 200)).astype(int)
    wfdb.wrsamp(name, 500, ["mV"] * 12, list(script.LEADS), d_signal=digital, fmt=["16"] * 12,
                adc_gain=[200.0] * 12, baseline=[0] * 12, write_dir=str(folder))
    return str(Path(folder) / name)


def parts():
    return [simulated(rate=rate, seed=i)[0] for i, rate in enumerate(RATES)]


@pytest.fixture
def record(tmp_path):
    """A record of four parts and a rest."""
    return write(tmp_path, np.concatenate([*parts(), parts()[0][:round(500 * REST)]]))


def run(capsys, model, *arguments):
    code = classify.main([*map(str, arguments), "--model", str(model)])
    return code, *capsys.readouterr()


def test_each_ten_seconds_get_what_they_get_as_a_record_alone(record, model, tmp_path, capsys):
    code, out, err = run(capsys, model, record, "--windows", "--csv")
    table = pd.read_csv(io.StringIO(out))
    assert code == 0
    assert table.columns[:4].tolist() == ["record", "start [s]", "predicted", "confidence"]
    assert table["start [s]"].tolist() == [0, 10, 20, 30]
    assert table["heart rate [bpm]"].tolist() == pytest.approx(RATES, abs=3)
    alone = classify.classify([write(tmp_path, part, f"p{i}") for i, part in enumerate(parts())],
                              model)
    own = [name for name in alone.columns if name not in ("record", "predicted", "left_out")]
    np.testing.assert_allclose(table[own], alone[own], atol=1e-6)
    assert table["predicted"].tolist() == alone["predicted"].tolist()
    assert err == (f"classify.py: not classified: {record} from 40 s on: too short: 4.2 s, not 9.5 "
                   "or more\n")


def test_without_a_rest_nothing_is_said_of_it(tmp_path, model, capsys):
    path = write(tmp_path, np.concatenate(parts()))
    assert run(capsys, model, path, "--windows", "--csv")[::2] == (0, "")


def test_the_table_has_a_column_of_starts_only_with_windows(record, model, capsys):
    lines = run(capsys, model, record, "--windows", "--wide")[1].splitlines()
    assert [line.split()[:2] for line in lines[3:7]] == [
        [record, str(start)] for start in (0, 10, 20, 30)]
    ends = {line.index(start) + len(start) for line, start in zip(
        lines[3:7], (" 0 ", " 10 ", " 20 ", " 30 "), strict=True)}
    assert len(ends) == 1
    for form in ([], ["--csv"], ["--json"]):
        assert "start" not in run(capsys, model, record, *form)[1]


def test_json_has_the_starts_of_what_was_classified_and_left_out(tmp_path, model, capsys):
    signal = np.concatenate(parts())
    signal[5000:10_000] = 0    # all electrodes off
    signal[10_000:15_000] *= 70    # a wrong gain
    code, out, err = run(capsys, model, write(tmp_path, signal), "--windows", "--json", "--explain")
    document = json.loads(out)
    assert code == 1
    assert [one["start"] for one in document["records"]] == [0, 30]
    assert [one["start"] for one in document["left_out"]] == [10, 20]
    assert "long from 10 s on: too little signal" in err
    assert "long from 20 s on: gain or unit?" in err


def test_of_a_damaged_record_nothing_is_tried_after_the_damage(
        record, model, capsys, monkeypatch):
    prepare = script.prepare_record

    def few(path, folder, recipe, start):
        assert start <= 40
        return prepare(path, folder, recipe, start)

    monkeypatch.setattr(script, "prepare_record", few)
    file = Path(record + ".hea")
    file.write_text(file.read_text().replace(" 500 22100", f" 500 {10**12 - 1}"))
    code, out, err = run(capsys, model, record, "--windows", "--csv")
    assert code == 1
    assert len(out.splitlines()) == 1 + 4
    assert err == f"classify.py: left out {record} from 40 s on: file is cut short: long.dat\n"


def test_a_short_record_is_left_out_and_several_records_go_one_by_one(tmp_path, model, capsys):
    write(tmp_path, np.concatenate(parts()[:2]), "a")
    write(tmp_path, parts()[2], "b")
    write(tmp_path, parts()[3][:3000], "c")
    code, out, err = run(capsys, model, tmp_path, "--windows", "--csv")
    table = pd.read_csv(io.StringIO(out))
    assert code == 1
    assert list(zip(table["record"].str[-1], table["start [s]"], strict=True)) == [
        ("a", 0), ("a", 10), ("b", 0)]
    assert err.endswith("c from 0 s on: too short: 6 s, not 9.5 or more\n")


def test_few_windows_are_in_memory_at_once(record, model, monkeypatch):
    monkeypatch.setattr(classify, "CHUNK", 3)
    sizes = []
    predict = classify.predict

    def listening(model, signals, features):
        sizes.append(len(signals))
        return predict(model, signals, features)

    monkeypatch.setattr(classify, "predict", listening)
    table = classify.classify(record, model, windows=True)
    assert sizes == [3, 1]
    assert table["start [s]"].tolist() == [0, 10, 20, 30]


def test_the_page_of_each_window_shows_that_window(record, model, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("ecg.output.ecg_page.draw_ecg", lambda signal, *more: drawn.append(
        (signal, more[3])))
    monkeypatch.setattr("ecg.output.style.save", lambda page, file, *more, **options: drawn.append(
        Path(file).name) or [file])
    classify.main([record, "--windows", "--plot", str(tmp_path), "--model", str(model)])
    assert drawn[1::2] == ["long_0s", "long_10s", "long_20s", "long_30s"]
    for start, (signal, title) in zip((0, 10, 20, 30), drawn[::2], strict=True):
        np.testing.assert_array_equal(signal, script.read_record(record, start=start)[0])
        assert title.endswith(f"record long from {start} s on")


def test_a_record_is_prepared_from_its_start_in_the_way_of_the_model(record):
    recipe = recipe_of("large")
    ecg, features, _ = script.prepare_record(record, None, recipe, 20)
    assert ecg.shape == (500, 12)
    assert features[script.HEART_RATE] == pytest.approx(RATES[2], abs=3)
