"""Killed or stopped at any moment, a run loses at most its current epoch and says how to go on.

Processes get a real SIGKILL, SIGINT or SIGTERM at a chosen moment (tests/support/faults.py).
"""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg import checkpoint, files, models
from tests.support import faults
from tests.support.runs import LABELS, once, python

SLOW = pytest.mark.slow
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no such signals")

PLAIN = faults.PLAIN


@pytest.fixture(scope="module")
def run(server):
    """Start a run whose validation takes the course of the whole ones."""
    return lambda folder, *arguments, before="": server(
        folder, *arguments, before=f"{faults.COURSE}\n{before}")


def printed(folder):
    return (folder / "out.txt").read_text()


def epochs_run(folder):
    return [int(x) for x in re.findall(r"^epoch +(\d+)/", printed(folder), re.M)]


@pytest.mark.parametrize(("way", "rates"), [
    ("plain", [0.1, 0.1, 0.1, 0.1, 0.05]),
    pytest.param("stopped early", [0.0005] * 5, marks=SLOW)])    # of nine epochs
def test_the_runs_have_all_that_resuming_could_lose(way, rates, whole):
    history = pd.read_csv(whole(way) / "results/model/history.csv")
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-6)
    assert history["val_accuracy"].idxmax() == 2


# ---------------------------------------------------------------------------------------- killed
# Moment: how to die there, and after which epoch the next run goes on
BATCH = "keras.callbacks.CallbackList, 'on_train_batch_begin'"    # ten of them in an epoch
MOMENTS = {
    "while a batch of the cache is written": (r"die_half_written(r'\.rows$', 2)", 0),
    "while the first state is written": ("die_half_written('state.npz')", 0),
    "just before the state of epoch 3 is moved": ("die_before_moving('state.npz', 3)", 2),
    "just after that of epoch 4, before the log is": ("die_before_moving('0/history.csv', 4)", 4),
    "in the middle of epoch 5": (f"die_in({BATCH}, 45)", 4),
    "while the state of epoch 5 is written": ("die_half_written('state.npz', 5)", 4),
    "while the model is written": (r"die_half_written(r'model\.keras$')", 5),
    "between the model and its card": (r"die_after_moving(r'model\.keras$')", 5),
    "during evaluation": ("die_in(script, 'evaluate')", 5),
    "while the second card is written": (r"die_half_written(r'model\.json', 2)", 5),
    "while results are written": ("die_half_written('predictions.csv')", 5),
}
FAST = "in the middle of epoch 5"


@pytest.mark.parametrize("moment", [
    pytest.param(moment, marks=() if moment == FAST else SLOW) for moment in MOMENTS])
def test_a_run_killed_at_any_moment_goes_on_and_ends_as_if_it_had_not_been(
        moment, run, whole, tmp_path):
    fault, done = MOMENTS[moment]
    cache = ["--cache-dir", str(tmp_path / "cache")] if "cache" in moment else []
    assert run(tmp_path, *PLAIN, *cache, before=fault) == -signal.SIGKILL
    assert run(tmp_path, *PLAIN, *cache, "--resume") == 0
    assert ("nothing to go on from" in printed(tmp_path)) == (not done)
    assert epochs_run(tmp_path) == list(range(done + 1, 6))
    assert faults.outcome(tmp_path) == faults.outcome(whole("plain"))
    assert not faults.scratch_files(tmp_path / "results")
    assert not list(tmp_path.glob("model*.new"))


@pytest.mark.parametrize(("way", "fault", "again"), [
    pytest.param("stopped early", "die_in(metrics, 'fit_temperature')", [], marks=SLOW),
    pytest.param("stopped early", "die_before_moving('state.npz', 5)", [5], marks=SLOW),
    pytest.param("on a cosine", "die_after_moving('state.npz', 3)", [4, 5], marks=SLOW),
    pytest.param("an ensemble", f"die_in({BATCH}, 35)", [2], marks=SLOW),    # the second's
    pytest.param("with figures", "import matplotlib.figure as f; die_in(f.Figure, 'savefig', 4)",
                 [], marks=SLOW)])
