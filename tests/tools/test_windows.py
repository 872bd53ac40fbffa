"""tools/classify.py --windows: each 10 s of a longer record."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

import too_feature as script
from tests.support.ecgs import simulated
from tools import classify

RATES = 60, 75, 90, 110    # bpm, of 10 s each
PARTS = [simulated(rate=rate, seed=i)[0] for i, rate in enumerate(RATES)]


def write(folder, parts, name="long"):
    wfdb.wrsamp(name, 500, ["mV"] * 12, list(script.LEADS),
                d_signal=np.round(np.concatenate(parts) * 200).astype(int), fmt=["16"] * 12,
                adc_gain=[200.0] * 12, baseline=[0] * 12, write_dir=str(folder))
    return str(Path(folder) / name)


@pytest.fixture
def record(tmp_path):
    """A record of four parts and a rest of 4.2 s."""
    return write(tmp_path, [*PARTS, PARTS[0][:2100]])


def run(capsys, model, *arguments):
    code = classify.main([*map(str, arguments), "--model", str(model), "--windows"])
    return code, *capsys.readouterr()


def test_each_ten_seconds_get_what_they_get_as_a_record_alone(record, model, tmp_path, capsys):
    code, out, err = run(capsys, model, record, "--csv")
    table = pd.read_csv(io.StringIO(out))
    assert code == 0
    assert table.columns[:4].tolist() == ["record", "start [s]", "predicted", "confidence"]
    assert table["start [s]"].tolist() == [0, 10, 20, 30]
    assert table["heart rate [bpm]"].tolist() == pytest.approx(RATES, abs=3)
    alone = classify.classify([write(tmp_path, [part], f"p{i}") for i, part in enumerate(PARTS)],
                              model)
    numbers = [name for name in alone if name not in ("record", "predicted", "left_out")]
    np.testing.assert_allclose(table[numbers], alone[numbers], atol=1e-6)
    assert err == ""    # of a rest that is too short
    assert "start [s]" in run(capsys, model, record)[1]


def test_windows_that_cannot_be_used_are_left_out_with_their_start(tmp_path, model, capsys):
    parts = [PARTS[0], 0 * PARTS[1], 70 * PARTS[2], PARTS[3]]    # electrodes off, a wrong gain
    code, out, err = run(capsys, model, write(tmp_path, parts), "--json")
    windows = json.loads(out)["records"]
    assert code == 1
    assert [window["start [s]"] for window in windows] == [0, 10, 20, 30]
    assert [bool(window["left_out"]) for window in windows] == [False, True, True, False]
    assert "long from 10 s on: too little signal" in err
    assert "long from 20 s on: gain or unit?" in err


def test_of_a_damaged_record_nothing_is_tried_after_the_damage(record, model, capsys):
    file = Path(record + ".hea")
    file.write_text(file.read_text().replace(" 500 22100", f" 500 {10**12 - 1}"))
    code, out, err = run(capsys, model, record, "--csv")
    assert (code, len(out.splitlines())) == (1, 1 + 4)
    assert err == f"classify.py: left out {record} from 40 s on: file is cut short: long.dat\n"
