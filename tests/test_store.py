"""What is promised of preparing many records: any number of processes, and a cache of the results.

A batch is 10 records here, so that a few records make several of them.
"""

import contextlib
import functools
import hashlib
import importlib.util
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
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

import helpers
import too_feature
from too_feature import RecordError, Settings
from tools import make_demo

ROOT = Path(too_feature.__file__).parent
PATHS = [f"files/p{i // 2}/r{i}" for i in range(40)]    # two of each patient
BAD = {7: "file is missing: r7.hea", 13: "file is cut short", 21: "header is damaged"}
BATCH = 10
store = too_feature.tool("store")


def write_records(folder, paths, seed=0):
    """Write valid records of 500 Hz, each with a rate of its own."""
    for i, path in enumerate(paths):
        signal, _ = helpers.simulated(rate=50 + 2 * i, seed=seed + i)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        wfdb.wrsamp(Path(path).name, 500, ["mV"] * 12, list(too_feature.LEADS), fmt=["16"] * 12,
                    d_signal=np.round(signal * make_demo.GAIN).astype(int), baseline=[0] * 12,
                    adc_gain=[make_demo.GAIN] * 12, write_dir=str((folder / path).parent))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of all records, three of which cannot be used; not to be changed."""
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, PATHS)
    (folder / f"{PATHS[7]}.hea").unlink()
    os.truncate(folder / f"{PATHS[13]}.dat", 999)
    (folder / f"{PATHS[21]}.hea").write_text("nonsense\n")
    return folder


@pytest.fixture
def own_data(data, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(data, tmp_path / "own")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setitem(store.prepare.__globals__, "BATCH", BATCH)


@pytest.fixture
def read(monkeypatch):
    """The paths of all records that this process reads, as it reads them."""
    paths, read_record = [], too_feature.read_record

    def listening(path, data_dir):
        paths.append(os.path.relpath(path, data_dir))
        return read_record(path, data_dir)

    monkeypatch.setattr(too_feature, "read_record", listening)
    return paths


def told(rows):
    """Return of each row why it is left out, or a hash of its arrays, their type and shape."""
    return [why or hashlib.sha256(repr([(x.dtype.str, x.shape, x.tobytes()) for x in row])
                                  .encode()).hexdigest() for *row, why in rows]


def prepare(data, cache=None, paths=PATHS, of=too_feature, **settings):
    """Prepare records as a run does, by default in this process; return what `told` says."""
    settings = {"cache_dir": str(cache), "cache": cache is not None, "jobs": 1, **settings}
    return told(of.prepare(list(paths), Settings(**settings), str(data), "reading"))


def one_by_one(data, paths=PATHS, **settings):
    """The same by `prepare_record` alone."""
    rows = []
    for path in paths:
        try:
            rows.append((*too_feature.prepare_record(f"{data}/{path}", str(data),
                                                     Settings(**settings)), ""))
        except RecordError as error:
            rows.append((None, None, str(error)))
    return told(rows)


@pytest.fixture(scope="module")
def expected(data):
    return one_by_one(data)


def files_of(cache):
    """All that is in a cache, by name, scratch files too; {} if it is not there."""
    found = {}
    for file in cache.iterdir() if cache.exists() else ():
        with contextlib.suppress(FileNotFoundError):    # a scratch file that was just moved
            found[file.name] = file.read_bytes()
    return found


def error_of(main, capfd):
    """Run `main`, which has to fail with exit code 2; return the one line it prints besides tqdm's.

    A progress bar is rewritten in its line, and says how far it came before the error.
    """
    assert main() == 2
    lines = [line for line in re.split(r"[\r\n]+", capfd.readouterr().err) if line.strip()]
    lines = [line for line in lines if not re.match(r"reading: +\d+%\|", line)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("too_feature.py: error: ")
    return lines[0]


def prepare_in_main(monkeypatch, data, cache, **settings):
    """Let `too_feature.main` do nothing but prepare the records; return a call of it."""
    monkeypatch.setattr(too_feature, "run", lambda _: prepare(data, cache, **settings))
    return lambda: too_feature.main([])


# The same in a process of its own: `paths`, `data` and `settings` are given, `before` is run first.
IN_A_PROCESS = """
import json, os, signal, sys, time
import numpy as np
import too_feature
paths, data, settings = json.loads(sys.argv[1])
too_feature.tool("store").prepare.__globals__["BATCH"] = 10
print("ready", flush=True)
BEFORE
too_feature.run = lambda _: rows.extend(
    too_feature.prepare(paths, too_feature.Settings(**settings), data, "reading"))
