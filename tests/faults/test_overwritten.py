"""No program writes over what it reads, over a stranger's file, or over another run's results."""

import json
import os

import pytest
from matplotlib.figure import Figure

import too_feature as script
from ecg import demo, files
from ecg.errors import UserError
from ecg.output import figures, style
from tools import check_labels, classify, export_onnx, make_demo
from tools import figures as draw

LABELS = "1,a,Normal\n2,b,Paced\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with labels, a stranger's files, and what older versions of the programs wrote."""
    monkeypatch.chdir(tmp_path)
    for name in ("lab.json", "lab.csv", "my.labels.json"):
        (tmp_path / name).write_text(LABELS)
    (tmp_path / "stranger.json").write_text('{"name": "a setting of an editor"}')
    (tmp_path / "list.json").write_text("[1]")
    for name in ("stranger.keras", "stranger.onnx", "stranger.csv"):
        (tmp_path / name).write_text("years of work")
    for name in ("older.keras", "older.onnx", "older.csv"):
        (tmp_path / name).write_bytes(check_labels.HEAD + b"model_sha256 missing_features\n")
    card = {"model_sha256": files.sha256("older.keras")}
    (tmp_path / "older.json").write_text(json.dumps(card))
    return tmp_path


def refusal(output, labels="lab.csv", **settings):
    with pytest.raises(UserError) as caught:
        script.check_output(script.Settings(output=output, labels=labels, **settings))
    return str(caught.value)


@pytest.mark.parametrize("labels", ["lab.json", "./lab.json"])
@pytest.mark.parametrize("force", [False, True])
def test_labels_are_not_replaced_by_the_card_of_a_model(labels, force):
    assert "lab.json is read as well as written" in refusal("lab.keras", labels, force=force)
    assert "my.labels.json is read" in refusal("my.labels.keras", "my.csv", force=force)


def test_a_strangers_model_or_json_is_replaced_by_force_alone():
    assert "stranger.keras was not written by this program" in refusal("stranger.keras")
    assert "list.json was not written by this program" in refusal("list.keras")
    assert "--force" in refusal("stranger.keras")
    forced = script.Settings(output="stranger.keras", labels="lab.csv", force=True)
    assert script.check_output(forced).name == "stranger.keras"
    older = script.Settings(output="older.keras", labels="lab.csv")
    assert script.check_output(older).name == "older.keras"


@pytest.mark.parametrize(("place", "kind", "force"), [
    ("m.json", "folder", False), ("m.json.new", "folder", True), ("m.json", "pipe", True)])
def test_a_card_that_could_not_be_written_is_noticed_before_training(place, kind, force, folder):
    (folder / place).mkdir() if kind == "folder" else os.mkfifo(place)
    assert f"{place}: not a plain file" in refusal("m.keras", force=force)


def test_a_name_that_is_too_long_in_bytes_is_noticed_before_training():
    assert "File name too long" in refusal("\N{ANATOMICAL HEART}" * 59 + ".keras")
    short = script.Settings(output="\N{ANATOMICAL HEART}" * 50 + ".keras", labels="lab.csv")
    assert script.check_output(short)


def test_nothing_is_left_by_looking_whether_a_file_can_be_written(folder):
    before = sorted(folder.iterdir())
    script.check_output(script.Settings(output="m.keras", labels="lab.csv"))
    assert sorted(folder.iterdir()) == before


# ------------------------------------------------------------------------------------------ tools
@pytest.fixture
def no_work(monkeypatch):
    """Fail if a program begins to work; what it prints of that is returned."""
    def started(*_):
        raise UserError("the work has begun")

    monkeypatch.setattr(check_labels, "load_training", started)
    monkeypatch.setattr(export_onnx, "packages", started)


@pytest.mark.parametrize(("output", "force", "words"), [
    ("lab.csv", [], "lab.csv is read as well as written"),
    ("lab.csv", ["--force"], "lab.csv is read as well as written"),
    ("stranger.csv", [], "stranger.csv was not written by this program"),
    ("stranger.csv", ["--force"], "the work has begun"),
    ("older.csv", [], "the work has begun"), ("new.csv", [], "the work has begun"),
    ("none/new.csv", [], "No such file or directory")])
def test_check_labels_replaces_only_what_it_has_written(output, force, words, no_work, capsys):
    assert check_labels.main(["--csv", output, "--labels", "lab.csv", *force]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("output", "force", "words"), [
    ("stranger.onnx", [], "stranger.onnx was not written by this program"),
    ("stranger.onnx", ["--force"], "the work has begun"),
    ("older.onnx", [], "the work has begun"), ("new.onnx", [], "the work has begun")])
