"""notebooks/explore_model.ipynb: runs on the demo and on own records, and shows what is true."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from nbclient import NotebookClient

import too_feature as script
from ecg.errors import UserError
from tests.support.runs import LABELS, ROOT, copy_project, once
from tools import classify

NOTEBOOK = "notebooks/explore_model.ipynb"
MODEL = script.Settings.output


@pytest.fixture(autouse=True, scope="module")
def _no_kernel_or_profile_of_the_user(tmp_path_factory):
    """So that the kernel named python3 is this interpreter, started as on a fresh machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        patch.delenv("JUPYTER_PATH", raising=False)
        yield


def execute(repository):
    """Run the notebook from its folder with this interpreter; return the outputs of each cell."""
    notebook = nbformat.read(repository / NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources={
        "metadata": {"path": str(repository / "notebooks")}}).execute()
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


@pytest.fixture(scope="module")
def repository(demo_run, tmp_path_factory):
    """A copy of the repository in which `python too_feature.py` seems to have run."""
    def make(root):
        copy_project(root)
        for name in ("tools", "notebooks"):
            shutil.copytree(ROOT / name, root / name)
        (root / "mimic-iv-ecg").symlink_to(demo_run.data_dir)
        for ending in (".keras", ".json"):
            shutil.copy(demo_run.model.with_suffix(ending), (root / MODEL).with_suffix(ending))
        shutil.copytree(demo_run.results, root / "results" / Path(MODEL).stem)
    return once(tmp_path_factory, "repository", make)


@pytest.fixture(scope="module")
def shown(repository, tmp_path_factory):
    """What the notebook, as it is committed, shows of the demo: the outputs of each cell."""
    folder = once(tmp_path_factory, "shown", lambda folder: (folder / "outputs.json").write_text(
        json.dumps(execute(repository))))
    return json.loads((folder / "outputs.json").read_text(), object_hook=nbformat.NotebookNode)


def tables(outputs):
    """Read the tables that a cell shows; empty cells become NaN, as pandas reads them in a CSV."""
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


def printed(outputs, name="stdout"):
    return "".join(x.text for x in outputs if x.output_type == "stream" and x.name == name)


def test_it_is_committed_without_outputs():
    notebook = nbformat.read(ROOT / NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


# -------------------------------------------------------------------------------------- the demo
def test_the_table_gives_labels_and_what_classify_gives(shown, repository):
    table, = tables(shown["classify"])
    labels = script.read_labels(LABELS)
    labels.index = labels["waveform_path"].str.rpartition("/")[2]
    labels = labels.loc[table["record"].astype(str)]
    assert table["label"].tolist() == labels["ecg_category"].tolist()
    expected = classify.classify(
        [repository / "mimic-iv-ecg" / path for path in labels["waveform_path"]],
        repository / MODEL)
    assert table["predicted"].tolist() == expected["predicted"].tolist()
    np.testing.assert_allclose(table["confidence"], expected["confidence"], atol=0.00051)
    agree = sum(expected["predicted"] == table["label"])
    assert printed(shown["classify"]) == f"{agree} of 15 agree with their label\n"


def test_it_says_what_the_model_is_and_what_it_was_trained_on(shown):
    assert printed(shown["load"]).startswith(
        f"{MODEL}: This model was trained on synthetic records. Origin of the labels: synthetic "
        "records, not patients. This is not a medical device.\n")
    assert "8,461" in json.dumps(shown["load"])    # parameters
    assert not any(printed(outputs, "stderr") for outputs in shown.values())


def test_the_ecg_is_drawn_and_what_moved_its_probability(shown, repository):
    plain, = pictures(shown["ecg"])
    coloured, = pictures(shown["importance"])
    assert plain.shape[1] / plain.shape[0] == pytest.approx(297 / 210, abs=0.002)    # A4
    assert (plain != coloured).any(axis=2).mean() > 0.01
    start, end, rest = map(float, re.findall(r"[-+]?\d\.\d{3}", printed(shown["moved"])))
    table = tables(shown["classify"])[0]
    record, = (repository / "mimic-iv-ecg").rglob(f"{table['record'][0]}.hea")
    loaded = script.load(repository / MODEL)
    result, = classify.results(
        {str(record.with_suffix("")): None}, loaded._replace(model=loaded.core))    # no rate step
    place = loaded.classes.index(table["predicted"][0])
    assert end == pytest.approx(result.probabilities[place], abs=0.0006)
    assert abs(rest) < 0.005 < abs(end - start)
    assert len(pictures(shown["moved"])) == 1


def test_the_results_are_those_of_the_run(shown, repository):
    predictions = pd.read_csv(repository / "results" / Path(MODEL).stem / "predictions.csv")
    report, confusion = tables(shown["report"])
    expected = pd.crosstab(predictions["true"], predictions["predicted"], margins=True)
    np.testing.assert_array_equal(confusion.loc[expected.index, expected.columns], expected)
    assert {"recall", "AUROC"} < set(report["figure"])
    assert set(report["of"]) == set(expected.index) - {"All"}

    wrong, = tables(shown["wrong"])
    assert len(wrong) == min(10, (predictions["true"] != predictions["predicted"]).sum())
    assert wrong["confidence"].is_monotonic_decreasing
    history, = tables(shown["figures"])
    assert history["epoch"].tolist() == [3]
    assert len(pictures(shown["figures"])) == 2


def test_a_missing_model_is_one_line_without_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(UserError, "_render_traceback_", None, raising=False)    # put back later
    cells = {cell.id: cell.source for cell in nbformat.read(ROOT / NOTEBOOK, as_version=4).cells}
    place = {"MODEL": tmp_path / "none.keras"}
    exec(cells["import"], place)  # noqa: S102
    with pytest.raises(UserError) as error:
        exec(cells["load"], place)  # noqa: S102
    assert error.value._render_traceback_() == [
        f"error: {tmp_path}/none.keras is missing: run python too_feature.py first"]