rows = []
code = too_feature.main([])
print(json.dumps([[why or [x.dtype.str, x.shape, x.tobytes().hex()] for x in row]
                  for *row, why in rows]))
sys.exit(code)
"""


@contextlib.contextmanager
def process(data, cache, before="", root=ROOT, paths=PATHS, cwd=None, settings=(), **options):
    """Start such a process; kill it in the end, should it be there still."""
    code = IN_A_PROCESS.replace("BEFORE", before)
    settings = {"cache_dir": str(cache), "cache": cache is not None, "jobs": 1, **dict(settings)}
    child = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps([list(paths), str(data), settings])], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd or root,
        env={**os.environ, "PYTHONPATH": str(root)}, **options)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def told_by(child):
    """Return what a process of `process` prepared, as `told` says it."""
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    rows = json.loads(out.splitlines()[-1])
    return [row[0] if isinstance(row[0], str) else hashlib.sha256(repr([
        (dtype, tuple(shape), bytes.fromhex(content)) for dtype, shape, content in row])
        .encode()).hexdigest() for row in rows]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------- processes
def test_the_records_differ_and_the_bad_ones_are_left_out(expected):
    assert len(set(expected)) == len(PATHS)    # else the order could not be told
    for i, why in BAD.items():
        assert expected[i].startswith(why)
    assert all(re.fullmatch("[0-9a-f]{64}", expected[i]) for i in set(range(40)) - set(BAD))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_any_number_of_processes_gives_the_same_rows_in_the_same_order(
        jobs, cached, data, cache, expected):
    assert prepare(data, cache if cached else None, jobs=jobs) == expected
    assert len(files_of(cache)) == 4 * cached
    if cached:
        assert prepare(data, cache, jobs=jobs) == expected


def test_two_processes_share_the_work_and_do_not_import_tensorflow(data, monkeypatch):
    def reporting(*arguments, **options):    # in a worker, where nothing is patched
        import os
        import sys
        import time

        import too_feature
        time.sleep(0.02)    # s, or the first could have done all before the second is there
        signal, features, why = too_feature.prepare_or_say_why(*arguments, **options)
        if not why:
            features[:2] = os.getpid(), "tensorflow" in sys.modules
        return signal, features, why

    monkeypatch.setattr(too_feature, "prepare_or_say_why", reporting)
    rows = too_feature.prepare(PATHS, Settings(cache=False, jobs=2), str(data), "reading")
    pids, imported = zip(*(features[:2] for _, features, why in rows if not why), strict=True)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert not any(imported)


def test_a_split_is_the_same_for_any_number_of_processes(data):
    labels = pd.DataFrame({"subject_id": np.arange(40) // 2, "waveform_path": PATHS,
                           "ecg_category": np.where(np.arange(40) // 2 % 2, "a", "b")})
    results = []
    for jobs in (1, 2):
        left_out = []
        settings = Settings(data_dir=str(data), cache=False, jobs=jobs, train_samples=60)
        records = too_feature.load_split("train", labels, ["a", "b"], settings, left_out)
        results.append((records, left_out))
    (one, out), (two, out2) = results
    assert out == out2
    assert {path for path, _ in out} == {PATHS[13], PATHS[21]}    # 7 is not on disk: never drawn
    pd.testing.assert_frame_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.signals[:], two.signals[:])
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.targets, two.targets)
    for i in (0, 29, 59):    # and each row has its own record
        signal, features = too_feature.prepare_record(data / one.rows["waveform_path"][i])
        np.testing.assert_array_equal(one.signals[[i]][0], signal)
        np.testing.assert_array_equal(one.features[i], features)


def test_no_records_are_no_rows(data, cache):
    assert prepare(data, cache, paths=[]) == []
    assert files_of(cache) == {}


def test_the_script_copied_alone_prepares_the_same_rows(data, tmp_path, expected):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(ROOT / "too_feature.py", alone)
    check = f"assert too_feature.__file__.startswith({str(alone)!r})"
    code = IN_A_PROCESS.replace('too_feature.tool("store").prepare', "BATCH").replace(
        'BATCH.__globals__["BATCH"] = 10', check)
    assert check in code
    result = subprocess.run(
        [sys.executable, "-c", code.replace("BEFORE", ""),
         json.dumps([PATHS, str(data), {"cache_dir": str(tmp_path / "cache")}])],
        cwd=alone, env={**os.environ, "PYTHONPATH": str(alone)}, capture_output=True, text=True,
        timeout=120)
    assert result.returncode == 0, result.stderr
    finished = subprocess.CompletedProcess([], 0)
    finished.communicate = lambda timeout: (result.stdout, result.stderr)
    found = told_by(finished)
    assert found.pop(13).startswith("cannot be read: ValueError(")    # as wfdb words it
    assert found == expected[:13] + expected[14:]


# ----------------------------------------------------------------------------------------- cache
def test_a_second_preparation_reads_no_record(data, cache, read, expected):
    assert prepare(data, cache) == expected
    assert read == PATHS
    read.clear()
    before = files_of(cache)
    assert prepare(data, cache) == expected
    assert read == []
    assert files_of(cache) == before


@pytest.mark.parametrize(("name", "value"), [
    ("high_pass", 0.6), ("sequence_length", 400), ("central_share", 0.9), ("span", 2.9),
    ("model", "large")])
def test_another_preparation_makes_new_rows_and_keeps_the_old(name, value, data, cache, read,
                                                              expected):
    prepare(data, cache)
    read.clear()
    changed = prepare(data, cache, **{name: value})
    assert read == PATHS
    assert changed == one_by_one(data, **{name: value})
    assert [i for i in range(40) if changed[i] == expected[i]] == list(BAD)
    read.clear()
    assert prepare(data, cache) == expected
    assert read == []


def test_settings_that_do_not_change_the_rows_share_them(data, cache, read):
    rows = prepare(data, cache)
    read.clear()
    changes = {"seed": 1, "epochs": 3, "batch_size": 8, "learning_rate": 0.1, "repeats": 2,
               "jobs": 2, "train_samples": 20, "output": "x.keras", "memory": 1.0, "shift": 0.0,
               "recipe": "best"}
    for name, value in changes.items():
        assert prepare(data, cache, **{name: value}) == rows
    assert read == []
    assert len(files_of(cache)) == 4


def test_every_setting_that_prepare_record_reads_is_part_of_the_name(data):
    """So that no setting is forgotten when one is added."""
    asked = set()

    class Spy:
        def __getattr__(self, name):
            asked.add(name)
            return getattr(Settings(), name)

    too_feature.prepare_record(f"{data}/{PATHS[0]}", None, Spy())
    assert asked == set(too_feature.PREPARATION)


@pytest.mark.parametrize("what", ["another signal", "another header", "another time",
                                  "a longer file", "a record mended", "a record lost"])
def test_a_changed_record_is_prepared_again_and_only_its_batch(what, own_data, cache, read,
                                                              expected):
    i = 7 if what == "a record mended" else 35
    path = own_data / PATHS[i]
    dat, hea = Path(f"{path}.dat"), Path(f"{path}.hea")
    assert prepare(own_data, cache) == expected
    read.clear()
    if what == "another signal":
        write_records(own_data, [PATHS[i]], seed=99)
    elif what == "another header":    # of the same length: half as many mV
        text, gain = hea.read_text(), f"{make_demo.GAIN:g}"
        hea.write_text(re.sub(rf" 16 {gain}(\.0)?\b", lambda match: match[0].replace(
            gain, f"{2 * make_demo.GAIN:g}"), text))
        assert hea.read_text() != text
    elif what == "another time":
        os.utime(dat, (1, 1))
    elif what == "a longer file":
        time_before = dat.stat().st_mtime_ns
        dat.write_bytes(bytes(2400) + dat.read_bytes())
        os.utime(dat, ns=(time_before, time_before))
    elif what == "a record mended":
        write_records(own_data, [PATHS[i]])
    else:
        hea.unlink()
    after = prepare(own_data, cache)
    assert after == one_by_one(own_data)
    if what != "another time":
        assert [j for j in range(40) if after[j] != expected[j]] == [i]
    start = i // BATCH * BATCH
    assert set(read[:BATCH]) == set(PATHS[start:start + BATCH])
    assert len(read) == BATCH + 40    # and those of one_by_one


def test_another_list_of_records_gives_the_rows_of_that_list(data, cache, expected):
    assert prepare(data, cache) == expected
    for places in (range(39, -1, -1), range(5, 25), [3], [4, 3], range(0, 40, 3)):
        assert prepare(data, cache, [PATHS[i] for i in places]) == [expected[i] for i in places]


def test_records_whose_files_have_the_same_size_and_time_are_not_mistaken(
        own_data, cache, expected):
    for path in PATHS[:4]:
        hea = own_data / f"{path}.hea"
        hea.write_text(hea.read_text().ljust(2000, "\n"))
        os.utime(hea, (1, 1))
        os.utime(own_data / f"{path}.dat", (1, 1))
    assert store.stamp(f"{own_data}/{PATHS[0]}") == store.stamp(f"{own_data}/{PATHS[3]}")
    for places in ([0, 1, 2, 3], [3, 2, 1, 0], [1], [2]):
        assert prepare(own_data, cache, [PATHS[i] for i in places]) == [
            expected[i] for i in places]


def test_records_of_another_folder_under_the_same_names_are_not_mistaken(
        data, own_data, cache, expected):
    write_records(own_data, PATHS, seed=50)
    for path in PATHS:    # sizes and times alone could not tell them
        for end in (".hea", ".dat"):
            with contextlib.suppress(FileNotFoundError):
                status = (data / f"{path}{end}").stat()
                os.utime(own_data / f"{path}{end}", ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert prepare(data, cache) == expected
    assert prepare(own_data, cache) == one_by_one(own_data)


def copied_script(folder, pattern, replacement):
    """Return the script as a module, copied with its tools to a folder and there changed."""
    text, n = re.subn(pattern, replacement, (ROOT / "too_feature.py").read_text(), flags=re.M)
    assert n == (pattern != "^never$")
    folder.mkdir()
    (folder / "copied_script.py").write_text(text)
    shutil.copytree(ROOT / "tools", folder / "tools")
    spec = importlib.util.spec_from_file_location("copied_script", folder / "copied_script.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["copied_script"] = module    # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("pattern", "replacement", "again"), [
    ("^never$", "", False),
    (r"^MIN_SECONDS = 9\.5 ", "MIN_SECONDS = 9.4 ", True),
    (r"np\.clip\(scaled, -3, 3\)", "np.clip(scaled, -2, 2)", True),
    (r"(features\[:2\] = lead\.mean\(\))", r"\1 + 1", True),
    (r"^(# -+ evaluate)$", r"\1\n# another line", False),
    (r"^(    seed: int = flag)\(42,", r"\1(43,", False),
    (r"^EPOCHS = 15 ", "EPOCHS = 14 ", False)],
    ids=["nothing", "read", "preprocess", "features", "evaluate", "seed", "epochs"])
def test_changed_code_makes_new_rows_where_it_prepares_and_only_there(
        pattern, replacement, again, data, cache, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "copied_script", None)
    prepare(data, cache, PATHS[:5])
    name, = files_of(cache)
    module = copied_script(tmp_path / "copy", pattern, replacement)
    rows = prepare(data, cache, PATHS[:5], of=module)
    assert set(files_of(cache)) > {name} if again else set(files_of(cache)) == {name}
    assert bool(set(rows) & set(prepare(data, cache, PATHS[:5]))) == ("+ 1" not in replacement
                                                                      and "clip" not in pattern)


# ----------------------------------------------------------------------------------- interrupted
def test_after_an_interruption_only_the_missing_batches_are_prepared(
        data, cache, read, expected, monkeypatch):
    one = too_feature.prepare_or_say_why

    def interrupted(path, *more, **options):
        if path.endswith(PATHS[25]):
            raise KeyboardInterrupt
        return one(path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(too_feature, "prepare_or_say_why", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(data, cache)
    before = files_of(cache)
    assert len(before) == 2
    read.clear()
    assert prepare(data, cache) == expected
    assert read == PATHS[20:]
    assert before.items() < files_of(cache).items()
    assert len(files_of(cache)) == 4


def test_an_interruption_in_the_middle_of_writing_leaves_whole_files_only(
        data, cache, read, expected, monkeypatch):
    write, calls = Path.write_bytes, []

    def half(file, rows):
        calls.append(file)
        if len(calls) == 3:
            write(file, rows.tobytes()[:rows.nbytes // 2])
            raise KeyboardInterrupt
        write(file, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(KeyboardInterrupt):
            prepare(data, cache)
    assert len(files_of(cache)) == 2    # no scratch file either
    read.clear()
    assert prepare(data, cache) == expected
    assert read == PATHS[20:]


KILLED_WHILE_WRITING = """
from pathlib import Path
def half(file, rows, write=Path.write_bytes, calls=[]):
    calls.append(file)
    if len(calls) < 3:
        return write(file, rows)
    write(file, rows.tobytes()[:9999])
    os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = half
