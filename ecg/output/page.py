"""Write index.html, a results folder on one page: a single file that needs nothing else.

Pictures are inside it, there is no script, and nothing is fetched: it works from a mail attachment.
"""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ecg import origin
from ecg.errors import printable
from ecg.output import ecg_page, style
from ecg.output.model_card import left_out_by_reason, listed_settings, model_card
from ecg.output.read import (
    Folder,
    Predictions,
    has_epochs,
    read_metrics,
    read_predictions,
    reading,
    reading_arrays,
)
from ecg.output.write import KEPT_ERRORS, PAGES, write_bytes

ERRORS = 6           # whose ECGs are drawn by default
DPI = 100            # of those ECGs: 1,169 pixels wide
MOST_LISTED = 100    # records of one cell of the confusion matrix

PICTURES = {         # by file name: heading and what can be seen
    "training_curves": ("Training", "Loss, accuracy and learning rate by epoch."),
    "roc_precision_recall": ("Each class against the rest", "ROC and precision-recall curves."),
    "reliability": ("Calibration", "How often the model is right, by how sure it is."),
    "features": ("Features", "Features by true class."),
}
SECTIONS = {         # by id: the link at the top
    "confusion": "Confusion matrix",
    "classes": "Classes",
    "errors": "Errors",
    "pictures": "Pictures",
    "examples": "Examples",
    "left_out": "Left out",
    "settings": "Settings and versions",
    "card": "Model card",
}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1100px;
  padding: 0 16px 64px; }