def test_export_onnx_replaces_only_what_it_has_written(output, force, words, no_work, capsys):
    assert export_onnx.main(["older.keras", "--output", output, *force]) == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def drawing(monkeypatch):
    """Have figures.py make the least that it can."""
    for name in ("model_card", "page"):
        text = "# Model card: ECG classifier\n<title>ECG classifier x"
        monkeypatch.setattr(f"ecg.output.{name}.{name}", lambda *_, text=text: text)
    monkeypatch.setitem(figures.FIGURES, "features", lambda _: Figure((1, 1)))


@pytest.mark.parametrize(("only", "name"), [
    ("model_card", "MODEL_CARD.md"), ("page", "index.html"), ("features", "figures/features.png"),
    ("features", "figures/features.pdf")])
def test_figures_replaces_only_what_this_project_has_written(only, name, drawing, folder, capsys):
    (folder / "figures").mkdir()
    (folder / name).write_text("# Model card of somebody else")
    assert draw.main([".", "--only", only]) == 2
    assert f"{name} was not written by this program" in capsys.readouterr().err
    assert (folder / name).read_text() == "# Model card of somebody else"
    assert draw.main([".", "--only", only, "--force"]) == 0
    assert draw.main([".", "--only", only]) == 0
    assert b"somebody" not in (folder / name).read_bytes()


def test_the_page_of_a_record_is_numbered_where_somebody_elses_picture_is(folder):
    (folder / "r.pdf").write_text("a scan")
    name = classify.free_name(folder, "data/r", set())
    assert name == folder / "r_2"
    style.save(Figure((1, 1)), name, ["png"])
    assert classify.free_name(folder, "data/r", set()) == name    # its own is replaced


def test_make_demo_replaces_only_the_demos_labels(folder, capsys):
    assert make_demo.main(["--labels", "lab.csv"]) == 2
    assert "lab.csv was not written by this program" in capsys.readouterr().err
    assert (folder / "lab.csv").read_text() == LABELS
    for more in (["--force"], []):
        assert make_demo.main(["--labels", "lab.csv", *more]) == 0
        assert (folder / "lab.csv").read_text() == demo.label_text()


# ---------------------------------------------------------------------------------------- results
@pytest.mark.parametrize("name", ["report.txt", "MODEL_CARD.md", "figures/features.png"])
def test_a_run_replaces_no_results_but_those_of_runs(name, folder):
    settings = script.Settings(output="m.keras", cache_dir="cache")
    file = folder / "results/m" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    for _ in range(2):
        with pytest.raises(UserError, match=f"{name} was not written by this program"):
            script.claim_places(settings, folder / "m.keras")
    forced = script.Settings(output="m.keras", cache_dir="cache", force=True)
    assert script.claim_places(forced, folder / "m.keras")
    assert script.claim_places(settings, folder / "m.keras")    # from now on a run's


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "examples.npz"])
def test_a_folder_in_the_place_of_a_result_is_noticed_before_training(name, folder):
    settings = script.Settings(output="m.keras", cache_dir="cache")
    results = script.claim_places(settings, folder / "m.keras")
    (results / name).mkdir()
    with pytest.raises(UserError, match=f"{name}: not a plain file"):
        script.claim_places(settings, folder / "m.keras")


def test_no_two_models_share_a_folder_of_results(folder):
    def of(output, results="results"):
        return script.results_folder(results, folder / output)

    assert str(of("m.keras")) == "results/m"
    assert of("a/m.keras", folder / "a/results") == folder / "a/results/m"
    places = {of("m.keras"), of("a/m.keras"), of("b/m.keras"), of("a/b/m.keras"), of("a-m.keras")}
    assert len(places) == 5
    assert {place.parent.name for place in places} == {"results"}    # none is inside of another


def test_an_output_is_claimed_whatever_its_folder_of_results(folder):
    files.claim(folder / "one", output=folder / "m.keras")
    held = files._claimed.pop(folder / ".m.keras.lock")    # as if of another process
    with pytest.raises(UserError, match=r"another run is writing to .*m\.keras"):
        files.claim(folder / "other", output=folder / "m.keras")
    files.claim(folder / "third", output=folder / "n.keras")
    held.close()
    files.claim(folder / "other", output=folder / "m.keras")


def test_a_pipe_in_the_place_of_a_lock_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / ".lock")
    with pytest.raises(UserError, match=r"\.lock is not a plain file"):
        files.claim(folder)
