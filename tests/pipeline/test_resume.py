"""Killed or stopped at any moment, a run loses at most its current epoch and says how to go on.

Processes get a real SIGKILL, SIGINT or SIGTERM at a chosen moment (tests/support/faults.py).
"""

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from ecg import files
from tests.support import faults
from tests.support.runs import ROOT, once

SLOW = pytest.mark.slow
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no such signals")

# So that a run has what resuming could lose: after epoch 2, batch normalisation is frozen; epoch 3
# is the best; after epoch 4, the learning rate is halved; two epochs after the best, training stops
COURSE = "validation_goes([1.5, 1.4, 1.3, 1.6, 1.7], [0.5, 0.4, 0.6, 0.5, 0.4])\n"
PLAIN = ["--learning-rate", "0.1", "--set", "freeze_bn_after=20", "--set", "keep_weights=best",
         "--epochs", "9", "--set", "stop_patience=2", "--set", "reduce_patience=1"]
ENSEMBLE = ["--repeats", "2", "--epochs", "2", "--set", "schedule=cosine"]


@pytest.fixture(scope="module")
def run(demo_dir, tmp_path_factory):
    """Start a run whose validation takes that course; all of them share a cache."""
    cache = once(tmp_path_factory, "cache", lambda _: None)
    with faults.server(demo_dir, cache) as start:
        yield lambda folder, *arguments, before="": start(
            folder, *arguments, before=COURSE + before)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """Return the folder that an uninterrupted run with these arguments left."""
    def get(*arguments):
        def make(folder):
            assert run(folder, *arguments) == 0, (folder / "err.txt").read_text()
        return once(tmp_path_factory, f"whole run{''.join(arguments).replace('/', '')}", make)
    return get


def printed(folder):
    return (folder / "out.txt").read_text()


def epochs_run(folder):
    return [int(x) for x in re.findall(r"^epoch +(\d+)/", printed(folder), re.M)]


# ----------------------------------------------------------------------------------------- killed
@pytest.mark.parametrize(("moment", "again"), [
    ("die_writing('state.npz', 5)", [5]),    # after which training stops early
    (r"die_writing(r'model\.keras$', is_moved=True)", []),    # before its card is in place
    pytest.param("die_writing('predictions.csv')", [], marks=SLOW)])
def test_a_run_killed_at_any_moment_goes_on_and_ends_as_if_it_had_not_been(
        moment, again, run, whole, tmp_path):
    assert run(tmp_path, *PLAIN, before=moment) == -signal.SIGKILL
    assert run(tmp_path, *PLAIN, "--resume") == 0
    assert epochs_run(tmp_path) == again
    assert faults.outcome(tmp_path) == faults.outcome(whole(*PLAIN))
    assert not list(tmp_path.rglob(".part-*"))    # what was half written is gone
    assert not list(tmp_path.glob("*.new"))


@SLOW
def test_so_does_an_ensemble_whose_second_model_was_being_trained(run, whole, tmp_path):
    assert run(tmp_path, *ENSEMBLE, before="die_writing('state.npz', 4)") == -signal.SIGKILL
    assert run(tmp_path, *ENSEMBLE, "--resume") == 0
    assert epochs_run(tmp_path) == [2]
    assert faults.outcome(tmp_path) == faults.outcome(whole(*ENSEMBLE))


def test_a_run_killed_twice_in_a_row_goes_on_both_times(run, whole, tmp_path):
    for flags, moment in (([], 3), (["--resume"], 2)):
        code = run(tmp_path, *PLAIN, *flags, before=f"die_writing('state.npz', {moment})")
        assert code == -signal.SIGKILL
    assert run(tmp_path, *PLAIN, "--resume") == 0
    assert epochs_run(tmp_path) == [4, 5]
    assert faults.outcome(tmp_path) == faults.outcome(whole(*PLAIN))


def test_a_second_run_of_the_same_model_is_refused_before_any_work(run, tmp_path):
    files.claim(tmp_path / "results/model")    # as another run: in another process
    assert run(tmp_path) == 2
    assert "another run is writing to results/model" in faults.error_of(tmp_path)
    assert "reading" not in (tmp_path / "err.txt").read_text()


# ---------------------------------------------------------------------------------------- stopped
def test_sigterm_is_one_line_that_says_how_to_go_on(run, tmp_path):
    before = """
errors.raise_at_sigterm()
sys.argv = ["too_feature.py"]
replace_before = os.replace
def stopping(source, target):
    replace_before(source, target)
    if "state.npz" in str(target):
        os.kill(os.getpid(), signal.SIGTERM)
os.replace = stopping
"""
    assert run(tmp_path, *PLAIN, before=before) == 143
    assert "stopped; finished epochs" in faults.error_of(tmp_path)
    assert faults.error_of(tmp_path).endswith("--set reduce_patience=1 --resume")


def start(folder, demo_dir, *arguments):
    """Start the program itself in a session of its own, as a terminal does."""
    command = [sys.executable, str(ROOT / "too_feature.py"), *faults.TINY, "--data-dir",
               str(demo_dir), *arguments]
    with (folder / "err.txt").open("w") as errors:
        return subprocess.Popen(command, cwd=folder, start_new_session=True, text=True,
                                stdout=subprocess.PIPE, stderr=errors)


def interrupt_at(child, beginning):
    """Press Ctrl-C, which reaches a program and its workers, at a line that it prints."""
    assert any(line.startswith(beginning) for line in child.stdout)
    os.killpg(child.pid, signal.SIGINT)
    child.communicate(timeout=300)
    assert child.returncode == 130


@SLOW
def test_the_command_that_a_stopped_run_names_ends_as_if_it_had_not_been(demo_dir, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    child = start(whole, demo_dir)
    child.communicate()
    assert child.returncode == 0

    interrupt_at(start(stopped, demo_dir), "epoch  3/5")
    command = shlex.split(re.search(r"python .*$", faults.error_of(stopped))[0])
    done = subprocess.run([sys.executable, *command[1:]], cwd=stopped, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "epoch  1/5" not in done.stdout
    assert faults.outcome(stopped) == faults.outcome(whole)


@SLOW
def test_reading_with_several_jobs_can_be_stopped_in_one_line(demo_dir, tmp_path):
    child = start(tmp_path, demo_dir, "--jobs", "2", "--train-samples", "1500")
    interrupt_at(child, "using python")    # as the training records are read
    assert "--resume" in faults.error_of(tmp_path)