h1 { font-size: 1.6em; } h2 { margin-top: 2em; border-bottom: 1px solid #ddd; }

nav a { margin-right: 1em; white-space: nowrap; }
a { color: #0072B2; }
img { max-width: 100%; height: auto; border: 1px solid #eee; }
figure { margin: 1em 0; overflow-x: auto; }
figure.broad img { max-width: none; width: max(100%, 720px); box-sizing: border-box; }

.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 4px 10px; border: 1px solid #ddd; text-align: left; vertical-align: top; }
td.number, td.cell { text-align: right; } td.cell { text-align: center; }
td.cell a { color: inherit; display: block; }

.notice { background: #FFF4DA; padding: 8px 12px; border-left: 4px solid #E69F00; }
.headline { font-size: 1.25em; }
.records { display: none; background: #F3F8FB; padding: 4px 12px; }
.records:target { display: block; }
.path, #card p { overflow-wrap: anywhere; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">

<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


# ------------------------------------------------------------------------------------------ HTML
def safe(text: object, most: int = 500) -> str:
    """Return text from a file as HTML that shows it: nothing in it is taken for markup."""
    return html.escape(printable(text, most))


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already; cells of digits stand to the right."""
    head = "".join(f"<th>{cell}</th>" for cell in heading)
    lines = [f"<tr>{head}</tr>"]
    for row in rows:
        cells = []
        for cell in row:
            kind = ' class="number"' if re.fullmatch(r"[\d.,–%() ]+", cell) else ""
            cells.append(f"<td{kind}>{cell}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def section(name: str, *content: str) -> str:
    """Return a section under the heading that the link at the top has."""
    return f'<section id="{name}"><h2>{SECTIONS[name]}</h2>\n' + "\n".join(content) + "</section>"


def picture(content: bytes, words: str, broad: bool = True) -> str:
    """Return a PNG inside the page; `words` are HTML.

    On a small screen a broad one is not shrunk until nothing can be read, but can be scrolled.
    """
    data = base64.b64encode(content).decode()
    kind = ' class="broad"' if broad else ""
    return f'<figure{kind}><img src="data:image/png;base64,{data}" alt="{words}"></figure>'


def halved(content: bytes) -> bytes:
    """Return a PNG at half its size: of A4 at 200 dpi, the page shows no more than that."""
    smaller = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").reduce(2).save(smaller, "png")
    return smaller.getvalue()


def _file_picture(folder, stem, words, broad=True, lighten=bytes):
    """Return a figure that was drawn before, or say how it is drawn.

    `lighten` is called with the content of its file.
    """
    path = Path(folder) / "figures" / f"{stem}.png"
    if not path.is_file():
        return f"<p>{words} Not drawn: python tools/figures.py draws it.</p>"
    with reading(path):
        return f"<p>{words}</p>{picture(lighten(path.read_bytes()), words, broad)}"


# -------------------------------------------------------------------------------------- headline
def _interval(found):
    """Write [value, low, high]."""
    value, low, high = found
    return f"{value:.3f} ({low:.2f}–{high:.2f})"


def _headline(run, metrics):
    """Return what the model reached, next to its baselines, and what it is not."""
    kinds = ["balanced accuracy", "accuracy"]
    baselines = {"model": "this model", "rate rule": "heart rate alone",
              "logistic regression": "logistic regression on the same features"}
    rows = [[words, *(_interval(metrics[who][kind]) for kind in kinds)]
            for who, words in baselines.items()]
    notice = " ".join(filter(None, [origin.caution(run), origin.note(run)]))
    patients = safe(metrics["patients"])
    unseen = origin.unseen(run, run["method"].get("epochs") != 0)
    return "\n".join([
        f'<p class="headline">Balanced accuracy <b>{_interval(metrics["model"][kinds[0]])}</b> '
        f"on {metrics['records']} records of {patients} patients{unseen} "
        "(95 % interval over patients).</p>",
        f'<p class="notice">{safe(notice)}</p>',
        table(["", *kinds], rows)])


# ------------------------------------------------------------------------------- confusion matrix
def _cell(counts, i, j):
    """Return a cell of the confusion matrix, coloured by its share, that leads to its records."""
    total = counts[i].sum()
    share = counts[i, j] / total if total else 0
    colour = f"rgba(0, 114, 178, {0.75 * share:.2f})"
    words = f"{counts[i, j]}<br>{share:.0%}" if total else "0<br>–"
    if counts[i, j]:
        words = f'<a href="#cell-{i}-{j}">{words}</a>'
    return f'<td class="cell" style="background: {colour}">{words}</td>'


def _records(found, i, j, with_ecg):
    """Return the records of a cell, shown when the cell is clicked."""
    names = found.run["classes"]
    places = np.flatnonzero((found.true == i) & (found.predicted == j))
    p = found.probabilities[places, j]
    places = places[np.argsort(-p, kind="stable")]
    rows = []
    for place in places[:MOST_LISTED]:
        record = safe(found.table["record"].iloc[place])
        if place in with_ecg:
            record = f'<a href="#error-{with_ecg[place]}">{record}</a>'
        rows.append([f'<span class="path">{record}</span>',
                     safe(found.table["subject_id"].iloc[place]),
                     f"{found.probabilities[place, j]:.3f}"])

    more = len(places) - len(rows)
    rest = f"<p>{more} more are in predictions.csv.</p>" if more else ""
    heading = f"Label {safe(names[i])}, predicted {safe(names[j])}: {len(places)} records"
    columns = ["record", "patient", "probability"]
    return (f'<div class="records" id="cell-{i}-{j}"><h3>{heading}</h3>'
            f"{table(columns, rows)}{rest}</div>")


def _confusion(found, with_ecg):
    """Return the confusion matrix, whose cells lead to their records."""
    names = [safe(name) for name in found.run["classes"]]
    n = len(names)
    counts = np.bincount(found.true * n + found.predicted, minlength=n * n).reshape(n, n)
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for i, name in enumerate(names):
        cells = "".join(_cell(counts, i, j) for j in range(n))
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")

    lists = [_records(found, i, j, with_ecg) for i, j in zip(*np.nonzero(counts), strict=True)]
    return section(
        "confusion",
        "<p>Rows: labels; columns: predictions, with shares of the label. A click on a cell lists "
        "its records.</p>",
        f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>', *lists)


def _classes(run, metrics):
    """Return precision, recall, F1 score and threshold by class."""
    rows = []
    for name in run["classes"]:
        scores = metrics["per class"][name]
        tested = scores["support"]
        values = [f"{scores[kind]:.3f}" if tested else "–"
                  for kind in ("precision", "recall", "f1-score")]
        rows.append([safe(name), *values, f"{tested:.0f}", *_threshold(metrics, name)])

    heading = ["class", "precision", "recall", "F1", "test records", "threshold",
               "sensitivity there", "specificity there"]
    words = ("<p>Threshold: from this probability on, 95 % of the class's validation records are "
             "found; sensitivity and specificity are those on test patients. –: too few "
             "records.</p>")
    return section("classes", table(heading, rows), words)


def _threshold(metrics, name):
    """Return the cells of a class's threshold; in older results there is none."""
    found = metrics.get("thresholds", {}).get(name)
    if not found:
        return ["–", "–", "–"]
    values = [found[kind] for kind in ("probability", "sensitivity", "specificity")]
    return ["–" if value is None else f"{value:.3f}" for value in values]


# ---------------------------------------------------------------------------------------- errors
def most_confident_errors(found: Predictions, most: int) -> list[int]:
    """Return the places of wrongly classified records, the most confident first."""
    wrong = np.flatnonzero(found.true != found.predicted)
    confidence = found.probabilities[wrong].max(axis=1)
    order = np.argsort(-confidence, kind="stable")[:most]
    return wrong[order].tolist()


def draw_errors(folder: Folder, found: Predictions, places: Sequence[int]) -> dict[int, bytes]:
    """Return the ECG of each of these records as a PNG, as far as the run has kept them."""
    path = Path(folder) / "errors.npz"
    if not path.exists():    # of an older run
        return {}

    drawn = {}
    with reading_arrays(path) as data:
        kept = {str(data[f"record_{number}"]): number
                for number in range(KEPT_ERRORS) if f"record_{number}" in data}
        for place in places:
            record = found.table["record"].iloc[place]
            if record in kept:
                page = ecg_page.draw_tested(found, data, kept[record])
                drawn[place] = style.as_png(page, DPI)
    return drawn


def _unusual(found, place):
    """Return the features of a record that are out of their usual range."""
    words = []
    for feature in found.run["features"]:
        value = found.table[feature.column].iloc[place]
        if feature.usual and not feature.usual[0] <= value <= feature.usual[1]:
            low, high = feature.usual
            measured = f"{value:.3g}" if np.isfinite(value) else "not measurable"
            usual = f"(usual {low:g}–{high:g} {safe(feature.unit)}".rstrip() + ")"
            words.append(f"{safe(feature.name)} {measured} {usual}")
    return ", ".join(words) or "none"


def _error(found, number, place, png):
    """Return what is known of one wrongly classified record."""
    names = found.run["classes"]
    p = found.probabilities[place]
    record = safe(found.table["record"].iloc[place])
    label = safe(names[found.true[place]])
    predicted = safe(names[found.predicted[place]])
    order = np.argsort(-p, kind="stable")
    probabilities = ", ".join(f"{safe(names[i])} {p[i]:.3f}" for i in order)
    lines = [
        f'<article id="error-{number}"><h3>{number}. Label {label}, predicted {predicted} '
        f"({p.max():.3f})</h3>",
        f'<p class="path">Record {record}, patient '
        f"{safe(found.table['subject_id'].iloc[place])}<br>Probabilities: {probabilities}<br>"
        f"Out of the usual range: {_unusual(found, place)}</p>",
    ]
    if png:
        lines.append(picture(png, f"ECG of {record}"))
    return "\n".join([*lines, "</article>"])


def _errors(found, places, drawn):
    """Return the most confident errors with their ECGs."""
    n_wrong = int((found.true != found.predicted).sum())
    if not n_wrong:
        return section("errors", "<p>No test record was classified wrongly.</p>")

    words = (f"<p>{n_wrong} of {len(found.true)} test records were classified otherwise than "
             f"labelled. The {len(places)} most confident: either the model is wrong, or the "
             "label.</p>")
    each = [_error(found, number, place, drawn.get(place))
            for number, place in enumerate(places, start=1)]
    return section("errors", words, *each)


# ------------------------------------------------------------------------------------------ card
def _inline(text: str) -> str:
    """Turn bold and escaped letters of a Markdown line into HTML; all else is escaped."""
    parts = []
    end = 0
    text = text.replace("\n", " ")
    for match in re.finditer(r"\\(.)|\*\*(.+?)\*\*", text):
        parts.append(safe(text[end:match.start()], most=10_000))
        end = match.end()
        letter, bold = match.groups()
        parts.append(safe(letter) if letter else f"<b>{_inline(bold)}</b>")
    return "".join([*parts, safe(text[end:], most=10_000)])


def _block(lines: list[str]) -> str:
    """Turn a block of a model card, lines without a blank one, into HTML."""
    heading = re.match(r"(#+) (.*)", lines[0])
    if heading:
        level = min(len(heading[1]) + 2, 6)
        rest = _block(lines[1:]) if lines[1:] else ""
        return f"<h{level}>{_inline(heading[2])}</h{level}>{rest}"

    if lines[0].startswith("|"):
        rows = [[_inline(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in lines]
        return table(rows[0], rows[2:])

    item = re.match(r"(\d+\.|-) ", lines[0])
    text = "\n".join(lines)
    if item:
        kind = "ul" if item[1] == "-" else "ol"
        items = re.split(r"(?:^|\n)(?:\d+\.|-) ", text)[1:]
        each = "".join(f"<li>{_inline(words)}</li>" for words in items)
        return f"<{kind}>{each}</{kind}>"
    return f"<p>{_inline(text)}</p>"


def card_as_html(markdown: str) -> str:
    """Turn the Markdown that model cards are made of into HTML."""
    blocks = [block.splitlines() for block in re.split(r"\n\s*\n", markdown) if block.strip()]
    return "\n".join(_block(lines) for lines in blocks)


# ------------------------------------------------------------------------------------------ page
def _examples(folder, found):
    """Return the example of each class that the test has."""
    pictures = []
    for number, name in enumerate(found.run["classes"]):
        if (found.true == number).any():
            stem = ecg_page.example_name(number, name)
            words = f"{safe(name)}: a usual record."
            pictures.append(_file_picture(folder, stem, words, lighten=halved))
    return section("examples", *pictures)


def _pictures(folder, run):
    """Return the figures that were drawn."""
    each = []
    for stem, (heading, words) in PICTURES.items():
        if stem == "training_curves" and not has_epochs(run):    # an earlier run's may be there
            each.append(f"<h3>{heading}</h3><p>No epoch was trained.</p>")
            continue
        drawn = _file_picture(folder, stem, words, broad=stem != "reliability")
        each.append(f"<h3>{heading}</h3>{drawn}")
    return section("pictures", *each)


def _left_out(folder):
    """Return how many records were left out for which reason."""
    counts = left_out_by_reason(folder)
    if counts.empty:
        return section("left_out", "<p>No record was left out.</p>")
    rows = [[safe(reason), str(n)] for reason, n in counts.items()]
    return section("left_out", table(["reason", "records"], rows))


def _settings(run):
    """Return settings and versions, without what names places on somebody's machine."""
    rows = [[safe(name), safe(value)] for name, value in listed_settings(run).items()]
    versions = [[safe(name), safe(value)] for name, value in run["versions"].items()]
    settings = table(["setting", "value"], rows)
    folded = f"<details><summary>{len(rows)} settings</summary>{settings}</details>"
    return section("settings", folded,
                   table(["package", "version"], versions))


def page(folder: Folder, errors: int = ERRORS) -> str:
    """Return index.html of a results folder, from its files alone.

    Parameters
    ----------
    folder : the results folder; pictures are taken from its `figures/`
    errors : how many of the most confident errors are shown, with their ECGs where the run kept
        them

    Raises
    ------
    ResultsError
        If a file of the folder is missing or damaged.
    """
    found = read_predictions(folder)
    metrics = read_metrics(folder)
    places = most_confident_errors(found, errors)
    drawn = draw_errors(folder, found, places)
    numbers = {place: number for number, place in enumerate(places, start=1)}
    name = safe(Path(folder).resolve().name)
    links = "".join(f'<a href="#{name}">{words}</a> ' for name, words in SECTIONS.items())
    with reading(Path(folder) / "metrics.json"):
        headline = _headline(found.run, metrics)
        classes = _classes(found.run, metrics)

    with reading(Path(folder) / "run.json"):
        settings = _settings(found.run)
        pictures = _pictures(folder, found.run)

    body = "\n".join([
        f"<h1>ECG classifier {name}</h1>",
        headline,
        f"<nav>{links}</nav>",
        _confusion(found, numbers),
        classes,
        _errors(found, places, drawn),
        pictures,
        _examples(folder, found),
        _left_out(folder),
        settings,
        section("card", card_as_html(model_card(folder))),
        f"<p>{origin.NOT_MEDICAL}</p>",
    ])
    return PAGE.format(title=f"ECG classifier {name}", style=STYLE, body=body)


def write_page(folder: Folder, errors: int = ERRORS, force: bool = False) -> Path:
    """Write index.html into the folder of a run, by force over somebody else's; return its path."""
    path = Path(folder) / "index.html"
    write_bytes(path, page(folder, errors).encode(), PAGES[path.name], force)
    return path
