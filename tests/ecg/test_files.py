"""Files are whole or as before; one process at a time has a folder; an output is no input."""

import os
import subprocess
import sys

import pytest

from ecg import files
from ecg.errors import UserError

CLAIM = """
import sys
from pathlib import Path
from ecg import files
files.claim(Path(sys.argv[1]))
"""


def claim_elsewhere(folder):
    """Claim a folder in another process, which then ends; return what it wrote on stderr."""
    return subprocess.run(
        [sys.executable, "-c", CLAIM, str(folder)], cwd=files.ROOT, capture_output=True, text=True
    ).stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_where_writing_fails_the_old_file_stays_and_nothing_else_is_left(tmp_path, error):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail(scratch):
        scratch.write_text("ne")
        raise error

    with pytest.raises(UserError if error is OSError else error):
        files.write_whole(file, fail)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_or_forbidden_folder_is_a_user_error_that_names_the_file(tmp_path):
    (tmp_path / "plain").touch()
    with pytest.raises(UserError, match=r"plain/a\.txt: .*choose another folder"):
        files.write_whole(tmp_path / "plain" / "a.txt", lambda scratch: scratch.touch())


def test_an_output_is_never_an_input_under_whatever_name(tmp_path):
    source = tmp_path / "labels.csv"
    source.touch()
    (tmp_path / "link.csv").symlink_to(source)
    os.link(source, tmp_path / "hard.csv")
    for name in ("labels.csv", "link.csv", "hard.csv"):
        with pytest.raises(UserError, match="is read as well as written"):
            files.check_target(tmp_path / name, [tmp_path / "missing.csv", source])


@pytest.mark.parametrize(("name", "message"), [
    ("missing/a.csv", "its folder is missing"), (".", "not a plain file")])
def test_what_could_not_be_written_is_refused_before_any_work(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        files.check_target(tmp_path / name)


def test_no_two_models_share_a_folder_of_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = [files.results_folder("results", tmp_path / output)
              for output in ("m.keras", "a/m.keras", "b/m.keras", "a/b/m.keras", "a-m.keras")]
    assert str(places[0]) == "results/m"
    assert len(set(places)) == 5
    assert {place.parent.name for place in places} == {"results"}    # none is inside of another


def test_one_process_at_a_time_has_a_folder_and_may_claim_it_again(tmp_path):
    folder = tmp_path / "results" / "model"
    files.claim(folder)
    files.claim(folder)
    assert "another run is writing to" in claim_elsewhere(folder)
    for _ in ("free", "free again"):
        assert not claim_elsewhere(tmp_path / "results" / "other")
    assert os.listdir(folder) == []    # the lock is on the folder itself


def test_a_claim_removes_scratch_files_in_the_whole_folder_and_nothing_else(tmp_path):
    (tmp_path / "progress" / "0").mkdir(parents=True)
    (tmp_path / "progress" / "0" / ".part-1-state.npz").touch()
    (tmp_path / ".part-1-report.txt").touch()
    (tmp_path / "report.txt").touch()
    files.claim(tmp_path)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["report.txt"]


def test_next_to_a_model_only_its_own_scratch_files_are_removed(tmp_path):
    for name in (".part-1-a.keras", ".part-1-b.keras"):
        (tmp_path / name).touch()
    files.claim(tmp_path / "results", tmp_path / "a.keras")
    assert sorted(os.listdir(tmp_path)) == [".part-1-b.keras", "results"]
