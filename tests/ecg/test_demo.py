"""The demo: in MIMIC-IV-ECG's format, deterministic, whole, and physiologically what it claims."""


import numpy as np
import pytest
import wfdb

from ecg import demo
from ecg.demo import BBB, CLASSES, NORMAL, Anatomy, catalogue, simulate, write_demo
from tests.support.runs import LABELS


@pytest.fixture
def few(monkeypatch):
    """A catalogue of five records only."""
    rows = catalogue()[::130]
    monkeypatch.setattr(demo, "catalogue", lambda: rows)
    return rows


def files(folder):
    return {path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def test_the_catalogue_has_some_600_records_of_some_300_patients_in_five_classes():
    first = catalogue()
    np.random.seed(1)  # noqa: NPY002
    assert catalogue() == first
    subjects, paths, categories, seeds = zip(*first, strict=True)
    assert 550 <= len(paths) <= 650
    assert 280 <= len(set(subjects)) <= 320
    assert len(set(paths)) == len(set(seeds)) == len(paths)
    assert sorted(set(categories)) == CLASSES
    assert min(map(categories.count, CLASSES)) > 50


def test_the_shipped_label_file_names_the_demo_by_paths_like_mimics():
    assert LABELS.read_bytes().decode() == "".join(
        f"{subject},{path},{name}\n" for subject, path, name, _ in demo.catalogue())
    for subject, path, _, _ in catalogue():
        folder, group, patient, study, name = path.split("/")
        assert (folder, group, patient) == ("demo", f"p{str(subject)[:4]}", f"p{subject}")
        assert study == f"s{name}"


def test_records_are_in_mimics_format_and_obey_einthoven_and_goldberger(demo_dir):
    missing = []
    for subject, path, _, _ in catalogue()[::6]:
        record = wfdb.rdrecord(str(demo_dir / path))
        assert " ".join(record.sig_name) == "I II III aVR aVF aVL V1 V2 V3 V4 V5 V6"
        assert (record.fs, record.sig_len, set(record.units)) == (500, 5000, {"mV"})
        assert (set(record.fmt), set(record.adc_gain), set(record.baseline)) == ({"16"}, {200}, {0})
        assert f"<subject_id>: {subject}" in record.comments

        i, ii, iii, avr, avf, avl = record.p_signal[:, :6].T
        errors = iii - ii + i, avr + (i + ii) / 2, avf - ii + i / 2, avl - i + ii / 2
        assert np.nanmax(np.abs(errors)) <= 0.0076    # three leads, each rounded to 0.005 mV
        assert 0.1 < np.nanstd(record.p_signal) < 2
        missing.append(np.isnan(record.p_signal).sum())
    assert 0.02 < np.mean(np.array(missing) > 0) < 0.25
    assert max(missing) < 60


def test_writing_adds_what_is_missing_equal_to_the_byte_and_skips_what_exists(few, tmp_path):
    assert write_demo(tmp_path) == len(few) == 5
    whole = files(tmp_path)
    assert set(map(str, whole)) == {
        f"{row.waveform_path}.{end}" for row in few for end in ("hea", "dat")}
    gone, kept = [tmp_path / f"{row.waveform_path}.hea" for row in few[:2]]
    kept.write_bytes(b"mine")
    gone.unlink()
    assert write_demo(tmp_path) == 1
    assert files(tmp_path) == whole | {kept.relative_to(tmp_path): b"mine"}
    assert write_demo(tmp_path) == 0


@pytest.mark.parametrize(("category", "left"), [(NORMAL, True), (BBB, True), (BBB, False)])
def test_true_r_peaks_are_the_tops_of_lead_ii(category, left):
    signal, r_peaks = simulate(category, 60, "clean", 5, Anatomy(left_block=left), wander=0)
    tops = [signal[r - 40:r + 41, 1].argmax() - 40 + r for r in np.rint(r_peaks[1:-1]).astype(int)]
    np.testing.assert_allclose(r_peaks[1:-1], tops, atol=1)
    assert 8 <= len(tops) <= 10
