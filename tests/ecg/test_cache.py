"""Preparing many records: any number of processes, and a cache of the results.

A batch is 10 records here, so that a few records make several of them.
"""

import os
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ecg import cache, files
from ecg.errors import UserError
from tests.support import stores
from tests.support.stores import BAD, BATCH, PATHS, one_by_one, prepare_all


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Folder of all records; not to be changed."""
    folder = tmp_path_factory.mktemp("records")
    stores.write_records(folder)
    return folder


@pytest.fixture(scope="module")
def expected(records):
    return one_by_one(records)


@pytest.fixture
def data(records, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(records, tmp_path / "data")


@pytest.fixture
def store(tmp_path):
    """Folder of a cache, which is not there yet."""
    return tmp_path / "cache"


@pytest.fixture
def prepared(expected):
    """The paths of all records that this process prepares, as it prepares them."""
    stores.prepared_here.clear()
    return stores.prepared_here


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(cache, "BATCH", BATCH)


def content_of(store):
    return {file.name: file.read_bytes() for file in store.iterdir()}


# ------------------------------------------------------------------------------------- processes
@pytest.mark.parametrize("jobs", [1, 2])
def test_any_number_of_processes_gives_the_same_rows_in_the_same_order(
        jobs, records, store, expected, prepared):
    assert len(set(expected)) == len(PATHS)    # else the order could not be told
    assert {i: expected[i] for i in BAD} == BAD
    assert prepare_all(records, None, jobs=jobs) == expected
    assert prepare_all(records, store, jobs=jobs) == expected    # cold
    assert len(content_of(store)) == 4
    prepared.clear()
    assert prepare_all(records, store, jobs=jobs) == expected    # warm
    assert prepared == []


def test_a_worker_that_is_killed_is_an_error_and_finished_batches_are_kept(
        data, store, prepared, expected):
    act = data / f"{PATHS[-1]}.act"
    act.write_text(f"kill\n{store}\n3")
    with pytest.raises(UserError, match=r"killed.*--jobs 1"):
        prepare_all(data, store, jobs=2)
    act.unlink()
    assert prepare_all(data, store) == expected
    assert len(prepared) == 10


# ----------------------------------------------------------------------------------------- cache
@pytest.mark.parametrize("what", ["key", "code"])
def test_another_key_or_code_makes_new_rows_and_keeps_the_old(
        what, records, store, prepared, expected, monkeypatch):
    prepare_all(records, store)
    before = content_of(store)
    prepared.clear()
    with monkeypatch.context() as patch:
        if what == "code":
            patch.setattr(files, "code_sha256", lambda: "of another version")
        key = "another" if what == "key" else "key"
        assert prepare_all(records, store, key=key) == expected
    assert len(prepared) == 40
    assert before.items() < content_of(store).items()


@pytest.mark.parametrize("what", ["another signal", "another header", "a longer file",
                                  "a record fixed", "a record lost"])
def test_a_changed_record_is_prepared_again_and_only_its_batch(
        what, data, store, prepared, expected):
    i = 7 if what == "a record fixed" else 35
    header, signal = (Path(f"{data}/{PATHS[i]}{ending}") for ending in (".hea", ".dat"))
    assert prepare_all(data, store) == expected
    prepared.clear()

    if what == "another signal":
        stores.write_records(data, [PATHS[i]], seed=99)
    elif what == "another header":    # of the same size and time
        time = header.stat().st_mtime_ns
        header.write_text("gain 2\n")
        os.utime(header, ns=(time, time))
    elif what == "a longer file":
        time = signal.stat().st_mtime_ns
        signal.write_bytes(bytes(2400) + signal.read_bytes())
        os.utime(signal, ns=(time, time))
    elif what == "a record fixed":
        header.write_text("gain 1\n")
    else:
        header.unlink()

    after = prepare_all(data, store)
    start = i // BATCH * BATCH
    assert prepared == [f"{data}/{path}" for path in PATHS[start:start + BATCH]]
    changed = [j for j in range(40) if after[j] != expected[j]]
    assert changed == [i]


def test_another_list_of_records_gives_the_rows_of_that_list(data, store, expected):
    for path in PATHS[:4]:    # sizes and times alone could not tell these
        for ending in (".hea", ".dat"):
            os.utime(data / f"{path}{ending}", (1, 1))
    for places in (range(40), range(39, -1, -1), [0, 1, 2, 3], [3, 2, 1, 0], [3], [1]):
        rows = prepare_all(data, store, [PATHS[i] for i in places])
        assert rows == [expected[i] for i in places]


@pytest.mark.parametrize("size", [0, -1], ids=["empty", "cut"])
def test_a_damaged_file_is_prepared_again(size, records, store, prepared, expected):
    prepare_all(records, store, PATHS[:4])
    (name, whole), = content_of(store).items()
    (store / name).write_bytes(whole[:size])
    prepared.clear()
    assert prepare_all(records, store, PATHS[:4]) == expected[:4]
    assert len(prepared) == 4
    assert content_of(store) == {name: whole}


def test_scratch_files_of_killed_runs_are_removed(records, store):
    prepare_all(records, store, PATHS[:4])
    name, = content_of(store)
    for file in (f".part-1-{name}", f".part-2-{name}", ".mine.npy"):
        (store / file).touch()
    os.utime(store / f".part-1-{name}", (1, 1))
    prepare_all(records, store, PATHS[:4])
    assert set(content_of(store)) == {name, f".part-2-{name}", ".mine.npy"}


def test_a_cache_folder_that_cannot_be_made_is_an_error_that_names_it(records, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "file" / "folder"))):
        prepare_all(records, tmp_path / "file" / "folder")


# --------------------------------------------------------------------------------------- signals
@pytest.fixture(scope="module")
def stored(records, tmp_path_factory):
    """The usable signals, in a cache, and the same as one array."""
    store = tmp_path_factory.mktemp("signals")
    paths = [f"{records}/{path}" for path in PATHS]
    for _ in ("cold", "warm"):
        rows = cache.prepare_many(paths, stores.prepare, stores.SHAPES, "key", store, jobs=1)
    places = [i for i in range(40) if i not in BAD]
    return cache.Signals(rows, places), np.array([rows[i].signal for i in places])


@pytest.mark.parametrize("index", [
    -1, slice(None, None, -7), slice(5, 5), [3, 3, 0, -1], np.arange(38) % 3 == 0],
    ids=lambda index: repr(index)[:20])
def test_signals_are_indexed_like_an_array(index, stored):
    signals, array = stored
    assert signals.shape == array.shape == (38, 500, 12)
    assert signals[index].dtype == np.float32
    np.testing.assert_array_equal(signals[index], array[index])
    signals[index].fill(7)    # which changes nothing but this copy
    np.testing.assert_array_equal(signals[:], array)


def test_stored_signals_stay_on_disk_until_they_are_asked_for(records, tmp_path):
    def load():
        paths = [f"{records}/{path}" for path in PATHS]
        rows = cache.prepare_many(
            paths, stores.prepare, stores.SHAPES, "key", tmp_path / "cache", jobs=1)
        return cache.Signals(rows, range(40))

    load()
    tracemalloc.start()
    try:
        signals = load()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        four = signals[[0, 9, 20, 36]]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * four.nbytes    # of ten times as much
    assert peak - kept < 2 * four.nbytes