"""


def test_a_run_killed_in_the_middle_of_writing_goes_on_where_it_stopped(data, cache, read,
                                                                       expected):
    with process(data, cache, KILLED_WHILE_WRITING) as child:
        child.communicate(timeout=120)
        assert child.returncode == -9
    assert len([name for name in files_of(cache) if not name.startswith(".")]) == 2
    assert prepare(data, cache) == expected
    assert read == PATHS[20:]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1])    # orphaned workers would hold the pipes for minutes
def test_a_run_killed_at_any_moment_goes_on_where_it_stopped(jobs, data, cache, read, expected):
    """The process is killed when a file appears, wherever it then is."""
    for _ in range(3):    # the next goes on, and is killed at its first new file
        shown = len(files_of(cache))
        with process(data, cache, settings={"jobs": jobs}):
            wait_for(lambda n=shown: len(files_of(cache)) > n)
        time.sleep(5)    # s: workers end by themselves when they find their parent dead
        whole = [name for name in files_of(cache) if not name.startswith(".")]
    assert prepare(data, cache) == expected
    assert len(read) == 40 - BATCH * len(whole)


# ------------------------------------------------------------------------------------ two at once
def test_two_runs_at_once_into_the_same_cache_both_succeed(data, cache, read, expected, tmp_path):
    go = tmp_path / "go"
    wait = f"while not os.path.exists({str(go)!r}): time.sleep(0.001)"
    with process(data, cache, wait) as one, process(data, cache, wait) as two:
        for child in (one, two):
            assert child.stdout.readline() == "ready\n"
        go.touch()
        assert told_by(one) == expected
        assert told_by(two) == expected
    assert len(files_of(cache)) == 4
    assert not [name for name in files_of(cache) if name.startswith(".")]
    assert prepare(data, cache) == expected
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
    "1 byte": lambda content: content[:1],
    "half": lambda content: content[:len(content) // 2],
    "less a byte": lambda content: content[:-1],
    "less its end, zeros instead": lambda content: content[:-9999] + bytes(9999),
    "all zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"Not Found\n",
    "long text": lambda content: b"<html>\n" * 20_000,
    "a page of an archive": lambda content: b"PK\x03\x04" + content[4:],
    "an empty archive": lambda content: b"PK\x05\x06" + bytes(18),
    "an archive": lambda content: npz(np.zeros(4)),
    "another array": lambda content: npy(np.zeros((4, 7))),
    "a number": lambda content: npy(np.float64(1)),
    "rows of other fields": lambda content: npy(np.zeros(4, [("a", "<f4"), ("checksum", "<u4")])),
    "fewer rows": lambda content: content[:len(content) // 4 * 3],
    "more rows": lambda content: content + content[:len(content) // 4],
}


def damage_and_prepare(data, cache, read, change, n=4):
    """Damage the cache's one file; return whether that was noticed, having checked the rows."""
    file, = cache.iterdir()
    whole = file.read_bytes()
    damaged = change(whole)
    assert damaged != whole
    file.write_bytes(damaged)
    read.clear()
    rows = prepare(data, cache, PATHS[:n])
    noticed = read == PATHS[:n]
    if noticed:
        assert files_of(cache) == {file.name: whole}    # rebuilt
    else:
        assert read == []
        file.write_bytes(whole)
    return rows, noticed


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_noticed_and_rebuilt(damage, data, cache, read, expected):
    prepare(data, cache, PATHS[:4])
    rows, noticed = damage_and_prepare(data, cache, read, DAMAGED[damage])
    assert rows == expected[:4]
    assert noticed