def test_so_does_a_run_of_another_kind(way, fault, again, run, whole, tmp_path):
    assert run(tmp_path, *faults.WAYS[way], before=fault) == -signal.SIGKILL
    assert run(tmp_path, *faults.WAYS[way], "--resume") == 0
    assert epochs_run(tmp_path) == again
    assert faults.outcome(tmp_path) == faults.outcome(whole(way))
    if "figures" in way:
        for file in (whole(way) / "results").rglob("*.p[dn][fg]"):
            other = tmp_path / file.relative_to(whole(way))
            assert other.read_bytes() == file.read_bytes(), file.name
        assert not faults.scratch_files(tmp_path / "results")


@SLOW
def test_so_does_one_that_trains_all_weights_of_another_model_further(run, whole, tmp_path):
    start = whole("plain") / "model.keras"
    flags = ["--start-from", str(start), "--adapt", "all", "--epochs", "4"]
    # Validation patients speak for what was trained: else the start would be kept by both
    better = "s = iter([(0, 0), (1, 0)]); script.adaptation.score = lambda *_: next(s)"
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    assert run(folders[0], *flags, before=better) == 0
    assert "kept: trained further" in printed(folders[0])
    dying = f"{better}\ndie_in({BATCH}, 25)"
    assert run(folders[1], *flags, before=dying) == -signal.SIGKILL
    assert run(folders[1], *flags, "--resume", before=better) == 0
    assert epochs_run(folders[1]) == [3, 4]
    assert faults.outcome(folders[1]) == faults.outcome(folders[0])


@SLOW
def test_a_run_killed_twice_in_a_row_goes_on_both_times(run, whole, tmp_path):
    assert run(tmp_path, *PLAIN, before="die_before_moving('state.npz', 3)") == -signal.SIGKILL
    assert run(tmp_path, *PLAIN, "--resume",
               before="die_half_written('state.npz', 2)") == -signal.SIGKILL
    assert epochs_run(tmp_path) == [3, 4]    # 4 was over, but not kept
    assert run(tmp_path, *PLAIN, "--resume") == 0
    assert epochs_run(tmp_path) == [4, 5]
    assert faults.outcome(tmp_path) == faults.outcome(whole("plain"))


def test_a_finished_run_resumed_trains_nothing_and_reports_the_same(run, whole, tmp_path):
    shutil.copytree(whole("plain"), tmp_path, dirs_exist_ok=True)
    assert run(tmp_path, *PLAIN, "--resume") == 0
    assert epochs_run(tmp_path) == []
    assert faults.outcome(tmp_path) == faults.outcome(whole("plain"))


CALLS = """
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call"
    if calls == LAST:
        die()
sys.setprofile(count)
main = script.main
def count_and_run(arguments):
    code = main(arguments)
    sys.setprofile(None)
    Path("calls.txt").write_text(str(calls))
    return code
script.main = count_and_run
LAST = """


@SLOW
def test_a_run_killed_at_calls_drawn_at_random_ends_as_if_it_had_not_been(run, whole, tmp_path):
    for folder in ("counted", "killed"):
        (tmp_path / folder).mkdir()
    cache = ["--cache-dir", "cache"]
    assert run(tmp_path / "counted", *PLAIN, *cache, before=f"{CALLS}-1") == 0
    n_calls = int((tmp_path / "counted/calls.txt").read_text())

    dice = random.Random(0)  # noqa: S311
    codes = [run(tmp_path / "killed", *PLAIN, *cache, "--resume",
                 before=f"{CALLS}{dice.randrange(n_calls)}") for _ in range(8)]
    assert -signal.SIGKILL in codes
    assert set(codes) <= {0, -signal.SIGKILL}
    assert run(tmp_path / "killed", *PLAIN, *cache, "--resume") == 0
    assert faults.outcome(tmp_path / "killed") == faults.outcome(whole("plain"))


# ------------------------------------------------------------------------------- an older model
@pytest.mark.parametrize(("fault", "seed"), [
    pytest.param(r"die_half_written(r'model\.keras$')", 42, marks=SLOW),
    pytest.param(r"die_half_written(r'model\.json')", 42, marks=SLOW),
    pytest.param(r"die_before_moving(r'model\.keras$')", 42, marks=SLOW),
    pytest.param(r"die_after_moving(r'model\.keras$')", 7, marks=SLOW),
    pytest.param(r"die_before_moving(r'model\.json$')", 7, marks=SLOW),
    pytest.param(r"die_half_written(r'model\.json', 2)", 7, marks=SLOW)])
