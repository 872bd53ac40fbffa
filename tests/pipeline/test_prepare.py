"""Prepared records are kept for the next run, until code that prepares them has changed."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import too_feature as script
from ecg import demo
from tests.support.runs import copy_project

# Imports what the script needs once, and forks a process for each state of the code: prepares three
# records there and prints the names of the files in the cache, and the key that --resume asks for.
SERVER = """
import json, os, sys
import joblib, pandas, scipy.fft, scipy.ndimage, scipy.optimize, scipy.signal, tqdm, wfdb
import sklearn.metrics, sklearn.model_selection, sklearn.utils.class_weight
sys.path.insert(0, os.getcwd())
print("ready", flush=True)
for line in sys.stdin:
    paths, changes = json.loads(line)
    reading, writing = os.pipe()
    if not os.fork():
        os.dup2(os.open("errors.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        import too_feature
        recipe = too_feature.Recipe(**changes)
        settings = too_feature.Settings(recipe=recipe, cache_dir="cache", jobs=1)
        found = too_feature.prepare_many(paths, "data", settings, "")
        assert [one.reason for one in found] == ["", "", ""], found
        for name in os.listdir("cache"):
            os.write(writing, (name + " ").encode())
        os.write(writing, b"train:" + too_feature.files.fingerprint(too_feature.train).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    print(os.read(reading, 65536).decode(), flush=True)
    os.close(reading)
"""


class Project:
    """A copy of the project with three records, which runs in processes of its own."""

    def __init__(self, folder, demo_dir):
        self.folder = folder
        copy_project(folder)
        self.paths = [record.waveform_path for record in demo.catalogue()[:3]]
        for path in self.paths:
            (folder / "data" / path).parent.mkdir(parents=True, exist_ok=True)
            for ending in (".hea", ".dat"):
                shutil.copy(f"{demo_dir / path}{ending}", folder / "data" / f"{path}{ending}")
        self.child = subprocess.Popen(
            [sys.executable, "-B", "-c", SERVER], cwd=folder, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ""})
        assert self.child.stdout.readline() == "ready\n"

    def prepare(self, **changes):
        """Prepare the records; return the files in the cache and the key of a training."""
        self.child.stdin.write(json.dumps([self.paths, changes]) + "\n")
        self.child.stdin.flush()
        *names, train = self.child.stdout.readline().split()
        return set(names), train

    def prepared_again(self, **changes):
        """Prepare the records; return whether they were not in the cache, and that key."""
        after, train = self.prepare(**changes)
        assert self.before <= after
        for new in after - self.before:    # so that the next one finds what this one found
            (self.folder / "cache" / new).unlink()
        return len(after - self.before) == 1, train


@pytest.fixture(scope="module")
def project(demo_dir, tmp_path_factory):
    one = Project(tmp_path_factory.mktemp("project"), demo_dir)
    one.before, one.train = one.prepare()    # each test ends as it began
    assert one.before
    yield one
    one.child.kill()
    one.child.communicate()


@pytest.fixture
def changed(project):
    """A function: whether records are prepared again, and a training begun again, after an edit."""
    def edit(name, *replacements):
        file = project.folder / name
        original = text = file.read_text(encoding="utf-8")
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
        again, train = project.prepared_again()
        file.write_text(original, encoding="utf-8")
        return again, train != project.train

    return edit


@pytest.mark.parametrize(("name", "old", "new"), [
    ("too_feature.py", "MIN_LEAD_RANGE = 0.02", "MIN_LEAD_RANGE = 0.03"),
    ("too_feature.py", '"uv": 1e-3', '"uv": 1e-4'),
    ("too_feature.py", "step = round(0.02 * fs)", "step = round(0.03 * fs)"),
    ("too_feature.py", "rr.std(ddof=1)", "rr.std(ddof=0)"),
    ("ecg/wfdb_files.py", "NO_SAMPLE = -32768", "NO_SAMPLE = -32767"),
    ("ecg/signals.py", "BEYOND_ANY_CONVERTER = 1e9", "BEYOND_ANY_CONVERTER = 1e8"),
    ("ecg/large_features.py", "GRID = 250", "GRID = 500"),
    ("ecg/r_peaks.py", "1 / (1 + distance**4)", "1 / (1 + distance**6)")])
def test_a_changed_constant_or_helper_of_preparation_prepares_records_again(
        name, old, new, changed):
    assert changed(name, (old, new)) == (True, False)


def test_other_words_prepare_nothing_again(changed):
    """Docstrings, comments, annotations, help texts and the rulers between sections."""
    assert changed("too_feature.py", (
        "Read ten seconds of a 12-lead WFDB record.", "Read the first ten seconds of a record."),
        ("-- read\n", "-- reading\n# another comment\n"),
        ("Hz below which baseline wander is removed", "Hz of the high-pass filter"),
        ("path: str | Path", "path: Path | str")) == (False, False)


def test_code_that_prepares_nothing_prepares_nothing_again(changed):
    assert changed("too_feature.py", ("layers.LSTM(32", "layers.LSTM(33")) == (False, True)
    assert changed("ecg/metrics.py", ("HOTTEST = 2.0", "HOTTEST = 3.0")) == (False, True)
    assert changed("ecg/checkpoint.py", ('LOG = "h', 'LOG = "H')) == (False, True)
    assert changed("ecg/report.py", ("best class", "the best class")) == (False, False)


@pytest.mark.parametrize(("changes", "again"), [
    ({"learning_rate": 0.1, "epochs": 3, "shift": 0}, False), ({"sequence_length": 100}, True),
    ({"high_pass": 1.0}, True), ({"model": "large"}, True)])
def test_settings_that_shape_the_inputs_prepare_records_again_and_no_others(
        changes, again, project):
    assert project.prepared_again(**changes)[0] == again


@pytest.mark.parametrize("name", ["default", "large"])
def test_r_peaks_are_found_once_for_each_record(name, demo_dir, monkeypatch):
    calls = []
    choose = script.choose_lead
    monkeypatch.setattr(script, "choose_lead", lambda *them: calls.append(them) or choose(*them))
    path = demo_dir / demo.catalogue()[0].waveform_path
    ecg, features, _ = script.prepare_record(path, recipe=script.RECIPES[name])
    assert len(calls) == 1
    assert ecg.shape == (500, 12)
    assert features.shape == (len(script.feature_names(script.RECIPES[name])),)
