"""notebooks/explore_model.ipynb: runs on the demo and on own records, and shows what is true."""

import base64
import io
import json
import os
import re
import shutil
import signal
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

import too_feature as script
from tests.support.runs import LABELS, ROOT, TINY, card_of, copy_project, once
from tools import classify

NOTEBOOK = "notebooks/explore_model.ipynb"
MODEL = script.Settings.output


@pytest.fixture(scope="session")
def repository(demo_run, tmp_path_factory):
    """A copy of the repository in which `python too_feature.py` seems to have run."""
    def make(root):
        copy_project(root)
        for name in ("tools", "notebooks"):
            shutil.copytree(ROOT / name, root / name,
                            ignore=shutil.ignore_patterns("__pycache__"))
        (root / "mimic-iv-ecg").symlink_to(demo_run.data_dir)
        for ending in (".keras", ".json"):
            shutil.copy(demo_run.model.with_suffix(ending), (root / MODEL).with_suffix(ending))
        shutil.copytree(demo_run.results, root / "results" / Path(MODEL).stem)
    return once(tmp_path_factory, "repository", make)


def execute(notebook, folder, settings=None):
    """Run a notebook from `folder` with this interpreter; return it with its outputs."""
    found = nbformat.read(notebook, as_version=4)
    if settings:
        cell, = (cell for cell in found.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = settings
    NotebookClient(found, timeout=200, kernel_name="python3",
                   resources={"metadata": {"path": str(folder)}}).execute()
    return found


def outputs_of(tmp_path_factory, name, *what):
    """Execute a notebook once for all processes; return the outputs of each cell by id."""
    folder = once(tmp_path_factory, name,
                  lambda folder: nbformat.write(execute(*what), folder / "executed.ipynb"))
    found = nbformat.read(folder / "executed.ipynb", as_version=4)
    return {cell["id"]: cell.outputs for cell in found.cells if cell.cell_type == "code"}


@pytest.fixture(autouse=True, scope="module")
def _no_kernel_or_profile_of_the_user(tmp_path_factory):
    """So that the kernel named python3 is this interpreter, started as on a fresh machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        patch.delenv("JUPYTER_PATH", raising=False)
        yield


@pytest.fixture(scope="module")
def demo_outputs(repository, tmp_path_factory):
    """What the notebook, as it is committed, shows of the demo."""
    return outputs_of(tmp_path_factory, "demo-outputs", repository / NOTEBOOK, repository)


@pytest.fixture(scope="module")
def own(repository, tmp_path_factory):
    """Own data outside the repository: folder, label file, two of its 20 records damaged."""
    def make(folder):
        rows = script.read_labels(LABELS).iloc[::30].copy()
        for number, name in enumerate(rows["waveform_path"]):
            for ending in (".hea", ".dat"):
                path = folder / "data" / "mine" / f"{Path(name).name}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / "mimic-iv-ecg" / f"{name}{ending}", path)
            if number < 2:
                path.write_bytes(b"")
        rows["waveform_path"] = [f"mine/{Path(name).name}" for name in rows["waveform_path"]]
        rows.to_csv(folder / "labels.csv", header=False, index=False)
        for ending in (".keras", ".json"):
            shutil.copy((repository / MODEL).with_suffix(ending), folder / f"mine{ending}")
    return once(tmp_path_factory, "own data", make)


@pytest.fixture(scope="module")
def own_outputs(repository, own, tmp_path_factory):
    """What it shows of own data without a results folder, opened from notebooks/."""
    return outputs_of(
        tmp_path_factory, "own-outputs", repository / NOTEBOOK, repository / "notebooks", f"""
MODEL, LABELS = Path({str(own / "mine.keras")!r}), Path({str(own / "labels.csv")!r})
DATA_DIR = Path({str(own / "data")!r})
RESULTS = ROOT / "results" / MODEL.stem""")


def tables(outputs):
    """Read the tables that cells show; empty cells become NaN, as pandas reads them in a CSV."""
    found = []
    for output in outputs:
        for text in re.findall("<table.*?</table>", output.get("data", {}).get("text/html", ""),
                               re.DOTALL):
            head, body = ElementTree.fromstring(text)    # noqa: S314  (pandas wrote it)
            lines = [",".join(json.dumps(x.text or "") for x in row) for row in (head[0], *body)]
            found.append(pd.read_csv(io.StringIO("\n".join(lines)), index_col=0))
    return found


def pictures(outputs):
    return [image.imread(io.BytesIO(base64.b64decode(x.data["image/png"])))[..., :3]
            for x in outputs if "image/png" in x.get("data", {})]


def printed(outputs):
    assert not [x for x in outputs if x.output_type == "stream" and x.name == "stderr"]
    return "".join(x.text for x in outputs if x.output_type == "stream")


# ---------------------------------------------------------------------------------- as committed
def test_it_is_short_and_holds_no_outputs_and_no_paths_of_a_machine():
    text = (ROOT / NOTEBOOK).read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert len(code) <= 12
    assert max(len(cell.source.splitlines()) for cell in code) <= 15
    assert sum(len(cell.source.splitlines()) for cell in code) <= 90
    assert not re.search(r'["\s(](/|~|[A-Z]:\\)\w', "\n".join(x.source for x in notebook.cells))
    assert "pip install jupyterlab" in notebook.cells[0].source


# -------------------------------------------------------------------------------------- the demo
def test_the_table_gives_what_classify_gives(demo_outputs, repository):
    shown, = tables(demo_outputs["classify"])
    labels = script.read_labels(LABELS).set_index(
        "waveform_path")["ecg_category"]
    labels.index = labels.index.map(lambda path: Path(path).name)
    assert shown["label"].value_counts().to_dict() == dict.fromkeys(labels.unique(), 3)
    names = shown["record"].astype(str)
    assert names.is_unique
    assert shown["label"].tolist() == labels[names].tolist()
    paths = {path.stem: path for path in (repository / "mimic-iv-ecg/demo").rglob("*.hea")}
    expected = classify.classify([paths[name] for name in names], repository / MODEL)
    assert shown["predicted"].tolist() == expected["predicted"].tolist()
    columns = [name for name in expected if name.startswith("p ")] + ["confidence",
                                                                      "heart rate [bpm]"]
    assert len(columns) == 7
    np.testing.assert_allclose(shown[columns], expected[columns], atol=0.00051)
    agree = sum(expected["predicted"] == shown["label"])
    assert printed(demo_outputs["classify"]) == f"{agree} of 15 agree with their label\n"


def test_the_model_is_opened_by_keras_alone(demo_outputs):
    text = "".join(x.data["text/plain"] for x in demo_outputs["load"] if "data" in x)
    assert "8,461" in re.sub(r"\x1b\[[\d;]*m", "", text)


def test_it_says_what_the_model_was_trained_on(demo_outputs):
    assert printed(demo_outputs["load"]) == (
        f"{MODEL}: This model was trained on synthetic records. Origin of the labels: synthetic "
        "records, not patients. This is not a medical device.\n")


def test_the_ecg_and_its_explanation_are_drawn(demo_outputs):
    plain, = pictures(demo_outputs["ecg"])
    coloured, = pictures(demo_outputs["importance"])
    assert plain.shape == coloured.shape
    assert min(plain.shape[:2]) > 1000
    assert plain.shape[1] / plain.shape[0] == pytest.approx(297 / 210, abs=0.002)    # A4
    for page in (plain, coloured):
        assert 0.005 < (page.max(axis=2) < 0.3).mean() < 0.1    # black: the traces
        red, green, blue = np.moveaxis(page, 2, 0)
        assert ((red > green + 0.05) & (abs(green - blue) < 0.05)).mean() > 0.05    # the paper
    orange = [((x[..., 0] > x[..., 2] + 0.1) & (x[..., 1] > x[..., 2] + 0.05)).mean()
              for x in (plain, coloured)]
    assert orange[0] < 0.0001 < 0.0003 < orange[1]    # its scale, however pale the leads are
    paper = np.s_[150:-250]
    assert (plain[paper] != coloured[paper]).any(axis=2).mean() > 0.01


def test_what_moved_the_probability_is_that_of_the_record_drawn(demo_outputs, repository):
    shown = tables(demo_outputs["classify"])[0].iloc[0]
    path = next((repository / "mimic-iv-ecg").rglob(f"{shown['record']}.hea"))
    result, = classify.results([str(path)[:-4]], repository / MODEL, with_importance=True)
    it = result.importance
    numbers = [float(x) for x in re.findall(r"[-+]?\d\.\d{3}", printed(demo_outputs["moved"]))]
    assert numbers == pytest.approx([it.baseline, it.probability, it.rest], abs=0.0011)
    assert it.probability == pytest.approx(shown["confidence"], abs=0.0006)
    bars, = pictures(demo_outputs["moved"])
    for colour in ((0.902, 0.624, 0), (0, 0.447, 0.698)):
        assert (np.abs(bars - colour).max(axis=2) < 0.02).mean() > 0.002


def test_the_results_are_those_of_predictions_csv(demo_outputs, repository):
    folder = repository / "results" / Path(MODEL).stem
    predictions = pd.read_csv(folder / "predictions.csv")
    report, confusion = tables(demo_outputs["report"])
    counts = predictions.groupby(["true", "predicted"]).size()
    for true in predictions["true"].unique():
        rows = predictions[predictions["true"] == true]
        assert report.loc[true, "support"] == len(rows) > 0
        assert report.loc[true, "recall"] == pytest.approx(
            (rows["predicted"] == true).mean(), abs=0.0006)
        for predicted in predictions["predicted"].unique():
            assert int(confusion.loc[true, predicted]) == counts.get((true, predicted), 0)
    assert int(confusion.loc["All", "All"]) == len(predictions)

    shown, = tables(demo_outputs["wrong"])
    wrong = predictions[predictions["true"] != predictions["predicted"]]
    confidence = wrong.filter(regex="^p ").max(axis=1).sort_values(ascending=False)
    assert len(shown) == min(len(wrong), 10) > 3
    assert shown["confidence"].tolist() == pytest.approx(confidence[:10].tolist(), abs=0.0006)
    assert shown["record"].tolist() == wrong.loc[shown.index, "record"].tolist()
    assert (shown["true"] != shown["predicted"]).all()

    history, = tables(demo_outputs["figures"])
    assert history["epoch"].tolist() == [3]
    saved = [image.imread(folder / "figures" / f"{name}.png")[..., :3]
             for name in ("training_curves", "confusion_matrix")]
    for one, expected in zip(pictures(demo_outputs["figures"]), saved, strict=True):
        np.testing.assert_array_equal(one, expected)


# ---------------------------------------------------------------------------------- own records
def test_own_records_are_shown_with_what_was_left_out(own_outputs, own):
    shown, = tables(own_outputs["classify"])
    expected = classify.classify(own / "data", own / "mine.keras").set_index("record")
    expected.index = expected.index.map(lambda path: Path(path).name)
    expected = expected.loc[shown["record"].astype(str)]
    left_out = shown["left_out"].notna().to_numpy()
    assert (left_out == (expected["left_out"] != "").to_numpy()).all()
    columns = [name for name in expected if name.startswith("p ")]
    np.testing.assert_allclose(shown[columns], expected[columns], atol=0.00051)
    assert f" of {sum(~left_out)} agree" in printed(own_outputs["classify"])
    assert len(pictures(own_outputs["ecg"])) == len(pictures(own_outputs["importance"])) == 1


def test_a_missing_results_folder_is_one_line(own_outputs, repository):
    text = printed(own_outputs["report"])
    assert text == (f"{repository / 'results/mine'}: metrics.json, predictions.csv, history.csv "
                    "missing; python too_feature.py writes them\n")
    assert own_outputs["wrong"] == own_outputs["figures"] == []


@pytest.mark.parametrize("missing", [
    "model", pytest.param("records", marks=pytest.mark.slow)])
def test_what_is_missing_is_one_line_without_a_traceback(missing, repository, own, tmp_path):
    model = own / "mine.keras" if missing == "records" else tmp_path / "none.keras"
    with pytest.raises(CellExecutionError) as error:
        execute(repository / NOTEBOOK, repository, f"""
MODEL, LABELS = Path({str(model)!r}), Path({str(own / "labels.csv")!r})
DATA_DIR = RESULTS = Path({str(tmp_path)!r})""")
    assert error.value.ename == "UserError"
    shown = error.value.traceback.rsplit("-----\n", 1)[1].strip()    # after the cell's code
    assert shown == f"error: {error.value.evalue}"
    assert "\n" not in error.value.evalue
    assert {"model": f"{model} is missing: run python too_feature.py first",
            "records": "no record can be used: file is missing"}[missing] in error.value.evalue


# ----------------------------------------------------------------------------- %run in a notebook
def in_kernel(folder, *cells, interrupt_at=None):
    """Run cells in one live kernel, which is interrupted once, when a text is printed.

    Returns the outputs of each cell.
    """
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    client = NotebookClient(notebook, timeout=400, kernel_name="python3", allow_errors=True,
                            resources={"metadata": {"path": str(folder)}})

    def look(message, *_):
        nonlocal interrupt_at
        if interrupt_at and interrupt_at in message["content"].get("text", ""):
            interrupt_at = None
            os.kill(client.km.provisioner.process.pid, signal.SIGINT)

    output = client.output
    client.output = lambda outs, message, *rest: look(message) or output(outs, message, *rest)
    client.execute()
    return [cell.outputs for cell in notebook.cells]


def streamed(outputs, name):
    return "".join(x.text for x in outputs if x.output_type == "stream" and x.name == name)


@pytest.mark.slow
def test_the_script_runs_in_a_live_kernel_which_an_interrupt_does_not_end(demo_dir, tmp_path):
    copy_project(tmp_path)
    (tmp_path / "mimic-iv-ecg").symlink_to(demo_dir)
    run = "%run too_feature.py " + " ".join(TINY)
    stopped, again, other, wrong, last = in_kernel(
        tmp_path, f"{run} --epochs 500", f"{run} --epochs 1",
        f"{run} --epochs 1 --set settle=0 --sequence-length 50 --output other.keras",
        f"{run} --epochz 1", "print(1 + 1)", interrupt_at="epoch  1/500")
    assert [x.evalue for x in stopped if x.output_type == "error"] == ["130"]
    assert streamed(stopped, "stderr").endswith("too_feature.py: error: interrupted\n")
    for outputs, model in ((again, MODEL), (other, "other.keras")):
        assert not [x for x in outputs if x.output_type == "error"]
        assert f"saved {model}" in streamed(outputs, "stdout")
    assert card_of(tmp_path / "other.keras")["recipe"]["sequence_length"] == 50
    assert card_of(tmp_path / MODEL)["recipe"]["sequence_length"] == 500
    assert streamed(wrong, "stderr") == (
        "too_feature.py: error: unrecognized arguments: --epochz 1; did you mean --epochs?\n")
    assert streamed(last, "stdout") == "2\n"