@pytest.mark.parametrize("part", ["signal", "features", "why left out", "checksum"])
def test_any_byte_that_is_flipped_in_a_row_is_noticed(part, data, cache, read, expected):
    """Row 7 of 8 is one that is left out, and has the reason."""
    prepare(data, cache, PATHS[:8])
    signal, features, reason = 500 * 12 * 4, 8 * 4, 120
    length = signal + features + reason + 4
    places = {"signal": range(0, signal), "features": range(signal, signal + features),
              "why left out": range(signal + features, length - 4),
              "checksum": range(length - 4, length)}[part]
    rng = np.random.default_rng(len(places))
    for row in (0, 3, 7):
        place, bit = int(rng.choice(places)) + row * length, int(rng.integers(8))

        def flip(content, place=place, bit=bit):
            content = bytearray(content)
            assert len(content) == 8 * length
            content[place] ^= 1 << bit
            return bytes(content)

        rows, noticed = damage_and_prepare(data, cache, read, flip, 8)
        assert rows == expected[:8]
        assert noticed


@pytest.mark.parametrize("kind", ["object array", "pickle", "pickle in an archive",
                                  "structured array with objects"])
def test_a_stored_pickle_is_never_run(kind, data, cache, read, expected, tmp_path):
    prepare(data, cache, PATHS[:4])
    proof = tmp_path / "it was run"
    objects = np.array([Dangerous(proof)] * 4, dtype=object)
    structured = np.zeros(4, [("signal", object), ("checksum", "<u4")])
    structured["signal"] = objects
    content = {"object array": npy(objects), "pickle": pickle.dumps(Dangerous(proof)),
               "pickle in an archive": npz(objects),
               "structured array with objects": npy(structured)}[kind]
    rows, noticed = damage_and_prepare(data, cache, read, lambda _: content)
    assert not proof.exists()
    assert rows == expected[:4]
    assert noticed
    pickle.loads(pickle.dumps(Dangerous(proof)))  # noqa: S301 - it would have been
    assert proof.exists()


