"""index.html of a results folder: its links, its numbers, and how browsers show it."""

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from ecg import origin
from ecg.output import ecg_page, model_card, page
from tests.support.results import words, write_results

HOSTILE = ['<script>alert("a")</script>', "A & B", "C'\"><img src=x onerror=alert(1)>", "D | `d`",
           "E\x1b]0;e\x07 **e**"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome",
            "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# Written into a copy of the page, as the page itself lets no script run
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
const broken = [...document.images].filter(image => !image.naturalWidth).length;
const small = [...document.querySelectorAll("p, td, li, th, a")].filter(
  part => part.textContent.trim() && parseFloat(getComputedStyle(part).fontSize) < 14).length;
const beyond = document.documentElement.scrollWidth > innerWidth;
parent.postMessage(JSON.stringify({broken, small, beyond, room: innerWidth}), "*");
}, 0));</script>"""
FRAME = """<script>
addEventListener("message", event => {{ document.title = event.data; }});</script>
<iframe src="{address}" width="{width}" height="900" style="border: 0"></iframe>"""
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg==")


class Reader(HTMLParser):
    """The tags of a page, their links, ids and sources, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.sources, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            {"href": self.links, "id": self.ids, "src": self.sources}.get(name, []).append(value)

    def handle_data(self, text):
        self.words.append(text)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results with one figure, a single dot."""
    results = write_results(tmp_path_factory.mktemp("page") / "run")
    (results.folder / "figures").mkdir()
    (results.folder / "figures/features.png").write_bytes(PIXEL)
    return results


@pytest.fixture(scope="module")
def text(results):
    return page.page(results)


def test_it_runs_nothing_and_needs_no_other_file_but_the_model_card(text):
    reader = Reader(text)
    assert not {"script", "iframe", "object", "form"} & set(reader.tags)
    assert all(source.startswith("data:image/png;base64,") for source in reader.sources)
    others = {link for link in reader.links if not link.startswith("#")}
    assert others == {"data:,", "MODEL_CARD.md"}
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text


def test_every_link_leads_to_one_place(text):
    reader = Reader(text)
    assert len(reader.ids) == len(set(reader.ids))
    links = [link[1:] for link in reader.links if link.startswith("#")]
    assert links == reader.ids


def test_figures_and_ecgs_are_inside(text, results):
    inside = [base64.b64decode(source.partition(",")[2]) for source in Reader(text).sources]
    assert inside.count(PIXEL) == 1
    assert len(inside) == 1 + len(results.examples + results.errors)


def test_headline_baselines_and_origin_stand_first(text, results):
    first = text.split("<nav>")[0]
    for who in ("model", "rate rule", "logistic regression"):
        for value, low, high in (results.metrics[who][kind] for kind in (
                "accuracy", "balanced accuracy")):
            assert f"{value:.3f} ({low:.2f} to {high:.2f})" in first
    patients = f"90 records of\n{results.metrics['patients']} patients with no number, folder or"
    assert patients in first
    notice, = re.findall('<p class="notice">(.*)</p>', first)
    assert notice.startswith("This model was trained on synthetic records. Origin of the labels:")
    assert notice.endswith("This is not a medical device.")


@pytest.mark.parametrize("seen", [True, False])
def test_page_and_model_card_of_an_adapted_model_claim_no_more_than_is_true(seen, results):
    starts = [{"model": f"/home/me/{name}.keras", "sha256": f"{name}`0", "labels_origin": "x"}
              for name in ("near", "far")]
    run = {**results.run, "start_from": starts, "trained_on": ["f1", "f2"],
           "start_saw_test_file": seen}
    card = model_card.model_card(results._replace(run=run))
    headline = page.page(results._replace(run=run, errors=[], examples=[])).split("<nav>")[0]
    for text, times in ((card, 2), (headline, 1)):    # the card: with the results and the labels
        assert " recording in common with adapting; whether" in " ".join(text.split())
        assert text.count(origin.MAY_HAVE_SEEN) == seen * times
        assert "in common with training" not in text
    assert "Started from the model near.keras (SHA-256 near\\`0), origin" in card
    assert "That started from the model far.keras" in card


def test_all_errors_are_listed_and_the_most_confident_shown_with_their_ecgs(text, results):
    table = results.table
    wrong = table[table["true"] != table["predicted"]]
    confidence = wrong.filter(regex="^p ").max(axis=1)
    order = confidence.sort_values(ascending=False, kind="stable").index
    errors = text.split('id="errors"')[1].split('id="examples"')[0]
    listed, *articles = errors.split("<article>")
    assert set(re.findall(r"<td>(files/r\d+)</td>", listed)) == set(wrong["record"])
    assert len(articles) == 8
    for row, article in zip(order[:8], articles, strict=True):
        tested = table.loc[row]
        assert (f"Label {tested['true']}, predicted {tested['predicted']} "
                f"({confidence[row]:.3f})") in article
        assert f"Record {tested['record']}, patient {tested['subject_id']}" in article


def test_settings_versions_and_flow_are_on_it_and_no_place_of_this_machine(text):
    rows = re.findall(r"<tr>\s*<td>(.*?)</td>\s*<td>(.*?)</td>\s*</tr>", text)
    assert {("sequence_length", "500"), ("python", "3.11.7")} <= set(rows)
    assert re.search(r"<td>train</td>\s*<td>used</td>\s*<td>120</td>", text)
    assert "/home/me" not in text


def test_page_ecgs_and_card_of_an_external_test_set_say_its_own_origin(tmp_path):
    results = write_results(tmp_path / "run", n=3, synthetic=False, labels_origin="two nurses",
                            test_labels_origin="a cart")
    said = "Origin of the labels: two nurses. Origin of the test labels: a cart."
    assert said in page.page(results) and said in model_card.model_card(results)
    ecg = words(ecg_page.draw_tested(results, results.examples[0]))
    assert said in " ".join(ecg.split())


def test_names_from_files_are_shown_and_never_markup(tmp_path):
    text = page.page(write_results(tmp_path / "<i>run", n=9, classes=HOSTILE))
    reader = Reader(text)
    assert not {"script", "i", "em"} & set(reader.tags)
    assert len(reader.sources) == reader.tags.count("img")
    words = "".join(reader.words)
    assert all(name in words for name in HOSTILE[:4])
    assert "\x1b" not in text and "\x07" not in text


def in_a_browser(path, folder):
    """Open a file in headless Chromium; return its title, and what it wrote to the console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        pytest.skip("no Chromium or Chrome: how browsers show the page is not tested")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={folder}/profile", "--window-size=1500,900",
         "--virtual-time-budget=2000", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return html.unescape(re.search("<title>(.*?)</title>", done.stdout)[1]), said


@pytest.mark.parametrize("width", [400, 1400])
def test_on_a_narrow_and_on_a_wide_screen_all_of_it_can_be_read(width, text, tmp_path):
    path = tmp_path / "page.html"
    free = re.sub(r"<meta http-equiv.*?>", "", text, flags=re.DOTALL)
    path.write_text(free.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(address=path.as_uri(), width=width), encoding="utf-8")
    title, said = in_a_browser(frame, tmp_path)
    assert said == []
    assert json.loads(title) == {"broken": 0, "small": 0, "beyond": False, "room": width}
