"""Killed or stopped at any moment, a run loses at most the epoch it was in, and says how to go on.

Processes get a real SIGKILL, SIGINT or SIGTERM at a chosen moment (tests/faults.py).
"""

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

import numpy as np
import pandas as pd
import pytest

import faults
import too_feature
from tools import progress, results, safe_model

SLOW = pytest.mark.slow
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no such signals")

# Normalisation settles after epoch 3, the step size is halved soon, the best epoch is not the last
PLAIN = ["--settle", "30", "--keep", "best", "--reduce-patience", "1", "--learning-rate", "0.1"]
WAYS = {
    "plain": PLAIN,
    "stopped early, by the thesis recipe": ["--recipe", "thesis", "--epochs", "9",
                                            "--stop-patience", "2"],
    "on a cosine": ["--schedule", "cosine", "--settle", "20"],
    "an ensemble": ["--repeats", "2", "--epochs", "2"],
    "with figures": [*PLAIN, "--epochs", "3", "--figures"],
}


@pytest.fixture(scope="module")
def run(demo_dir, tmp_path_factory):
    with faults.server(demo_dir, tmp_path_factory.mktemp("cache")) as run:
        yield run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """Return the folder that an uninterrupted run left, by the name of one of `WAYS`."""
    folders = {}

    def get(way):
        if way not in folders:
            folder = tmp_path_factory.mktemp("whole")
            assert run(folder, *WAYS[way]) == 0, (folder / "err.txt").read_text()
            folders[way] = folder
        return folders[way]
    return get


def printed(folder):
    return (folder / "out.txt").read_text()


def epochs_run(folder):
    return [int(x) for x in re.findall(r"^epoch +(\d+)/", printed(folder), re.M)]


def test_the_plain_run_has_all_that_resuming_could_lose(whole):
    history = pd.read_csv(whole("plain") / "results/model/history.csv")
    assert history["learning_rate"].min() < 0.06
    assert history["val_accuracy"].idxmax() < 3
    early = pd.read_csv(whole("stopped early, by the thesis recipe") / "results/model/history.csv")
    assert len(early) < 9


# ---------------------------------------------------------------------------------------- killed
# Moment: how to die there, and after which epoch the next run goes on
MOMENTS = {
    "while a batch of the cache is written": (r"die_half_written(r'\.rows$', 2)", 0),
    "while the first state is written": ("die_half_written('state.npz')", 0),
    "just before the state of epoch 4 is moved": ("die_before_moving('state.npz', 4)", 3),
    "just after it, before the log is": ("die_before_moving('0/history.csv', 4)", 4),
    "in the middle of epoch 5": ("die_in(too_feature, 'vary_recording', 48)", 4),
    "while the state of epoch 5 is written": ("die_half_written('state.npz', 5)", 4),
    "while the model is written": (r"die_half_written(r'model\.keras$')", 5),
    "between the model and its card": (r"die_after_moving(r'model\.keras$')", 5),
    "during evaluation": ("die_in(too_feature, 'evaluate')", 5),
    "while the second card is written": (r"die_half_written(r'model\.json', 2)", 5),
    "while results are written": ("die_half_written('predictions.csv')", 5),
}


QUICK = ("while a batch of the cache is written", "just before the state of epoch 4 is moved",
         "between the model and its card")


@pytest.mark.parametrize("moment", [
    pytest.param(moment, marks=() if moment in QUICK else SLOW) for moment in MOMENTS])
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
    ("stopped early, by the thesis recipe",
     "die_in(too_feature.tool('report'), 'fit_temperature')", []),
    pytest.param("stopped early, by the thesis recipe", "die_before_moving('state.npz', 3)", None,
                 marks=SLOW),
    pytest.param("on a cosine", "die_after_moving('state.npz', 3)", [4, 5], marks=SLOW),
    pytest.param("an ensemble", "die_in(too_feature, 'vary_recording', 38)", [2],    # the second's
                 marks=SLOW),
    pytest.param("with figures", "import matplotlib.figure as f; die_in(f.Figure, 'savefig', 4)",
                 [], marks=SLOW)])