def test_a_folder_in_a_files_place_is_one_line_that_names_it(data, cache, monkeypatch, capfd):
    prepare(data, cache, PATHS[:4])
    file, = cache.iterdir()
    file.unlink()
    file.mkdir()
    main = prepare_in_main(monkeypatch, data, cache, paths=PATHS[:4])
    assert str(file) in error_of(main, capfd)
    assert os.listdir(cache) == [file.name]


# -------------------------------------------------------------------------------- what goes wrong
def test_more_batches_than_files_may_be_open_at_first_are_no_trouble(data, cache, expected):
    """As on a Mac, where 256 may be, and each batch that is mapped into memory counts."""
    few = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (30, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
too_feature.tool("store").prepare.__globals__["BATCH"] = 1
"""
    for _ in ("cold", "warm"):
        with process(data, cache, few) as child:
            assert told_by(child) == expected
    assert len(files_of(cache)) == 40


def test_a_batch_that_cannot_be_mapped_after_it_was_written_is_one_line(
        data, cache, monkeypatch, capfd):
    monkeypatch.setitem(store.prepare.__globals__, "load", lambda *_: None)
    line = error_of(prepare_in_main(monkeypatch, data, cache), capfd)
    assert str(cache) in line
    assert "--no-cache" in line


def test_workers_of_another_version_of_the_script_are_refused(data, cache):
    one = functools.partial(too_feature.prepare_or_say_why, data_dir=str(data),
                            settings=Settings(), code=too_feature.CODE + "# changed")
    with pytest.raises(too_feature.UserError, match="restart the workers"):
        one(f"{data}/{PATHS[0]}")


def test_the_cache_has_one_place_wherever_workers_are(data, cache, monkeypatch):
    places = []
    monkeypatch.setitem(store.prepare.__globals__, "prepare_batch",
                        lambda file, *_: places.append(file) or (None, ""))
    monkeypatch.chdir(data.parent)
    with contextlib.suppress(too_feature.UserError):
        prepare(data, Path("relative"), paths=PATHS[:4])
    assert [place.parent for place in places] == [data.parent / "relative"]


@pytest.mark.skipif(os.name == "nt", reason="no signals there")
def test_ctrl_c_ends_all_processes_without_a_traceback_and_keeps_what_is_done(
        data, cache, read, expected):
    slow = """
def slowly(*arguments, **options):
    import time, too_feature
    time.sleep(0.1)
    return too_feature.prepare_or_say_why(*arguments, **options)
too_feature.prepare.__globals__["prepare_or_say_why"] = slowly
"""
    with process(data, cache, slow,
                 settings={"jobs": 2}, start_new_session=True) as child:
        wait_for(lambda: [name for name in files_of(cache) if not name.startswith(".")])
        os.killpg(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=60)
        assert child.returncode == 130
        assert "too_feature.py: error: interrupted" in err
        assert "Traceback" not in err
    whole = [name for name in files_of(cache) if not name.startswith(".")]
    assert 0 < len(whole) < 4
    assert prepare(data, cache) == expected


AS_NOBODY = """
if not os.getuid():    # root may do anything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


def test_a_cache_folder_that_is_not_writable_is_one_line_and_one_full_can_be_read(data, expected):
    if not os.getuid() and not all(x.stat().st_mode & 0o001 for x in (ROOT, *ROOT.parents)):
        pytest.skip("others cannot look into the project's folder")
    with tempfile.TemporaryDirectory() as folder:    # pytest's own are closed to others
        os.chmod(folder, 0o755)  # noqa: S103
        shutil.copytree(data / "files/p0", Path(folder) / "files/p0")
        cache = Path(folder) / "cache"
        cache.mkdir(mode=0o555)
        with process(folder, cache, AS_NOBODY, paths=PATHS[:2]) as child:
            _, err = child.communicate(timeout=120)
        assert child.returncode == 2
        assert re.match(rf"too_feature\.py: error: (reading: )?{cache}/", err.splitlines()[-1])
        assert "Traceback" not in err
        assert not list(cache.iterdir())
        cache.chmod(0o755)
        assert prepare(folder, cache, PATHS[:2]) == expected[:2]
        cache.chmod(0o555)
        with process(folder, cache, AS_NOBODY + "too_feature.read_record = None",
                     paths=PATHS[:2]) as child:
            assert told_by(child) == expected[:2]
        cache.chmod(0o755)


@pytest.mark.parametrize("where", ["a file", "below a file"])
def test_a_cache_folder_that_cannot_be_made_is_one_line(where, data, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").touch()
    folder = tmp_path / ("file" if where == "a file" else "file/folder")
    assert str(folder) in error_of(prepare_in_main(monkeypatch, data, folder), capfd)


def test_on_a_full_disk_a_run_goes_on_without_the_cache_and_says_so_once(
        data, cache, expected, monkeypatch, capfd):
    write = Path.write_bytes

    def full(file, rows):
        write(file, b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert prepare(data, cache) == expected
    line, = capfd.readouterr().out.splitlines()
    assert line.startswith("notice: ")
    assert "No space left on device" in line
    assert str(cache) in line
    assert files_of(cache) == {}


def test_a_file_that_may_not_grow_is_one_line_and_leaves_nothing(data, cache):
    """As on a full disk, by the system itself: files may have 100 kB, and a batch has 240."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    with process(data, cache, limit) as child:
        _, err = child.communicate(timeout=120)
    assert child.returncode == 2
    assert err.splitlines()[-1].startswith(f"too_feature.py: error: {cache}")
    assert "Traceback" not in err
    assert files_of(cache) == {}


def test_a_process_that_is_killed_is_one_line_and_finished_batches_are_kept(
        data, cache, read, expected, monkeypatch, capfd):
    def dying(path, *more, last=PATHS[-1], cache=str(cache), **options):
        import os
        import signal
        import time

        import too_feature
        if path.endswith(last):
            for _ in range(3000):    # until the others are there
                if len([name for name in os.listdir(cache) if name[0] != "."]) == 3:
                    break
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return too_feature.prepare_or_say_why(path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(too_feature, "prepare_or_say_why", dying)
        line = error_of(prepare_in_main(patch, data, cache, jobs=2), capfd)
    assert "killed" in line
    assert "--jobs 1" in line
    assert len(files_of(cache)) == 3
    assert prepare(data, cache) == expected
    assert read == PATHS[30:]


def test_without_dask_one_line_says_what_to_install(data, cache, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "distributed", None)
    main = prepare_in_main(monkeypatch, data, cache, scheduler="tcp://127.0.0.1:1")
    assert "pip install distributed" in error_of(main, capfd)
    assert files_of(cache) == {}


# --------------------------------------------------------------------------------------- signals
@pytest.fixture
def stored(data, cache):
    """The usable signals, in the cache, and the same as one array."""
    prepare(data, cache)
    rows = too_feature.prepare(PATHS, Settings(cache_dir=str(cache), jobs=1), str(data), "")
    rows = [signal for signal, _, why in rows if not why]
    return store.Signals(rows), np.array(rows)


@pytest.mark.parametrize("index", [
    0, 5, -1, np.int64(3), slice(None), slice(3, 9), slice(None, None, -7), slice(5, 5),
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
    """Whether an array's memory is that of a file."""
    while isinstance(array, np.ndarray | np.void):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return type(array).__name__ == "mmap"


def test_stored_signals_stay_on_disk_until_they_are_asked_for(data, cache):
    prepare(data, cache)
    settings = Settings(cache_dir=str(cache), jobs=1)
    tracemalloc.start()
    try:
        rows = too_feature.prepare(PATHS, settings, str(data), "")
        signals = store.Signals([signal for signal, _, why in rows if not why])
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        four = signals[[0, 9, 20, 36]]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(mapped(signal) for signal, _, why in rows if not why)
    one = four.nbytes / 4
    assert kept < 5 * one    # of 37
    assert 4 * one < peak - kept < 8 * one


# -------------------------------------------------------------------------------------- settings
def test_the_cache_is_kept_beside_the_run_unless_told_otherwise(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def prepare_with(*arguments):
        settings = too_feature.parse_settings(["--jobs", "1", *arguments])
        too_feature.prepare(PATHS[:2], settings, str(data), "")
        return sorted(os.listdir())

    assert prepare_with("--no-cache") == []
    assert prepare_with("--no-cache", "--cache-dir", "mine") == []
    assert prepare_with("--cache-dir", "mine/of today") == ["mine"]
    assert len(files_of(tmp_path / "mine/of today")) == 1
    assert prepare_with() == [".ecg_cache", "mine"]
    assert len(files_of(tmp_path / ".ecg_cache")) == 1


def test_git_passes_over_the_cache():
    assert f"/{Settings().cache_dir}/" in (ROOT / ".gitignore").read_text().split()


@pytest.mark.slow
def test_a_second_run_of_the_script_reads_nothing_and_reports_the_same(data, tmp_path):
    (tmp_path / "labels.csv").write_text("".join(
        f"{i // 2},{path},{'ab'[i // 2 % 2]}\n" for i, path in enumerate(PATHS)))

    def run():
        result = subprocess.run(
            [sys.executable, str(ROOT / "too_feature.py"), "--labels", "labels.csv", "--data-dir",
             str(data), "--output", "m.keras", "--cache-dir", "mine", "--no-jit", "--epochs", "1",
             "--sequence-length", "50", "--train-samples", "20", "--batch-size", "20",
             "--val-samples", "10", "--test-samples", "10"],
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
    assert not (tmp_path / Settings().cache_dir).exists()
