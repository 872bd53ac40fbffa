"""From label file to inputs: what is drawn, prepared, kept for the next run, and left out."""

import os

import numpy as np
import pandas as pd
import pytest

import too_feature as script
from ecg import label_rows
from ecg.errors import UserError
from tests.support.ecgs import edit_header, flip_bit, simulated, write_record
from too_feature import RECIPES, Recipe, Settings, load_split, prepare_many, prepare_record

PATHS = [f"p{i}/x" for i in range(12)]


@pytest.fixture(scope="module")
def ecgs(tmp_path_factory):
    """Folder of 12 ECGs, each with a heart rate of its own; the fourth cannot be used."""
    folder = tmp_path_factory.mktemp("ecgs")
    for i, path in enumerate(PATHS):
        write_record(folder / path, simulated(rate=50 + 5 * i, seed=i)[0])
    (folder / f"{PATHS[3]}.hea").write_text("nonsense\n")
    return str(folder)


# --------------------------------------------------------------------------------------- inputs
@pytest.mark.parametrize(("recipe", "n_features"), [("default", 8), ("large", 48)])
def test_the_models_inputs_are_what_its_recipe_makes_of_the_record(recipe, n_features, ecgs):
    recipe = RECIPES[recipe]
    ecg, features, remark = prepare_record(f"{ecgs}/{PATHS[0]}", recipe=recipe)
    assert remark == ""
    assert features.dtype == np.float32
    assert features.shape == (n_features,) == (len(script.feature_names(recipe)),)
    recording = script.read_record(f"{ecgs}/{PATHS[0]}")
    np.testing.assert_array_equal(ecg, script.stable_preprocess_ecg(recording.signal))
    eight = script.extract_core_medical_features(recording.signal, recording.fs)
    np.testing.assert_array_equal(features[:8], eight.astype(np.float32))


def prepare(data, store, recipe=RECIPES["default"], **settings):
    """Prepare all ECGs as a run does; return the names of the files in the cache, and the ECGs."""
    settings = Settings(recipe=recipe, cache_dir=str(store), jobs=1, **settings)
    rows = prepare_many(PATHS, data, settings, "")
    return set(os.listdir(store)), [row.signal.tobytes() + row.features.tobytes() for row in rows]


@pytest.mark.parametrize(("name", "value"), [
    ("high_pass", 0.6), ("sequence_length", 400), ("central_share", 0.9), ("scale_span", 2.9),
    ("model", "large")])
def test_settings_that_shape_the_inputs_prepare_records_again(name, value, ecgs, tmp_path):
    before, rows = prepare(ecgs, tmp_path)
    after, changed = prepare(ecgs, tmp_path, Recipe(**{name: value}))
    assert after > before
    assert not set(changed) & set(rows) - {rows[3]}


def test_other_settings_share_the_prepared_records(ecgs, tmp_path):
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=0.1, lstm_memory=1.0, shift=0.0)
    before = prepare(ecgs, tmp_path)
    assert prepare(ecgs, tmp_path, recipe, seed=1, train_samples=20) == before


# ---------------------------------------------------------------------------------------- splits
@pytest.fixture
def records(tmp_path):
    """Return a function that makes labels and files: of each class so many good and bad records."""
    header = write_record(tmp_path / "x", simulated()[0], fs=500).with_suffix(".hea")

    def make(**counts):
        rows = []
        for name, (good, bad, absent) in counts.items():
            for i in range(good + bad + absent):
                path = tmp_path / "data" / f"{name}{i}" / "x"
                path.parent.mkdir(parents=True)
                if i < good:    # each another recording
                    noise = np.random.default_rng(len(rows)).normal(0, 0.3, (5000, 12))
                    write_record(path, noise, fs=500)
                elif i < good + bad:
                    os.link(header, f"{path}.hea")
                rows.append((len(rows), f"{name}{i}/x", name))
        return pd.DataFrame(rows, columns=label_rows.COLUMNS)

    return make


def load(tmp_path, labels, name="test", **options):
    """Load a split of these records."""
    settings = Settings(data_dir=str(tmp_path / "data"), cache=False,
                        recipe=Recipe(sequence_length=50), **options)
    return load_split(name, labels, sorted(set(labels["ecg_category"])), settings)


DAMAGE = {
    "file is missing": lambda path: os.unlink(f"{path}.dat"),
    "header is damaged": lambda path: edit_header(path, b"x 12", b"x 13"),
    "wrong checksum": lambda path: flip_bit(path, 777),
    "too little signal": lambda path: write_record(path, np.zeros((5000, 12)))}


def test_a_split_names_each_damaged_record_with_its_reason_and_each_unusual_one(tmp_path):
    signal = simulated()[0]
    rows = []
    for i, damage in enumerate([*DAMAGE.values(), *[None] * 10]):
        path = write_record(tmp_path / "data" / f"r{i}" / "x", signal + (i == 13) * 11)
        rows.append((i, f"r{i}/x", "a"))
        if damage:
            damage(path)
    labels = pd.DataFrame(rows, columns=label_rows.COLUMNS)
    for _ in ("anew", "from the cache"):
        split = load_split("train", labels, ["a"], Settings(
            data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"), jobs=1))
        reasons = {path: reason.split(":")[0] for path, reason in split.left_out}
        assert reasons == {f"r{i}/x": reason for i, reason in enumerate(DAMAGE)}
        assert split.unusual == (("r13/x", "beyond 10 mV"),)    # drawn often, told once


@pytest.mark.parametrize(("good", "bad", "stops"), [
    (6, 6, False), (5, 6, True), (1, 1, False), (1, 2, True), (0, 1, True)])
def test_a_class_of_which_most_records_cannot_be_used_stops_the_run_and_is_named(
        good, bad, stops, records, tmp_path):
    labels = records(Fine=(12, 0, 0), Rotten=(good, bad, 0))
    if not stops:
        assert len(load(tmp_path, labels).left_out) == bad
        return

    with pytest.raises(UserError) as error:
        load(tmp_path, labels)
    for part in (f"{bad} of {good + bad} test records of Rotten", f"file is missing ({bad})",
                 "file is missing: x.dat", "repair"):
        assert part in str(error.value)
    assert "Fine" not in str(error.value)


def test_records_that_are_not_on_disk_are_replaced_and_counted(records, tmp_path):
    labels = records(Fine=(40, 0, 0), Partial=(10, 0, 30))
    loaded = load(tmp_path, labels, test_samples=10)    # five of each
    is_there = [(tmp_path / f"data/{path}.hea").exists() for path in labels["waveform_path"]]
    assert loaded.rows.equals(script.balanced_sampling(labels[is_there], 10, repeat=False))
    assert loaded.left_out == ()    # absent is not unusable
    assert 0 < len(loaded.missing) < 30    # only what a draw came to was looked for


def test_few_bad_records_among_the_first_are_replaced(records, tmp_path):
    labels = records(Fine=(40, 0, 0), Unlucky=(40, 0, 0))
    first = script.balanced_sampling(labels, 10)    # five of each
    mine = first.loc[first["ecg_category"] == "Unlucky", "waveform_path"]
    for path in mine[:3]:
        (tmp_path / "data" / f"{path}.dat").unlink()
    loaded = load(tmp_path, labels, test_samples=10)
    assert sorted(path for path, _ in loaded.left_out) == sorted(mine[:3])
    assert (loaded.rows["ecg_category"] == "Unlucky").sum() == 5
