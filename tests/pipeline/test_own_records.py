"""Records of one's own: wrong folders, missing files, and the demo where it does not belong."""

import pytest

from ecg.errors import UserError
from tests.support.labels import write
from tests.support.runs import LABELS
from too_feature import Settings, ensure_demo, load_split, read_labels


@pytest.mark.parametrize(("folder", "fetches"), [
    ("lab", False), ("files/p1000/p10000032/s1", True)])
def test_a_wrong_data_folder_names_the_first_missing_file_and_how_to_fetch_mimics(
        folder, fetches, tmp_path):
    rows = f"1,{folder}/1,Normal\n2,{folder}/2,Normal\n3,x/3,Other\n"
    labels = read_labels(write(tmp_path, rows))
    words = rf"paths start from --data-dir, where {folder}/\d.hea is missing"
    with pytest.raises(UserError, match=words) as caught:
        load_split("train", labels[:2], ["Normal", "Other"], Settings(data_dir=str(tmp_path)))
    assert ("tools/fetch_records.py" in str(caught.value)) == fetches


# ---------------------------------------------------------------------------------------- the demo
@pytest.fixture
def written(monkeypatch):
    """The folders that the demo is written to; nothing is."""
    folders = []
    monkeypatch.setattr("ecg.demo.write_demo", folders.append)
    return folders


def test_the_demo_is_not_written_into_a_folder_of_other_records(tmp_path, written):
    (tmp_path / "mine.dat").touch()
    with pytest.raises(UserError, match="name the label file of these records"):
        ensure_demo(read_labels(LABELS), str(tmp_path))
    assert written == []


def test_the_default_folder_takes_the_demo_whatever_else_is_in_it(
        tmp_path, monkeypatch, capsys, written):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / Settings.data_dir
    folder.mkdir()
    write(folder, "what belongs here", "README.md")
    assert ensure_demo(read_labels(LABELS), str(folder))
    assert written == [str(folder)]
    assert "notice" not in capsys.readouterr().out