def test_at_any_moment_of_saving_there_is_a_whole_model_with_its_card(
        fault, seed, run, whole, tmp_path):
    """The older run's, or the newer's: never a mixture, which classify would refuse."""
    shutil.copytree(whole("plain"), tmp_path, dirs_exist_ok=True)
    assert run(tmp_path, "--epochs", "1", "--seed", "7", before=fault) == -signal.SIGKILL
    card = models.read_card(tmp_path / "model.keras")
    assert card["settings"]["seed"] == seed
    assert card["model_sha256"] == files.sha256(tmp_path / "model.keras")
    if seed == 42:
        assert faults.weights(tmp_path / "model.keras") == faults.weights(
            whole("plain") / "model.keras")


def test_the_new_card_is_used_until_it_is_in_place(whole, tmp_path):
    """As after a kill between the two moves: the model opens, and not with the older card."""
    model = tmp_path / "model.keras"
    shutil.copy(whole("plain") / "model.keras", model)
    shutil.copy(whole("plain") / "model.json", tmp_path / "model.json.new")
    other = json.dumps({"model_sha256": "0" * 64})
    (tmp_path / "model.json").write_text(other)
    assert models.read_card(model)["settings"]["seed"] == 42
    (tmp_path / "model.json.new").write_text(other)
    with pytest.raises(ValueError, match="describes another model"):
        models.read_card(model)


def leave(folder, name, claimed):
    """Leave a half-written file in a folder, as a run that has claimed a folder would."""
    code = ("import os, sys; from ecg import files; files.claim(sys.argv[1]);"
            "files.write_whole(sys.argv[2], lambda file: (file.touch(), os._exit(0)))")
    subprocess.run([sys.executable, "-c", code, claimed, folder / name], cwd=files.ROOT, check=True)


def test_what_kills_left_half_written_is_removed_but_never_what_another_run_writes(tmp_path):
    own, shared = tmp_path / "own", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    leave(own / "progress/0", "state.npz", own)
    leave(shared, "mine", own)            # in the cache, or next to the model
    leave(shared, "fresh", tmp_path / "other")
    now = time.time()
    for name, when in (("stale", now - 4000), ("future", now + 10**6), ("soon", now + 100)):
        leave(shared, name, tmp_path / "other")
        left, = shared.glob(f".*-{name}")
        os.utime(left, (when, when))
    foreign = shared / ".0f-notes"
    foreign.touch()
    os.utime(foreign, (1, 1))
    files.claim(own, (shared, tmp_path / "nowhere"))
    assert not list((own / "progress/0").iterdir())
    assert sorted(file.name.split("-")[-1] for file in shared.iterdir()) == [
        "fresh", "notes", "soon"]


# --------------------------------------------------------------------------------------- refused
@pytest.fixture(scope="module")
def interrupted(run, tmp_path_factory):
    def make(folder):
        assert run(folder, *PLAIN, before="die_after_moving('state.npz', 2)") == -signal.SIGKILL
    return once(tmp_path_factory, "interrupted run", make)


class Dangerous:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (self.proof,)


def damage(state, how, proof):
    content = dict(np.load(state))
    if how == "truncated":
        state.write_bytes(state.read_bytes()[:-5000])
    elif how == "a byte changed":
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 255
        state.write_bytes(content)
    elif how == "empty":
        state.write_bytes(b"")
    elif how == "a foreign archive":
        np.savez(state, x=np.zeros(3))
    elif how == "an array missing":
        np.savez(state, **{name: x for name, x in content.items() if name != "variable 3"})
    elif how == "an array of another shape":
        np.savez(state, **{**content, "variable 3": np.zeros((2, 2))})
    elif how == "an object that runs code":
        np.savez(state, **{**content, "variable 3": np.array([Dangerous(proof)], object)})
    elif how == "a pickle":
        np.array([Dangerous(proof)], object).dump(state)


DAMAGES = ("truncated", "a byte changed", "empty", "a foreign archive", "an array missing",
           "an array of another shape", "an object that runs code", "a pickle")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_state_that_cannot_be_trusted_is_not_loaded(how, interrupted, tmp_path):
    state, proof = tmp_path / "state.npz", tmp_path / "proof"
    shutil.copy(interrupted / "results/model/progress/0/state.npz", state)
    key = json.loads(np.load(state)["notes"].item())["key"]
    checkpoint.load(state, key)
    damage(state, how, str(proof))
    with pytest.raises(ValueError, match=r"state\.npz is damaged .* without --resume"):
        checkpoint.load(state, key)
    assert not proof.exists()


