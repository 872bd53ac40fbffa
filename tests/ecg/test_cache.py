"""What is promised of preparing many records: any number of processes, and a cache of the results.

A batch is 10 records here, so that a few records make several of them.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

import too_feature as script
from ecg import cache, demo
from ecg.errors import UserError
from tests.support import ecgs, stores
from tests.support.stores import (
    BAD,
    BATCH,
    PATHS,
    batches_of,
    files_of,
    one_by_one,
    prepare_all,
    wait_for,
)

ROOT = Path(script.__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of all records, three of which cannot be used; not to be changed."""
    folder = tmp_path_factory.mktemp("records")
    stores.write_all(folder)
    return folder


@pytest.fixture
def own_data(data, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(data, tmp_path / "own")


@pytest.fixture
def store(tmp_path):
    """Folder of a cache, which is not there yet."""
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(cache, "BATCH", BATCH)


@pytest.fixture
def read(expected):
    """The paths of all records that this process prepares, as it prepares them."""
    stores.prepared_here.clear()
    return stores.prepared_here


@pytest.fixture(scope="module")
def expected(data):
    return one_by_one(data)


# The same in a process of its own: `before` is run first
IN_A_PROCESS = """
import hashlib, json, os, signal, sys
from pathlib import Path
from ecg import cache, errors, interrupt
from tests.support import stores
data, store, paths, jobs = json.loads(sys.argv[1])
cache.BATCH = 10
BEFORE
def run():
    rows = stores.prepare_all(data, store and Path(store), paths, jobs=jobs)
    print(hashlib.sha256(repr(rows).encode()).hexdigest())
sys.exit(errors.exit_code("program", run))
"""


@contextlib.contextmanager
def process(data, store, before="", paths=PATHS, jobs=1, **options):
    """Start such a process; kill it in the end, should it be there still."""
    code = IN_A_PROCESS.replace("BEFORE", before)
    arguments = json.dumps([str(data), str(store), list(paths), jobs])
    child = subprocess.Popen(
        [sys.executable, "-c", code, arguments], text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def assert_prepared(child, expected):
    """Wait for a process and check that its rows are the expected ones."""
    out, err = child.communicate(timeout=stores.PATIENCE)
    assert child.returncode == 0, err
    assert out.splitlines()[-1] == hashlib.sha256(repr(expected).encode()).hexdigest()


def assert_fails(child, start):
    """Wait for a process that has to fail with one line that starts so."""
    _, err = child.communicate(timeout=stores.PATIENCE)
    assert child.returncode == 2, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"program: error: {start}")


# ------------------------------------------------------------------------------------- processes
def test_the_records_differ_and_the_bad_ones_are_left_out(expected):
    assert len(set(expected)) == len(PATHS)    # else the order could not be told
    for i, reason in BAD.items():
        assert expected[i] == reason
    assert all(isinstance(expected[i], tuple) for i in set(range(40)) - set(BAD))


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_any_number_of_processes_gives_the_same_rows_in_the_same_order(
        jobs, data, store, expected):
    assert prepare_all(data, None, jobs=jobs) == expected
    assert files_of(store) == {}
    assert prepare_all(data, store, jobs=jobs) == expected    # cold
    assert len(files_of(store)) == 4
    assert prepare_all(data, store, jobs=jobs) == expected    # warm


def test_two_processes_share_the_work_and_do_not_import_tensorflow(own_data, tmp_path, expected):
    """The first record of each half waits for the other: so one process could not do both."""
    met = tmp_path / "met"
    met.mkdir()
    stores.tell(own_data, PATHS[0], "meet", met, 2)
    stores.tell(own_data, PATHS[20], "meet", met, 2)
    assert prepare_all(own_data, jobs=2) == expected
    pids = {int(name) for name in os.listdir(met)}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert all((met / str(pid)).read_text() == "" for pid in pids)    # TensorFlow, if imported


def test_no_records_are_no_rows(data, store):
    assert prepare_all(data, store, paths=[]) == []
    assert files_of(store) == {}


# ----------------------------------------------------------------------------------------- cache
def test_a_second_preparation_reads_no_record(data, store, read, expected):
    assert prepare_all(data, store) == expected
    assert read == [f"{data}/{path}" for path in PATHS]
    read.clear()
    before = files_of(store)
    assert prepare_all(data, store) == expected
    assert read == []
    assert files_of(store) == before


def test_another_key_makes_new_rows_and_keeps_the_old(data, store, read, expected):
    prepare_all(data, store)
    read.clear()
    assert prepare_all(data, store, key="another") == expected
    assert len(read) == 40
    assert len(files_of(store)) == 8
    read.clear()
    assert prepare_all(data, store) == expected
    assert read == []


@pytest.mark.parametrize("what", ["another signal", "another header", "another time",
                                  "a longer file", "a record fixed", "a record lost"])
def test_a_changed_record_is_prepared_again_and_only_its_batch(what, own_data, store, read,
                                                              expected):
    i = 7 if what == "a record fixed" else 35
    path = own_data / PATHS[i]
    dat, hea = Path(f"{path}.dat"), Path(f"{path}.hea")
    assert prepare_all(own_data, store) == expected
    read.clear()

    if what == "another signal":
        stores.write_records(own_data, [PATHS[i]], seed=99)
    elif what == "another header":
        hea.write_text(hea.read_text().replace("gain 1", "gain 20"))
    elif what == "another time":
        os.utime(dat, (1, 1))
    elif what == "a longer file":
        time_before = dat.stat().st_mtime_ns
        dat.write_bytes(bytes(2400) + dat.read_bytes())
        os.utime(dat, ns=(time_before, time_before))
    elif what == "a record fixed":
        stores.write_records(own_data, [PATHS[i]], seed=99)
    else:
        hea.unlink()

    after = prepare_all(own_data, store)
    start = i // BATCH * BATCH
    assert read == [f"{own_data}/{path}" for path in PATHS[start:start + BATCH]]
    assert after == one_by_one(own_data)
    changed = [j for j in range(40) if after[j] != expected[j]]
    assert changed == ([] if what == "another time" else [i])


def test_another_list_of_records_gives_the_rows_of_that_list(data, store, expected):
    assert prepare_all(data, store) == expected
    for places in (range(39, -1, -1), range(5, 25), [3], [4, 3], range(0, 40, 3)):
        rows = prepare_all(data, store, [PATHS[i] for i in places])
        assert rows == [expected[i] for i in places]


def test_records_whose_files_have_the_same_size_and_time_are_not_mistaken(own_data, store,
                                                                         expected):
    for path in PATHS[:4]:
        for ending in (".hea", ".dat"):
            os.utime(own_data / f"{path}{ending}", (1, 1))
    assert cache.stamp(f"{own_data}/{PATHS[0]}") == cache.stamp(f"{own_data}/{PATHS[3]}")
    for places in ([0, 1, 2, 3], [3, 2, 1, 0], [1], [2]):
        rows = prepare_all(own_data, store, [PATHS[i] for i in places])
        assert rows == [expected[i] for i in places]


def test_records_of_another_folder_under_the_same_names_are_not_mistaken(
        data, own_data, store, expected):
    stores.write_records(own_data, seed=50)
    for path in PATHS:    # sizes and times alone could not tell them
        for ending in (".hea", ".dat"):
            with contextlib.suppress(FileNotFoundError):
                time = (data / f"{path}{ending}").stat().st_mtime_ns
                os.utime(own_data / f"{path}{ending}", ns=(time, time))
    assert prepare_all(data, store) == expected
    assert prepare_all(own_data, store) == one_by_one(own_data)


# ----------------------------------------------------------------------------------- interrupted
def test_after_an_interruption_only_the_missing_batches_are_prepared(
        own_data, store, read, expected):
    stores.tell(own_data, PATHS[25], "interrupt")
    with pytest.raises(KeyboardInterrupt):
        prepare_all(own_data, store)
    before = files_of(store)
    assert len(before) == 2
    (own_data / f"{PATHS[25]}.act").unlink()
    read.clear()
    assert prepare_all(own_data, store) == expected
    assert read == [f"{own_data}/{path}" for path in PATHS[20:]]
    assert before.items() < files_of(store).items()
    assert len(files_of(store)) == 4


def test_an_interruption_in_the_middle_of_writing_leaves_whole_files_only(
        data, store, read, expected, monkeypatch):
    write, calls = Path.write_bytes, []

    def half(file, rows):
        calls.append(file)
        if len(calls) == 3:
            write(file, rows[:len(rows) // 2])
            raise KeyboardInterrupt
        write(file, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(KeyboardInterrupt):
            prepare_all(data, store)
    assert len(files_of(store)) == 2    # no scratch file either
    read.clear()
    assert prepare_all(data, store) == expected
    assert len(read) == 20


KILLED_WHILE_WRITING = """
def half(file, rows, write=Path.write_bytes, calls=[]):
    calls.append(file)
    if len(calls) < 3:
        return write(file, rows)
    write(file, rows[:9999])
    os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = half
"""


def test_a_run_killed_in_the_middle_of_writing_goes_on_where_it_stopped(data, store, read,
                                                                       expected):
    with process(data, store, KILLED_WHILE_WRITING) as child:
        child.communicate(timeout=stores.PATIENCE)
        assert child.returncode == -9
    assert len(batches_of(store)) == 2
    assert len(files_of(store)) == 3    # the half-written one cannot be mistaken
    assert prepare_all(data, store) == expected
    assert len(read) == 20


# ------------------------------------------------------------------------------------ two at once
def test_two_runs_at_once_into_the_same_cache_both_succeed(own_data, store, read, expected,
                                                           tmp_path):
    met = tmp_path / "met"
    met.mkdir()
    stores.tell(own_data, PATHS[0], "meet", met, 2)
    with process(own_data, store) as one, process(own_data, store) as two:
        assert_prepared(one, expected)
        assert_prepared(two, expected)
    assert len(os.listdir(met)) == 2
    assert len(batches_of(store)) == len(files_of(store)) == 4
    assert prepare_all(own_data, store) == expected
    assert read == []


# --------------------------------------------------------------------------------------- damaged
class Dangerous:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npz(array):
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


DAMAGED = {
    "empty": lambda content: b"",
    "half": lambda content: content[:len(content) // 2],
    "one byte too few": lambda content: content[:-1],
    "zeros at its end": lambda content: content[:-9999] + bytes(9999),
    "all zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"Not Found\n",
    "long text": lambda content: b"<html>\n" * 20_000,
    "the start of an archive": lambda content: b"PK\x03\x04" + content[4:],
    "an archive": lambda content: npz(np.zeros(4)),
    "another array": lambda content: npy(np.zeros((4, 7))),
    "fewer rows": lambda content: content[:len(content) // 4 * 3],
    "more rows": lambda content: content + content[:len(content) // 4],
}


def damage_and_prepare(data, store, read, change, n=4):
    """Damage the cache's one file; return the rows, having checked that it was noticed."""
    file, = store.iterdir()
    whole = file.read_bytes()
    damaged = change(whole)
    assert damaged != whole
    file.write_bytes(damaged)
    read.clear()
    rows = prepare_all(data, store, PATHS[:n])
    assert len(read) == n
    assert files_of(store) == {file.name: whole}    # rebuilt
    return rows


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_noticed_and_rebuilt(damage, data, store, read, expected):
    prepare_all(data, store, PATHS[:4])
    rows = damage_and_prepare(data, store, read, DAMAGED[damage])
    assert rows == expected[:4]


def test_any_bit_that_is_flipped_in_a_row_is_noticed(data, store, read, expected):
    """Row 7 of 8 is one that is left out, and has the reason."""
    prepare_all(data, store, PATHS[:8])
    signal_end = 500 * 12 * 4
    features_end = signal_end + 8 * 4
    reason_end = features_end + 120
    remark_end = reason_end + 60
    length = remark_end + 4    # with the checksum
    ends = [0, signal_end, features_end, reason_end, remark_end, length]
    rng = np.random.default_rng(0)
    for part in range(5):
        for row in (0, 3, 7):
            place = int(rng.integers(ends[part], ends[part + 1])) + row * length
            bit = int(rng.integers(8))

            def flip(content, place=place, bit=bit):
                content = bytearray(content)
                assert len(content) == 8 * length
                content[place] ^= 1 << bit
                return bytes(content)

            assert damage_and_prepare(data, store, read, flip, 8) == expected[:8]


@pytest.mark.parametrize("kind", ["object array", "pickle", "pickle in an archive",
                                  "structured array with objects"])
def test_a_stored_pickle_is_never_run(kind, data, store, read, expected, tmp_path):
    prepare_all(data, store, PATHS[:4])
    proof = tmp_path / "it was run"
    objects = np.array([Dangerous(proof)] * 4, dtype=object)
    structured = np.zeros(4, [("signal", object), ("checksum", "<u4")])
    structured["signal"] = objects
    content = {"object array": npy(objects), "pickle": pickle.dumps(Dangerous(proof)),
               "pickle in an archive": npz(objects),
               "structured array with objects": npy(structured)}[kind]
    rows = damage_and_prepare(data, store, read, lambda _: content)
    assert not proof.exists()
    assert rows == expected[:4]
    pickle.loads(pickle.dumps(Dangerous(proof)))  # noqa: S301 - it would have been
    assert proof.exists()


def test_a_folder_in_a_files_place_is_an_error_that_names_it(data, store):
    prepare_all(data, store, PATHS[:4])
    file, = store.iterdir()
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match=re.escape(str(file))):
        prepare_all(data, store, PATHS[:4])
    assert os.listdir(store) == [file.name]


# -------------------------------------------------------------------------------- what goes wrong
def test_more_batches_than_files_may_be_open_at_first_are_no_trouble(data, store, expected):
    """As on a Mac, where 256 may be, and each batch that is mapped into lstm_memory counts."""
    few = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (30, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
cache.BATCH = 1
"""
    for _ in ("cold", "warm"):
        with process(data, store, few) as child:
            assert_prepared(child, expected)
    assert len(files_of(store)) == 40


def test_a_batch_that_cannot_be_read_after_it_was_written_is_an_error(data, store, monkeypatch):
    monkeypatch.setattr(cache, "load", lambda batch: None)
    with pytest.raises(UserError, match="--no-cache") as error:
        prepare_all(data, store)
    assert str(store) in str(error.value)


def test_workers_that_run_another_version_of_the_code_are_refused(data):
    with pytest.raises(UserError, match="restart the workers"):
        prepare_all(data, paths=PATHS[:4], code="of another version")


def test_the_cache_has_one_place_wherever_workers_are(data, store, monkeypatch):
    places = []

    def note(batch):
        places.append(batch.file)
        raise UserError("noted")

    monkeypatch.setattr(cache, "prepare_batch", note)
    monkeypatch.chdir(data.parent)
    with pytest.raises(UserError, match="noted"):
        prepare_all(data, Path("relative"), PATHS[:4])
    assert [place.parent for place in places] == [data.parent / "relative"]


def is_running(pid):
    """Return whether there is such a process that has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):    # Linux: one that has ended, but is not cleaned up yet
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True


@pytest.mark.skipif(os.name == "nt", reason="no signals there")
def test_ctrl_c_ends_all_processes_without_a_traceback_and_keeps_what_is_done(
        own_data, store, expected, tmp_path):
    """It comes when the first batch is stored, and both workers wait in the middle of others."""
    met, never = tmp_path / "met", tmp_path / "never"
    met.mkdir()
    for path in PATHS[10:]:
        stores.tell(own_data, path, "meet", met, 10, never)
    before = "interrupt.watch('program', ['run.py'])\ninterrupt.prepare_for_a_sudden_end()"
    with process(own_data, store, before, jobs=2, start_new_session=True) as child:
        wait_for(lambda: len(batches_of(store)) == 1 and len(os.listdir(met)) == 2)
        os.killpg(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=stores.PATIENCE)
        assert child.returncode == 130
        assert "program: stopped" in err
        assert "python run.py --resume" in err
        assert "Traceback" not in err
    wait_for(lambda: not any(is_running(int(pid)) for pid in os.listdir(met)))
    assert len(batches_of(store)) == 1
    never.touch()
    assert prepare_all(own_data, store) == expected


AS_NOBODY = """
if not os.getuid():    # root may do anything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


def test_a_cache_folder_that_is_not_writable_is_one_line_and_a_full_one_can_be_read():
    if not os.getuid() and not all(x.stat().st_mode & 0o001 for x in (ROOT, *ROOT.parents)):
        pytest.skip("others cannot look into the project's folder")
    with tempfile.TemporaryDirectory() as folder:    # pytest's own are closed to others
        os.chmod(folder, 0o755)  # noqa: S103
        stores.write_records(folder, PATHS[:2])
        expected = one_by_one(folder, PATHS[:2])
        store = Path(folder) / "cache"
        store.mkdir(mode=0o555)
        with process(folder, store, AS_NOBODY, PATHS[:2]) as child:
            assert_fails(child, f"{store}/")
        assert not list(store.iterdir())

        store.chmod(0o755)
        assert prepare_all(folder, store, PATHS[:2]) == expected
        store.chmod(0o555)
        with process(folder, store, AS_NOBODY + "stores.act = None", PATHS[:2]) as child:
            assert_prepared(child, expected)
        store.chmod(0o755)


@pytest.mark.parametrize("where", ["a file", "below a file"])
def test_a_cache_folder_that_cannot_be_made_is_an_error_that_names_it(where, data, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / ("file" if where == "a file" else "file/folder")
    with pytest.raises(UserError, match=re.escape(str(folder))):
        prepare_all(data, folder)


def test_on_a_full_disk_a_run_goes_on_without_the_cache_and_says_so_once(
        data, store, expected, monkeypatch, capfd):
    write = Path.write_bytes

    def full(file, rows):
        write(file, b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert prepare_all(data, store) == expected
    line, = capfd.readouterr().out.splitlines()
    assert line.startswith("notice: ")
    assert "No space left on device" in line
    assert str(store) in line
    assert files_of(store) == {}


def test_a_file_that_may_not_grow_is_one_line_and_leaves_nothing(data, store):
    """As on a full disk, by the system itself: files may have 100 kB, and a batch has 240."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    with process(data, store, limit) as child:
        assert_fails(child, store)
    assert files_of(store) == {}


def test_a_worker_that_is_killed_is_an_error_and_finished_batches_are_kept(
        own_data, store, read, expected):
    stores.tell(own_data, PATHS[-1], "kill", store, 3)
    with pytest.raises(UserError, match=r"killed.*--jobs 1"):
        prepare_all(own_data, store, jobs=2)
    assert len(files_of(store)) == 3
    (own_data / f"{PATHS[-1]}.act").unlink()
    assert prepare_all(own_data, store) == expected
    assert len(read) == 10


def test_without_dask_an_error_says_what_to_install(data, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="pip install distributed"):
        prepare_all(data, store, scheduler="tcp://127.0.0.1:1")
    assert files_of(store) == {}


# --------------------------------------------------------------------------------------- signals
def rows_of(data, store):
    """Return all records, and the places of those that can be used."""
    paths = [f"{data}/{path}" for path in PATHS]
    rows = cache.prepare_many(paths, stores.prepare, stores.SHAPES, "key", store, jobs=1)
    return rows, [i for i, row in enumerate(rows) if not row.reason]


@pytest.fixture(scope="module")
def stored(data, tmp_path_factory):
    """The usable signals, in a cache, and the same as one array."""
    store = tmp_path_factory.mktemp("signals")
    rows_of(data, store)
    rows, places = rows_of(data, store)
    return cache.Signals(rows, places), np.array([rows[i].signal for i in places])


@pytest.mark.parametrize("index", [
    0, -1, np.int64(3), slice(None), slice(3, 9), slice(None, None, -7), slice(5, 5),
    [3, 3, 0, -1], np.array([7, 7, 1]), np.array([], int), np.arange(37) % 3 == 0,
    np.zeros(37, bool)], ids=lambda index: repr(index).replace("\n", "")[:30])
def test_signals_are_indexed_like_an_array(index, stored):
    signals, array = stored
    assert signals.shape == array.shape == (37, 500, 12)
    got = signals[index]
    assert got.shape == array[index].shape
    assert got.dtype == array.dtype == np.float32
    np.testing.assert_array_equal(got, array[index])


@pytest.mark.parametrize("index", [37, -38, [0, 37], np.ones(36, bool)],
                         ids=lambda index: repr(index).replace("\n", "")[:30])
def test_signals_that_are_not_there_are_an_index_error(index, stored):
    with pytest.raises(IndexError):
        stored[0][index]


def test_what_is_taken_of_signals_can_be_changed_without_changing_them(stored):
    signals, array = stored
    batch = signals[[1, 2]]
    batch += 1
    np.testing.assert_array_equal(signals[[1, 2]], array[[1, 2]])


def mapped(array):
    """Return whether an array's lstm_memory is that of a file."""
    while isinstance(array, np.ndarray | np.void):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return type(array).__name__ == "mmap"


def test_stored_signals_stay_on_disk_until_they_are_asked_for(data, store):
    rows_of(data, store)
    tracemalloc.start()
    try:
        rows, places = rows_of(data, store)
        signals = cache.Signals(rows, places)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        four = signals[[0, 9, 20, 36]]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(mapped(row.signal) for row in rows)
    one = four.nbytes / 4
    assert kept < 5 * one    # of 37
    assert 4 * one < peak - kept < 8 * one


def test_800_000_records_of_a_split_take_a_tenth_of_2_gb(store, monkeypatch):
    """What stays in lstm_memory of a record beyond its row of the label file."""
    def prepare_rows(batch):
        rows = np.zeros(len(batch.paths), batch.row_type)
        rows["checksum"] = cache.checksum(rows[0])
        return rows

    def kept(n):
        labels = pd.DataFrame({"subject_id": np.arange(n), "ecg_category": "a",
                               "waveform_path": [f"{n}/{i}" for i in range(n)]})
        settings = script.Settings(cache_dir=str(store), train_samples=n, jobs=1,
                                   recipe=script.Recipe(sequence_length=50))
        tracemalloc.start()
        try:
            records = script.load_split("train", labels, ["a"], settings)
            return tracemalloc.get_traced_memory()[0], records.signals[-1].shape
        finally:
            tracemalloc.stop()

    monkeypatch.setattr(cache, "prepare_rows", prepare_rows)
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    kept(100)    # what the first split imports
    (few, _), (many, shape) = kept(1000), kept(3000)
    assert shape == (50, 12)
    assert (many - few) / 2000 < 2e9 / 10 / 800_000


# ---------------------------------------------------------------------------------- by the script
@pytest.fixture(scope="module")
def ecg_data(tmp_path_factory):
    """Folder of 12 valid ECGs at 500 Hz, each with a heart rate of its own, and one broken one."""
    folder = tmp_path_factory.mktemp("ecgs")
    for i, path in enumerate(PATHS[:12]):
        signal, _ = ecgs.simulated(rate=50 + 5 * i, seed=i)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        digital = np.round(signal * demo.GAIN).astype(int)
        wfdb.wrsamp(Path(path).name, 500, ["mV"] * 12, list(script.LEADS), fmt=["16"] * 12,
                    d_signal=digital, baseline=[0] * 12, adc_gain=[demo.GAIN] * 12,
                    write_dir=str((folder / path).parent))
    (folder / f"{PATHS[3]}.hea").write_text("nonsense\n")
    return folder


def prepare_ecgs(data, store, recipe=None, **settings):
    """Prepare ECGs as a run does; return the names of the files in the cache, and the rows."""
    settings = script.Settings(recipe=recipe or script.Recipe(), cache_dir=str(store), jobs=1,
                               **settings)
    rows = script.prepare_many(PATHS[:12], str(data), settings, "reading")
    return set(files_of(store)), stores.told(rows)


@pytest.mark.parametrize(("name", "value"), [
    ("high_pass", 0.6), ("sequence_length", 400), ("central_share", 0.9), ("scale_span", 2.9),
    ("model", "large")])
def test_another_preparation_makes_new_rows_and_keeps_the_old(name, value, ecg_data, store):
    before, rows = prepare_ecgs(ecg_data, store)
    assert [row for row in rows if isinstance(row, str)] == [rows[3]]
    recipe = dataclasses.replace(script.Recipe(), **{name: value})
    after, changed = prepare_ecgs(ecg_data, store, recipe)
    assert after > before
    assert [i for i in range(12) if changed[i] == rows[i]] == [3]


def test_settings_that_do_not_change_the_rows_share_them(ecg_data, store):
    before = prepare_ecgs(ecg_data, store)
    recipe = script.Recipe(epochs=3, batch_size=8, learning_rate=0.1, lstm_memory=1.0, shift=0.0)
    assert prepare_ecgs(ecg_data, store, recipe) == before
    assert prepare_ecgs(ecg_data, store, seed=1, repeats=2, train_samples=20, jit=False) == before


def test_every_setting_that_prepare_record_reads_is_part_of_the_key(ecg_data):
    """So that no setting is forgotten when one is added."""
    asked = set()

    class Spy:
        def __getattr__(self, name):
            asked.add(name)
            return getattr(script.Recipe(), name)

    script.prepare_record(f"{ecg_data}/{PATHS[0]}", None, Spy())
    assert asked == set(script.PREPARATION)


def test_a_split_is_the_same_for_any_number_of_processes(ecg_data):
    patients = np.arange(12) // 2
    labels = pd.DataFrame({"subject_id": patients, "waveform_path": PATHS[:12],
                           "ecg_category": np.where(patients % 2, "a", "b")})
    results = []
    for jobs in (1, 2):
        settings = script.Settings(data_dir=str(ecg_data), cache=False, jobs=jobs,
                                   train_samples=20)
        results.append(script.load_split("train", labels, ["a", "b"], settings))
    one, two = results
    assert one.left_out == two.left_out
    assert [path for path, _ in one.left_out] == [PATHS[3]]
    pd.testing.assert_frame_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.signals[:], two.signals[:])
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.targets, two.targets)
    for i in (0, 9, 19):    # and each row has its own record
        signal, features, _ = script.prepare_record(ecg_data / one.rows["waveform_path"][i])
        np.testing.assert_array_equal(one.signals[[i]][0], signal)
        np.testing.assert_array_equal(one.features[i], features)


def test_the_cache_is_kept_beside_the_run_unless_told_otherwise(ecg_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def prepare_with(*arguments):
        settings = script.parse_settings(["--jobs", "1", *arguments])
        script.prepare_many(PATHS[:2], str(ecg_data), settings, "")
        return sorted(os.listdir())

    assert prepare_with("--no-cache") == []
    assert prepare_with("--no-cache", "--cache-dir", "mine") == []
    assert prepare_with("--cache-dir", "mine/of today") == ["mine"]
    assert len(files_of(tmp_path / "mine/of today")) == 1
    assert prepare_with() == [".ecg_cache", "mine"]
    assert len(files_of(tmp_path / ".ecg_cache")) == 1


@pytest.mark.slow
def test_a_second_run_of_the_script_reads_nothing_and_reports_the_same(ecg_data, tmp_path):
    (tmp_path / "labels.csv").write_text("".join(
        f"{i // 2},{path},{'ab'[i // 2 % 2]}\n" for i, path in enumerate(PATHS[:12])))

    def run():
        result = subprocess.run(
            [sys.executable, str(ROOT / "too_feature.py"), "--labels", "labels.csv", "--data-dir",
             str(ecg_data), "--output", "m.keras", "--cache-dir", "mine", "--no-jit", "--epochs",
             "1", "--sequence-length", "50", "--train-samples", "20", "--batch-size", "20",
             "--val-samples", "10", "--test-samples", "10", "--max-unusable", "1"],
            cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return re.sub(r"\d+ s\n", "\n", result.stdout), result.stderr

    report, progress = run()
    assert "left out: " in report
    assert "reading train" in progress
    before = files_of(tmp_path / "mine")
    report_again, progress = run()
    assert report_again == report
    assert "reading" not in progress
    assert files_of(tmp_path / "mine") == before
    assert not (tmp_path / script.Settings().cache_dir).exists()
