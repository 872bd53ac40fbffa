"""Without room, rights or memory a run ends in one line that says why, and older work survives.

Disks are filled, folders closed and memory limited for real, where the tests may do that.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ecg import files, models
from ecg.errors import UserError
from tests.support import faults
from tests.support.runs import LABELS, ROOT, once

SLOW = pytest.mark.slow
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts and limits")
FEW = ["--epochs", "2"]

STARVED = """
import ctypes

def fill(folder):
    with open(Path(folder) / "junk", "wb") as junk:
        while True:
            junk.write(bytes(4096))
            junk.flush()

def full_at(pattern, n=1):    # from the n-th time on that such a file is written
    def writing(path, write, *owner):
        if nth(path, pattern, n):
            try:
                fill(os.getcwd())
            except OSError as error:
                assert error.errno == 28
        return write_whole(path, write, *owner)
    files.write_whole = writing

def full_before(owner, name, n=1):
    function = getattr(owner, name)
    def filling(*arguments, **options):
        if nth(name, name, n):
            try:
                fill(os.getcwd())
            except OSError as error:
                assert error.errno == 28
        return function(*arguments, **options)
    setattr(owner, name, filling)

def obey_permissions():    # root may do anything by its capabilities: give them up
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
"""


@pytest.fixture(scope="module")
def run(server):
    return server


@pytest.fixture
def older(whole):
    """A good model and its results, of an older run."""
    return whole("plain")


@pytest.fixture(scope="module")
def few(run, tmp_path_factory):
    """What a run of `FEW` leaves where nothing is in its way."""
    def make(folder):
        assert run(folder, *FEW) == 0
    return once(tmp_path_factory, "a run of few epochs", make)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder],
                                     capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def check_older(folder, older):
    """The older model and results are as they were."""
    assert faults.outcome(folder) == faults.outcome(older)
    models.read_card(folder / "model.keras")


# ------------------------------------------------------------------------------------- disk full
@pytest.mark.parametrize(("file", "fault"), [
    ("state.npz", "full_at('state.npz', 2)"),
    pytest.param("model.keras", r"full_at(r'model\.keras$')", marks=SLOW),
    pytest.param("progress/0/history.csv", "full_at('0/history.csv')", marks=SLOW),
    pytest.param("model.json", r"full_before(files, 'sha256', 4)", marks=SLOW)])
def test_on_a_full_disk_the_older_model_survives_and_resume_goes_on_when_there_is_room(
        file, fault, run, older, small_disk, tmp_path):
    shutil.copytree(older, small_disk, dirs_exist_ok=True)
    new = [*FEW, "--learning-rate", "0.01"]
    assert run(small_disk, *new, before=STARVED + fault, logs=tmp_path) == 2
    (small_disk / "junk").unlink()
    error = faults.error_of(tmp_path)
    assert file in error
    assert "No space left on device" in error
    assert "choose another folder" in error
    assert not faults.scratch_files(small_disk)
    check_older(small_disk, older)
    if file != "model.json":
        assert run(small_disk, *new, "--resume") == 0
        card = models.read_card(small_disk / "model.keras")
        assert card["recipe"]["learning_rate"] == 0.01


@pytest.mark.parametrize(("file", "fault", "more"), [
    pytest.param("report.txt", "full_at('report.txt')", [], marks=SLOW),
    pytest.param("examples.npz", "full_at('examples.npz')", [], marks=SLOW),
    pytest.param(".p", "import matplotlib.figure as f; full_before(f.Figure, 'savefig', 3)",
                 ["--figures"], marks=SLOW)])
def test_on_a_full_disk_the_new_model_is_saved_though_its_results_are_not(
        file, fault, more, run, small_disk, tmp_path):
    assert run(small_disk, *FEW, *more, before=STARVED + fault, logs=tmp_path) == 2
    (small_disk / "junk").unlink()
    error = faults.error_of(tmp_path)
    assert file in error
    assert "No space left on device" in error
    assert models.read_card(small_disk / "model.keras")["metrics"]
    assert not faults.scratch_files(small_disk)


def test_where_what_a_run_prints_finds_no_room_it_ends_in_one_line(run, tmp_path):
    full = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1); sys.stdout.reconfigure(write_through=1)"
    assert run(tmp_path, *FEW, before=full) == 2
    assert "No space left on device" in faults.error_of(tmp_path)


@SLOW
def test_where_the_disk_of_the_cache_is_full_a_run_goes_on_without_and_reports_the_same(
        run, few, small_disk, tmp_path):
    with contextlib.suppress(OSError), (small_disk / "junk").open("wb", buffering=0) as junk:
        while True:
            junk.write(bytes(4096))
    assert run(tmp_path, *FEW, "--cache-dir", str(small_disk / "cache")) == 0
    printed = (tmp_path / "out.txt").read_text()
    assert printed.count("No space left on device") == 3    # once for each split
    assert printed.count("this run goes on") == 3
    assert faults.outcome(tmp_path) == faults.outcome(few)


# -------------------------------------------------------------------------- closed or no folders
@pytest.mark.parametrize(("closed", "words"), [
    ("out", "--output out/model.keras: expected a .keras file in a writable folder"),
    ("results", "results"), ("results/model", "results/model"),
    ("cache", "cache/")])
def test_a_closed_folder_is_one_line_before_any_training(closed, words, run, older, tmp_path):
    shutil.copytree(older, tmp_path, dirs_exist_ok=True)
    shutil.copytree(older / "results", tmp_path / "results", dirs_exist_ok=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "cache").mkdir()
    if closed == "results":
        shutil.rmtree(tmp_path / "results/model")
    if closed == "results/model":
        (tmp_path / "results/model/.lock").unlink()
    (tmp_path / closed).chmod(0o555)
    output = ["--output", "out/model.keras"] if closed == "out" else []
    code = run(tmp_path, *FEW, *output, "--cache-dir", "cache",
               before=STARVED + "obey_permissions()")
    (tmp_path / closed).chmod(0o755)
    assert code == 2
    assert words in faults.error_of(tmp_path)
    assert "epoch" not in (tmp_path / "out.txt").read_text()
    if closed != "results":
        check_older(tmp_path, older)


@pytest.mark.parametrize(("place", "arguments", "early"), [
    ("results", [], True), ("results/model", [], True),
    ("out", ["--output", "out/model.keras"], True),
    ("none", ["--output", "nowhere/model.keras"], True),
    ("cache", ["--cache-dir", "cache"], True),
    ("results/model/progress", [], True), ("results/model/figures", [], True),
    ("results/model/report.txt/", [], True),
    ("results/model/split.csv/", [], True),
    pytest.param("results/model/progress/0/state.npz/", ["--resume"], False, marks=SLOW)])
def test_something_else_in_the_place_of_a_folder_or_file_is_one_line_that_names_it(
        place, arguments, early, run, tmp_path):
    wrong = tmp_path / place
    wrong.parent.mkdir(parents=True, exist_ok=True)
    if place.endswith("/"):
        wrong.mkdir()
        (wrong / "something").touch()
    else:
        wrong.touch()
    assert run(tmp_path, *FEW, *arguments) == 2
    error = faults.error_of(tmp_path)
    assert (arguments[-1] if arguments[:1] == ["--output"] else place.rstrip("/")) in error
    assert ("epoch" in (tmp_path / "out.txt").read_text()) <= (not early)


# ------------------------------------------------------------------------------------ two at once
def test_a_second_run_of_the_same_model_is_refused_before_any_work(run, older, tmp_path):
    shutil.copytree(older, tmp_path, dirs_exist_ok=True)
    files.claim(tmp_path / "results/model")    # as another run: in another process
    assert run(tmp_path, *FEW) == 2
    assert "another run is writing to results/model" in faults.error_of(tmp_path)
    assert "reading" not in (tmp_path / "err.txt").read_text()
    check_older(tmp_path, older)


@SLOW
def test_two_runs_at_once_with_other_outputs_both_end_well_and_share_the_cache(
        demo_dir, few, tmp_path):
    def start(name):
        return faults.start(tmp_path, demo_dir, *FEW, "--output", f"{name}.keras",
                            stderr=subprocess.PIPE)

    first, other = start("model"), start("other")
    assert any(line.startswith("using ") for line in first.stdout)    # after claiming its folder
    first.send_signal(signal.SIGSTOP)    # so that it cannot end before the second run asks
    second = start("model")
    assert "another run is writing" in second.communicate(timeout=faults.HANG)[1]
    assert second.returncode == 2
    first.send_signal(signal.SIGCONT)
    for child in (first, other):
        child.communicate(timeout=faults.HANG)
        assert child.returncode == 0
    assert faults.outcome(tmp_path) == faults.outcome(tmp_path, "other") == faults.outcome(few)
    assert len(list((tmp_path / ".ecg_cache").iterdir())) == 3


# ---------------------------------------------------------------------------------------- memory
@pytest.fixture
def limited():
    """Return a function that puts the calling process under a limit of so many MB of memory."""
    name = f"ecg-test-{os.getpid()}"
    old, new = Path("/sys/fs/cgroup/memory") / name, Path("/sys/fs/cgroup") / name
    group, file = (old, "memory.limit_in_bytes") if old.parent.exists() else (new, "memory.max")
    try:
        group.mkdir()
        (group / file).write_text("1500M")
    except OSError:
        if group.exists():
            group.rmdir()
        pytest.skip("may not limit memory")

    def limit(megabytes):
        (group / file).write_text(f"{megabytes}M")
        (group / "cgroup.procs").write_text(str(os.getpid()))

    def is_removed():
        with contextlib.suppress(OSError):
            group.rmdir()
        return not group.exists()

    yield limit
    faults.wait_for(is_removed)


def program(folder, demo_dir, limit, megabytes, *arguments):
    """Run the demo with default settings but for these arguments, under a limit of memory."""
    command = [sys.executable, str(ROOT / "too_feature.py"), "--labels", str(LABELS), "--data-dir",
               str(demo_dir), "--no-figures", "--output", "model.keras"]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True,
                          timeout=600, preexec_fn=lambda: limit(megabytes))


@SLOW
def test_the_demo_runs_in_1500_mb_of_memory(demo_dir, limited, tmp_path):
    done = program(tmp_path, demo_dir, limited, 1500, "--epochs", "2")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "model.json").read_text())["settings"]["train_samples"] == 1500


@SLOW
def test_a_run_that_the_system_kills_for_lack_of_memory_goes_on_when_there_is_more(
        run, few, demo_dir, limited, tmp_path):
    tiny = [*faults.TINY[2:], *FEW]
    done = program(tmp_path, demo_dir, limited, 250, *tiny)
    assert done.returncode == -signal.SIGKILL
    done = program(tmp_path, demo_dir, limited, 1500, *tiny, "--resume")
    assert done.returncode == 0, done.stderr
    assert faults.outcome(tmp_path) == faults.outcome(few)


def workers_of(child):
    """Return the ids of joblib's workers that a process has started."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{name}/cmdline").read_text()
            parent = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1]
            if parent == str(child.pid) and "popen_loky" in command:
                found.append(int(name))
    return found


@SLOW
def test_a_worker_that_the_system_kills_is_one_line(demo_dir, tmp_path):
    child = faults.start(tmp_path, demo_dir, "--jobs", "2", "--no-cache", "--train-samples", "400",
                         stdout=subprocess.DEVNULL)
    faults.wait_for(lambda: workers_of(child), child)
    os.kill(workers_of(child)[0], signal.SIGKILL)
    assert child.wait(faults.HANG) == 2
    assert "was killed (out of memory?)" in faults.error_of(tmp_path)


def test_what_cannot_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x: .*choose another folder"):
        files.write_whole(tmp_path / "file/x", lambda file: file.write_text(""))