@pytest.mark.parametrize("how", [
    pytest.param(how, marks=() if how == "an object that runs code" else SLOW) for how in DAMAGES])
def test_a_state_that_cannot_be_trusted_is_refused_in_one_line_and_runs_nothing(
        how, run, interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    state = tmp_path / "results/model/progress/0/state.npz"
    damage(state, how, str(tmp_path / "proof"))
    before = state.read_bytes()
    assert run(tmp_path, *PLAIN, "--resume") == 2
    assert "state.npz" in faults.error_of(tmp_path)
    assert "without --resume" in faults.error_of(tmp_path)
    assert not (tmp_path / "proof").exists()
    assert state.read_bytes() == before
    assert not (tmp_path / "model.keras").exists()


@pytest.mark.parametrize(("name", "arguments"), [
    ("batch_size", ["--batch-size", "8"]), ("records", []),
    pytest.param("seed", ["--seed", "43"], marks=SLOW)])
def test_other_settings_or_records_are_refused_in_one_line_that_names_them(
        name, arguments, run, interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    if name == "records":
        text = LABELS.read_text().splitlines(keepends=True)
        (tmp_path / "labels.csv").write_text("".join(text[30:]))
        arguments = ["--labels", "labels.csv"]
    assert run(tmp_path, *PLAIN, *arguments, "--resume") == 2
    assert name in faults.error_of(tmp_path)
    assert "without --resume" in faults.error_of(tmp_path)


# --------------------------------------------------------------------------------------- stopped
STOPPED = """
def forever():    # as in C++ code that sees no signal
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    threading.Event().wait()

def stop_in(owner, name, number, n=1):
    function = getattr(owner, name)
    def stopping(*arguments, **options):
        if nth(name, name, n):
            os.kill(os.getpid(), number)
            forever()
        return function(*arguments, **options)
    setattr(owner, name, stopping)

sys.argv = ["too_feature.py", "--data-dir", "it's here", "--resume"]
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupt.watch("too_feature.py")
"""


@pytest.mark.parametrize(("where", "number"), [
    ("stop_in(script, 'read_record', signal.SIGINT, 9)", signal.SIGINT),
    pytest.param(f"stop_in({BATCH}, signal.SIGTERM, 25)", signal.SIGTERM, marks=SLOW),
    pytest.param("stop_in(script, 'evaluate', signal.SIGINT)", signal.SIGINT, marks=SLOW),
    pytest.param("import matplotlib.figure as f; stop_in(f.Figure, 'savefig', signal.SIGINT, 3)",
                 signal.SIGINT, marks=SLOW)])
def test_a_stopped_run_ends_whatever_it_is_doing_with_one_line_that_says_how_to_go_on(
        where, number, run, tmp_path):
    cache = ["--no-cache"] if "read_record" in where else []
    figures = ["--figures"] if "figure" in where else []
    assert run(tmp_path, *PLAIN, *cache, *figures, before=STOPPED + where) == 128 + number
    line = faults.error_of(tmp_path)
    assert line.startswith("too_feature.py: stopped; ")
    assert line.endswith(": python too_feature.py --data-dir 'it'\"'\"'s here' --resume")


def start(folder, demo_dir, *arguments, **options):
    return faults.start(folder, demo_dir, *PLAIN, *arguments, **options,
                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def stop(child, number=signal.SIGINT):
    """Stop a process and all that it started, as a terminal does; return the exit code."""
    os.killpg(child.pid, number)
    child.communicate(timeout=faults.HANG)
    return child.returncode


@pytest.mark.parametrize(("module", "number"), [
    ("pandas", signal.SIGINT), ("tensorflow", signal.SIGTERM)])
def test_an_import_that_never_ends_can_be_stopped(module, number, demo_dir, tmp_path):
    (tmp_path / "imports").mkdir()
    (tmp_path / f"imports/{module}.py").write_text(
        "import pathlib, threading\npathlib.Path('importing').touch()\nthreading.Event().wait()")
    child = start(tmp_path, demo_dir,
                  env={**os.environ, "PYTHONPATH": str(tmp_path / "imports")})
    faults.wait_for((tmp_path / "importing").exists, child)
    assert stop(child, number) == 128 + number
    assert "--resume" in faults.error_of(tmp_path)


@SLOW
@pytest.mark.skipif(not os.path.exists("/proc"), reason="looks for TensorFlow there")
def test_tensorflow_can_be_stopped_while_it_loads(demo_dir, tmp_path):
    child = start(tmp_path, demo_dir)
    faults.wait_for(lambda: "tensorflow" in Path(f"/proc/{child.pid}/maps").read_text(), child)
    assert stop(child) == 130
    assert "--resume" in faults.error_of(tmp_path)


@SLOW
def test_the_command_that_a_stopped_run_names_ends_as_if_it_had_not_been(demo_dir, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    assert start(whole, demo_dir, stdout=subprocess.DEVNULL).wait(faults.HANG) == 0
    child = start(stopped, demo_dir)
    for line in child.stdout:
        if line.startswith("epoch  3/5"):
            break
    assert stop(child) == 130

    command = shlex.split(re.search(r"python .*$", faults.error_of(stopped))[0])
    assert command.count("--resume") == 1
    done = subprocess.run([sys.executable, *command[1:]], cwd=stopped, capture_output=True,
                          text=True, timeout=faults.HANG)
    assert done.returncode == 0, done.stderr
    assert "epoch  1/5" not in done.stdout
    assert faults.outcome(stopped) == faults.outcome(whole)


@SLOW
def test_repeats_in_processes_of_their_own_end_as_one_after_the_other_though_killed(
        demo_dir, tmp_path):
    flags = ["--repeats", "2", "--epochs", "2"]
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one, two = folders
    assert start(one, demo_dir, *flags, "--jobs", "1", stdout=subprocess.DEVNULL).wait(
        faults.HANG) == 0
    child = start(two, demo_dir, *flags, "--jobs", "2", stdout=subprocess.DEVNULL)
    faults.wait_for(lambda: list(two.rglob("state.npz")), child)
    child.kill()
    child.wait(faults.HANG)
    assert start(two, demo_dir, *flags, "--jobs", "2", "--resume", stdout=subprocess.DEVNULL).wait(
        faults.HANG) == 0
    assert faults.outcome(one) == faults.outcome(two)


def processes_of(session):
    """Return the ids of the processes of a session, by /proc."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.getsid(int(name)) == session:
                found.append(int(name))
    return found


@pytest.mark.skipif(not os.path.exists("/proc"), reason="counts processes there")
@pytest.mark.parametrize("when", ["workers start", pytest.param("workers work", marks=SLOW)])
def test_reading_with_several_jobs_can_be_stopped_and_leaves_no_process(when, demo_dir, tmp_path):
    """A terminal's Ctrl-C reaches the workers, too."""
    child = start(tmp_path, demo_dir, "--jobs", "2", "--train-samples", "400",
                  "--cache-dir", "cache")
    if when == "workers start":    # there are two of them, and two that joblib cleans up with
        faults.wait_for(lambda: len(processes_of(child.pid)) >= 4, child)
    else:
        faults.wait_for(lambda: list(tmp_path.glob("cache/*.rows")), child)
    assert stop(child) == 130
    faults.wait_for(lambda: not processes_of(child.pid))    # until init has collected them
    faults.error_of(tmp_path)


@SLOW
def test_xla_can_be_stopped_while_it_compiles(demo_dir, tmp_path):
    child = start(tmp_path, demo_dir, "--jit",
                  env={**os.environ, "XLA_FLAGS": f"--xla_dump_to={tmp_path / 'xla'}"})
    faults.wait_for(lambda: list(tmp_path.glob("xla/*before_optimizations*")), child)
    assert stop(child) == 130
    text = (tmp_path / "err.txt").read_text()
    assert "Traceback" not in text
    assert "--resume" in text.splitlines()[-1]


def test_a_program_started_to_ignore_ctrl_c_goes_on_ignoring_it(tmp_path):
    code = python(tmp_path, """
import os, signal, threading
from ecg import interrupt
child = os.fork()
if not child:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt.watch("x")
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)    # what ends it is this one
    threading.Event().wait()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")
    assert code == "143\n"


def test_a_state_says_what_it_depends_on_and_not_where_it_lies(interrupted):
    state = interrupted / "results/model/progress/0/state.npz"
    notes = json.loads(np.load(state)["notes"].item())
    assert notes["done"] == 2
    assert {"seed", "batch_size", "code", "records"} <= set(notes["key"])
    assert not {"output", "results", "cache_dir", "data_dir", "resume", "jobs"} & set(notes["key"])
