"""index.html of a results folder: one file, its links, its numbers, and how browsers show it."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

import too_feature as script
from ecg import origin
from ecg.output import ecg_page, model_card, page, write
from tests.support.results import CLASSES, write_results

HOSTILE = ['<script>alert("a")</script>', "A & B", "C'\"><img src=x onerror=alert(1)>", "D | `d`",
           "E\x1b]0;e\x07 **e**"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome",
            "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# Written into a copy of the page, as the page itself lets no script run
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
const shown = [...document.querySelectorAll(".records")].filter(
  part => getComputedStyle(part).display !== "none").map(part => part.id);
const broken = [...document.images].filter(image => !image.naturalWidth).length;
const small = [...document.querySelectorAll("p, td, li, th, a")].filter(
  part => part.textContent.trim() && parseFloat(getComputedStyle(part).fontSize) < 14).length;
const [width, room] = [document.documentElement.scrollWidth, innerWidth];
parent.postMessage(JSON.stringify({shown, broken, small, width, room}), "*");
}, 0));</script>"""
FRAME = """<script>
addEventListener("message", event => {{ document.title = event.data; }});</script>
<iframe src="{address}" width="{width}" height="900" style="border: 0"></iframe>"""


class Reader(HTMLParser):
    """The tags of a page, their links and ids, and the text of each element with an id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.sources, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [attributes["href"]] if "href" in attributes else []
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        assert not [name for name in attributes if name.startswith("on")]

    def handle_data(self, text):
        self.words.append(text)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with two pictures and the ECGs of its errors."""
    folder = write_results(tmp_path_factory.mktemp("page") / "run")
    (folder / "figures").mkdir()
    for name in ("training_curves", "ecg_4_normal"):
        (folder / f"figures/{name}.png").write_bytes(PIXEL)
    return folder


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg==")


@pytest.fixture(scope="module")
def text(results):
    return page.page(results, errors=3)


@pytest.fixture(scope="module")
def table(results):
    return pd.read_csv(results / "predictions.csv", dtype={"subject_id": str})


def test_it_needs_no_other_file_and_runs_nothing(text):
    found = Reader(text)
    assert not {"script", "iframe", "object", "form"} & set(found.tags)
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert all(link.startswith("#") or link == "data:," for link in found.links)
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text


def test_every_link_leads_to_one_place(text):
    found = Reader(text)
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert len(found.links) > 20


def test_the_pictures_inside_are_those_of_the_folder(text, results):
    inside = [base64.b64decode(source.partition(",")[2]) for source in Reader(text).sources]
    assert inside.count((results / "figures/training_curves.png").read_bytes()) == 1
    assert len(inside) == 5    # with three errors and one example
    assert text.count("Not drawn: python tools/figures.py draws it.") == 6


def test_a_page_at_200_dpi_becomes_half_as_large_and_keeps_its_colours():
    colours = np.array([[0, 114, 178, 255], [230, 159, 0, 255]], np.uint8)
    whole = np.repeat(np.repeat(colours[None], 6, axis=0), 8, axis=1)    # (6, 16), RGBA
    content = io.BytesIO()
    image.imsave(content, whole, format="png")
    smaller = image.imread(io.BytesIO(page.halved(content.getvalue())))
    np.testing.assert_allclose(smaller * 255, whole[::2, ::2, :3], atol=0.01)


def test_headline_and_baselines_are_those_of_metrics_json(text, results):
    metrics = json.loads((results / "metrics.json").read_text())
    for who in ("model", "rate rule", "logistic regression"):
        for value, low, high in metrics[who].values():
            assert f"{value:.3f} ({low:.2f}–{high:.2f})" in text
    assert f"on {metrics['records']} records of {metrics['patients']} patients" in text