def test_so_does_a_run_of_another_kind(way, fault, again, run, whole, tmp_path):
    assert run(tmp_path, *WAYS[way], before=fault) == -signal.SIGKILL
    assert run(tmp_path, *WAYS[way], "--resume") == 0
    if again is not None:
        assert epochs_run(tmp_path) == again
    assert faults.outcome(tmp_path) == faults.outcome(whole(way))
    if "figures" in way:
        for file in (whole(way) / "results").rglob("*.p[dn][fg]"):
            other = tmp_path / file.relative_to(whole(way))
            assert other.read_bytes() == file.read_bytes(), file.name
        assert not faults.scratch_files(tmp_path / "results")


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


@SLOW
def test_a_run_killed_at_random_times_ends_as_if_it_had_not_been(run, whole, demo_dir, tmp_path):
    dice, kills = random.Random(0), 0  # noqa: S311
    command = [sys.executable, str(faults.ROOT / "too_feature.py"), *faults.TINY, *PLAIN,
               "--data-dir", str(demo_dir), "--cache-dir", str(tmp_path / "cache"), "--resume"]
    for _ in range(8):
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as child:
            try:
                child.wait(dice.uniform(2, 8))
            except subprocess.TimeoutExpired:
                child.kill()
                kills += 1
    assert kills
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=200)
    assert faults.outcome(tmp_path) == faults.outcome(whole("plain"))


# ------------------------------------------------------------------------------- an older model
@pytest.mark.parametrize(("fault", "seed"), [
    pytest.param(r"die_half_written(r'model\.keras$')", 42, marks=SLOW),
    pytest.param(r"die_half_written(r'model\.json')", 42, marks=SLOW),
    (r"die_before_moving(r'model\.keras$')", 42),
    (r"die_after_moving(r'model\.keras$')", 7),
    pytest.param(r"die_before_moving(r'model\.json$')", 7, marks=SLOW),
    pytest.param(r"die_half_written(r'model\.json', 2)", 7, marks=SLOW)])
def test_at_any_moment_of_saving_there_is_a_whole_model_with_its_card(
        fault, seed, run, whole, tmp_path):
    """The older run's, or the newer's: never a mixture, which classify would refuse."""
    shutil.copytree(whole("plain"), tmp_path, dirs_exist_ok=True)
    assert run(tmp_path, "--epochs", "1", "--seed", "7", before=fault) == -signal.SIGKILL
    card = safe_model.read_card(tmp_path / "model.keras")
    assert card["settings"]["seed"] == seed
    assert card["model_sha256"] == too_feature.sha256(tmp_path / "model.keras")
    if seed == 42:
        assert faults.weights(tmp_path / "model.keras") == faults.weights(
            whole("plain") / "model.keras")


def test_the_new_card_is_used_until_it_is_in_place(whole, tmp_path):
    """As after a kill between the two moves: the model opens, and not with the older card."""
    for name in ("model.keras", "model.json"):
        shutil.copy(whole("plain") / name, tmp_path)
    (tmp_path / "model.json").rename(tmp_path / "model.json.new")
    other = whole("stopped early, by the thesis recipe") / "model.json"
    shutil.copy(other, tmp_path)
    assert safe_model.read_card(tmp_path / "model.keras")["settings"]["recipe"] == "default"
    safe_model.load_model(tmp_path / "model.keras")
    shutil.copy(other, tmp_path / "model.json.new")
    os.utime(tmp_path / "model.keras")    # load_model has kept it
    with pytest.raises(too_feature.UserError, match="describes another model"):
        safe_model.load_model(tmp_path / "model.keras")


def test_what_kills_left_half_written_is_removed_but_never_what_another_run_writes(tmp_path):
    scratch, old = f".{'0f' * 16}-model.keras", time.time() - 4000
    own, shared = tmp_path / "own", tmp_path / "shared"
    (own / "progress/0").mkdir(parents=True)
    shared.mkdir()
    mine = [own / scratch, own / "progress/0" / scratch]
    fresh, stale, foreign = shared / scratch, shared / f"{scratch}2", shared / ".0f-notes"
    for file in (*mine, fresh, stale, foreign):
        file.touch()
    for file in (stale, foreign):
        os.utime(file, (old, old))
    results.claim(own, (shared, tmp_path / "nowhere"))
    assert not any(file.exists() for file in (*mine, stale))
    assert fresh.exists()
    assert foreign.exists()


# --------------------------------------------------------------------------------------- refused
@pytest.fixture(scope="module")
def interrupted(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    assert run(folder, *PLAIN, before="die_after_moving('state.npz', 2)") == -signal.SIGKILL
    return folder


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
def test_a_state_not_to_be_trusted_is_not_loaded(how, interrupted, tmp_path):
    state, proof = tmp_path / "state.npz", tmp_path / "proof"
    shutil.copy(interrupted / "results/model/progress/0/state.npz", state)
    key = json.loads(np.load(state)["notes"].item())["key"]
    progress.load(state, key)
    damage(state, how, str(proof))
    with pytest.raises(ValueError, match=r"state\.npz is damaged .* without --resume"):
        progress.load(state, key)
    assert not proof.exists()


@pytest.mark.parametrize("how", [
    pytest.param(how, marks=() if how == "an object that runs code" else SLOW) for how in DAMAGES])
def test_a_state_not_to_be_trusted_is_refused_in_one_line_and_runs_nothing(
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
        text = (faults.ROOT / "ecg_5_class_data.csv").read_text().splitlines(keepends=True)
        (tmp_path / "labels.csv").write_text("".join(text[30:]))
        arguments = ["--labels", "labels.csv"]
    assert run(tmp_path, *PLAIN, *arguments, "--resume") == 2
    assert name in faults.error_of(tmp_path)
    assert "without --resume" in faults.error_of(tmp_path)


# --------------------------------------------------------------------------------------- stopped
STOPPED = """
import runpy, threading, time
def stop(number):
    Path("sent").write_text(str(time.time()))
    os.kill(os.getpid(), number)
def stop_in(owner, name, number, n=1, busy=lambda: None):
    function = getattr(owner, name)
    def stopping(*arguments, **options):
        if nth(name, name, n):
            stop(number)
            busy()
        return function(*arguments, **options)
    setattr(owner, name, stopping)
sys.argv = ["too_feature.py", "--data-dir", "it's here", "--resume"]
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_path("STOP")["watch"]("too_feature.py")
""".replace("STOP", str(faults.ROOT / "tools/stop.py"))


def check_stopped(folder, code, number, since, ended):
    assert code == 128 + number
    assert ended - since < 5
    line = faults.error_of(folder)
    assert line.startswith("too_feature.py: stopped; ")
    assert line.endswith(": python too_feature.py --data-dir 'it'\"'\"'s here' --resume")


@pytest.mark.parametrize(("where", "number"), [
    ("stop_in(too_feature, 'read_record', signal.SIGINT, 9)", signal.SIGINT),
    ("stop_in(too_feature, 'vary_recording', signal.SIGTERM, 25)", signal.SIGTERM),
    pytest.param("stop_in(too_feature, 'evaluate', signal.SIGINT, busy=lambda: time.sleep(30))",
                 signal.SIGINT, marks=SLOW),
    # In C++ that sees no signal, as XLA compiling
    ("stop_in(too_feature, 'evaluate', signal.SIGINT, busy=lambda: signal.pthread_sigmask("
     "signal.SIG_BLOCK, signal.valid_signals()) and time.sleep(30))", signal.SIGINT),
    pytest.param("import matplotlib.figure as f; stop_in(f.Figure, 'savefig', signal.SIGINT, 3)",
                 signal.SIGINT, marks=SLOW)])
def test_a_stopped_run_ends_soon_with_one_line_that_says_how_to_go_on(
        where, number, run, tmp_path):
    cache = ["--no-cache"] if "read_record" in where else []
    figures = ["--figures"] if "figure" in where else []
    code = run(tmp_path, *PLAIN, *cache, *figures, before=STOPPED + where)
    check_stopped(tmp_path, code, number, float((tmp_path / "sent").read_text()), time.time())


def start(folder, demo_dir, *arguments, **options):
    """Start the program itself in a session of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, str(faults.ROOT / "too_feature.py"), *faults.TINY, *PLAIN, "--data-dir",
         str(demo_dir), *arguments], cwd=folder, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=(folder / "err.txt").open("w"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def stop(child, number):
    """Stop it and all that it started; return the exit code and the seconds it took."""
    since = time.monotonic()
    os.killpg(child.pid, number)
    code = child.wait(60)
    child.stdout.close()
    return code, time.monotonic() - since


@pytest.mark.parametrize("number", [
    signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
def test_imports_can_be_stopped(number, demo_dir, tmp_path):
    child = start(tmp_path, demo_dir)
    time.sleep(1)
    code, seconds = stop(child, number)
    assert code == 128 + number
    assert seconds < 5
    assert "--resume" in faults.error_of(tmp_path)


@SLOW
def test_the_command_that_a_stopped_run_names_ends_as_if_it_had_not_been(
        whole, demo_dir, tmp_path):
    child = start(tmp_path, demo_dir)
    for line in child.stdout:
        if line.startswith("epoch  3/5"):
            break
    code, seconds = stop(child, signal.SIGINT)
    assert code == 130
    assert seconds < 5
    command = shlex.split(re.search(r"python .*$", faults.error_of(tmp_path))[0])
    assert command.count("--resume") == 1
    done = subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, capture_output=True,
                          text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "epoch  1/5" not in done.stdout
    assert faults.outcome(tmp_path) == faults.outcome(whole("plain"))


def workers_of(session):
    """The processes of a session, by /proc."""
    found = []
    for status in os.scandir("/proc"):
        try:
            if status.name.isdigit() and os.getsid(int(status.name)) == session:
                found.append(int(status.name))
        except OSError:
            pass
    return found


@pytest.mark.skipif(not os.path.exists("/proc"), reason="counts processes there")
@pytest.mark.parametrize("seconds", [0.1, *(pytest.param(x, marks=SLOW)
                                            for x in (0.5, 1, 2, 3))])
def test_reading_with_several_jobs_can_be_stopped_and_leaves_no_process(
        seconds, demo_dir, tmp_path):
    """While workers start, and while they work; a terminal's Ctrl-C reaches them, too."""
    child = start(tmp_path, demo_dir, "--jobs", "2", "--no-cache", "--train-samples", "400")
    while len(workers_of(child.pid)) < 4:    # with two that joblib cleans up with
        assert child.poll() is None
        time.sleep(0.02)
    time.sleep(seconds)
    code, took = stop(child, signal.SIGINT)
    assert code == 130
    assert took < 5
    for _ in range(100):    # until init has collected them
        if not workers_of(child.pid):
            break
        time.sleep(0.1)
    assert workers_of(child.pid) == []
    faults.error_of(tmp_path)


@SLOW
@pytest.mark.parametrize("seconds", [0.5, 1, 2, 3, 4, 6])
def test_xla_can_be_stopped_while_it_compiles(seconds, demo_dir, tmp_path):
    child = start(tmp_path, demo_dir, "--jit")
    for line in child.stdout:
        if "XLA on" in line:
            break
    time.sleep(seconds)
    code, took = stop(child, signal.SIGINT)
    assert code == 130
    assert took < 5
    assert "Traceback" not in (tmp_path / "err.txt").read_text()
    assert "--resume" in (tmp_path / "err.txt").read_text().splitlines()[-1]


def test_a_program_started_to_ignore_ctrl_c_goes_on_ignoring_it():
    code = ("import os, runpy, signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
            f"runpy.run_path({str(faults.ROOT / 'tools/stop.py')!r})['watch']('x');"
            "os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(0.3); print('alive')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "alive\n"


def test_cards_name_the_state_only_by_what_training_depends_on(interrupted):
    notes = json.loads(np.load(interrupted / "results/model/progress/0/state.npz")["notes"].item())
    assert notes["done"] == 2
    assert not too_feature.tool("progress").ELSEWHERE & set(notes["key"])