@pytest.mark.parametrize("seen", [True, False])
def test_page_and_model_card_of_an_adapted_model_claim_no_more_than_is_true(
        seen, results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    starts = [{"model": f"/home/me/{name}.keras", "sha256": f"{name}`0", "labels_origin": "x"}
              for name in ("near", "far")]
    run |= {"start_from": starts, "trained_on": ["f1", "f2"], "start_saw_test_file": seen}
    (folder / "run.json").write_text(json.dumps(run))
    card = model_card.model_card(folder)
    shown = page.page(folder, errors=0)
    headline = shown.split("<nav>")[0]
    for text, times in ((card, 2), (headline, 1)):    # the card: with the results and the labels
        assert " patients that adapting never saw" in text
        assert text.count(origin.MAY_HAVE_SEEN) == seen * times
    assert "training never saw" not in card + shown
    assert "Started from the model near.keras (SHA-256 near\\`0), origin" in card
    assert "That started from the model far.keras" in card
    assert "learnt from the label files with the SHA-256 f1, f2, the last first" in card


def test_what_the_model_was_trained_on_stands_next_to_the_headline(text):
    notice, = re.findall('<p class="notice">(.*)</p>', text)
    assert notice.startswith("This model was trained on synthetic records. Origin of the labels:")
    assert notice.endswith("This is not a medical device.")


def test_cells_lead_to_their_records(text, table):
    for i, true in enumerate(CLASSES):
        for j, predicted in enumerate(CLASSES):
            records = table[(table["true"] == true) & (table["predicted"] == predicted)]
            part = re.search(rf'id="cell-{i}-{j}">(.*?)</div></div>', text, re.DOTALL)
            assert (f'href="#cell-{i}-{j}">{len(records)}<br>' in text) == (len(records) > 0)
            assert bool(part) == (len(records) > 0)
            if part:
                rows = re.findall(r"<tr><td><span.*?</tr>", part[1])
                cells = [tuple(re.sub("<[^>]*>", "|", row).strip("|").split("||||")[:1])
                         for row in rows]
                assert len(cells) == len(records)
                assert {cell[0].split("|")[0] for cell in cells} == set(records["record"])


def test_of_many_records_in_a_cell_the_first_are_listed(results, text, monkeypatch):
    monkeypatch.setattr(page, "MOST_LISTED", 2)
    few = page.page(results, errors=0)
    assert "more are in predictions.csv" in few
    assert "more are in predictions.csv" not in text


def test_the_most_confident_errors_are_shown_with_all_that_is_known(text, table):
    wrong = table[table["true"] != table["predicted"]]
    confidence = wrong.filter(regex="^p ").max(axis=1).sort_values(ascending=False)
    assert text.count("<article") == 3
    for number, place in enumerate(confidence.index[:3], start=1):
        row = table.loc[place]
        part = re.search(rf'id="error-{number}">(.*?)</article>', text, re.DOTALL)[1]
        assert (f"{number}. Label {row['true']}, predicted {row['predicted']} "
                f"({confidence[place]:.3f})") in part
        assert f"Record {row['record']}, patient {row['subject_id']}" in part
        for name in CLASSES:
            assert f"{name} {row[f'p {name}']:.3f}" in part
        for name, unit, usual in script.FEATURES:
            value = row[f"{name} [{unit}]" if unit else name]
            is_out = usual and not usual[0] <= value <= usual[1]
            assert (f"{name} {value:.3g} (usual" in part) == bool(is_out and np.isfinite(value))
        assert "data:image/png" in part
        assert f'href="#error-{number}"' in text    # from its cell


def test_the_ecg_of_an_error_is_that_record(results, monkeypatch, table):
    folder = shutil.copytree(results, results.parent / "copy", dirs_exist_ok=True)
    rows = table.rename(columns={"record": "waveform_path", "true": "ecg_category"})
    p = table[[f"p {name}" for name in CLASSES]].to_numpy()
    arrays = write.errors(rows, p, CLASSES, lambda record: (
        np.full((5000, 12), int(record.removeprefix("files/r"))), 500, np.zeros(0)), most=2)
    np.savez(folder / "errors.npz", **arrays)
    drawn = []
    monkeypatch.setattr(ecg_page, "draw_ecg", lambda signal, *more, **options: drawn.append(
        (signal[0, 0], options["measured"])))
    monkeypatch.setattr(page.style, "as_png", lambda figure, dpi: PIXEL)
    text = page.page(folder, errors=4)
    assert text.count("<article") == 4
    assert len(drawn) == 2    # the others' ECGs are not kept
    for number, measured in drawn:
        assert measured.endswith(f", record files/r{number:.0f}")


def test_without_errors_or_in_a_run_that_kept_no_ecgs_it_says_so(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "run")
    (folder / "errors.npz").unlink()
    assert page.page(folder).count("<article") == page.ERRORS
    table = pd.read_csv(folder / "predictions.csv")
    right = table[table["true"] == table["predicted"]]
    right.to_csv(folder / "predictions.csv", index=False)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["records"], metrics["model"]["accuracy"] = len(right), [1, 1, 1]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "No test record was classified wrongly." in page.page(folder)


def test_settings_versions_left_out_and_the_card_are_on_it(text):
    for words in ("<td>sequence_length</td><td class=\"number\">500</td>", "<td>3.11.7</td>",
                  "<td>too short</td><td class=\"number\">2</td>", "Intended use</h4>",
                  "Preparation</h5>", "<b>Not to be used</b>", "label file abc123."):
        assert words in text.replace(' class="number">3.11.7', ">3.11.7")
    assert "/home/me" not in text


def test_names_from_files_are_shown_and_never_markup(tmp_path):
    folder = write_results(tmp_path / "<i>run", classes=HOSTILE)
    text = page.page(folder, errors=1)
    found = Reader(text)
    assert not {"script", "i", "em"} & set(found.tags)
    assert len(found.sources) == found.tags.count("img")
    words = "".join(found.words)
    for name in HOSTILE[:4]:
        assert name in words
    assert "\x1b" not in text
    assert "\x07" not in text


def test_markdown_of_a_card_becomes_html():
    markdown = r"""# A \*name\*

**Bold \<b\>** and more
in one paragraph.

1. one
2. two

- a
- b

| x | y \| z |
| --- | --- |
| 1 | <u> |"""
    assert page.card_as_html(markdown).replace("\n", "") == (
        "<h3>A *name*</h3><p><b>Bold &lt;b&gt;</b> and more in one paragraph.</p>"
        "<ol><li>one</li><li>two</li></ol><ul><li>a</li><li>b</li></ul>"
        '<div class="wide"><table><tr><th>x</th><th>y | z</th></tr>'
        '<tr><td class="number">1</td><td>&lt;u&gt;</td></tr></table></div>')


def in_a_browser(path, folder):
    """Open a file in headless Chromium; return its title, and what it wrote to the console."""
    browser = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if not browser:
        pytest.skip("no Chromium or Chrome: how browsers show the page is not tested")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={folder}/profile", "--window-size=1500,900",
         "--virtual-time-budget=2000", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return html.unescape(re.search("<title>(.*?)</title>", done.stdout)[1]), said


def test_a_browser_opens_it_without_an_error(text, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(text, encoding="utf-8")
    assert in_a_browser(path, tmp_path) == ("ECG classifier run", [])


@pytest.mark.parametrize("width", [400, 1400])
def test_on_a_narrow_and_on_a_wide_screen_all_of_it_can_be_read(width, text, tmp_path):
    path = tmp_path / "page.html"
    free = re.sub(r"<meta http-equiv.*?>", "", text, flags=re.DOTALL)
    path.write_text(free.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    frame = tmp_path / "frame.html"
    address = f"{path.as_uri()}#cell-0-0"
    frame.write_text(FRAME.format(address=address, width=width), encoding="utf-8")
    title, said = in_a_browser(frame, tmp_path)
    assert said == []
    found = json.loads(title)
    assert found["room"] == width
    assert found["width"] <= width    # nothing is beyond the edge
    assert found["shown"] == ["cell-0-0"]    # the link to a cell shows its records alone
    assert found["broken"] == 0
    assert found["small"] == 0
