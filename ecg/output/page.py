"""The page index.html of a results folder: its pictures are inside it, and no script runs.

Nothing is fetched, so it works from a mail attachment, but for the link to MODEL_CARD.md beside it.
"""

import base64
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecg import origin
from ecg.errors import printable
from ecg.output import ecg_page, style
from ecg.output.model_card import left_out_by_reason, listed_settings
from ecg.output.read import Results
from ecg.output.write import choose_examples, confident_errors

ERRORS = 6           # whose ECGs are drawn by default
DPI = 100            # of those ECGs: 1,169 pixels wide
MAX_LISTED = 100     # records of one cell of the confusion matrix

PICTURES = {         # by file name: heading and what can be seen
    "training_curves": ("Training", "Loss, accuracy and learning rate by epoch."),
    "roc_precision_recall": ("Each class against the rest", "ROC and precision-recall curves."),
    "reliability": ("Calibration", "How often the model is right, by how sure it is."),
    "features": ("Features", "Features by true class."),
}
BASELINES = {        # by name in metrics.json: what they are
    "model": "this model",
    "rate rule": "baseline: heart rate alone",
    "logistic regression": "baseline: logistic regression on the same features",
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
th, td { padding: 4px 10px; border: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child, .confusion th { text-align: left; }
.confusion td { text-align: center; } .confusion a { color: inherit; display: block; }

.notice { background: #FFF4DA; padding: 8px 12px; border-left: 4px solid #E69F00; }
.headline { font-size: 1.25em; }
.records { display: none; background: #F3F8FB; padding: 4px 12px; }
.records:target { display: block; }
h1, .path, .records td:first-child { overflow-wrap: anywhere; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>ECG classifier {name}</title>
<style>{style}</style>
</head>
<body>
<h1>ECG classifier {name}</h1>
{headline}
<nav><a href="#confusion">Confusion matrix</a> <a href="#classes">Classes</a>
<a href="#errors">Errors</a> <a href="#pictures">Pictures</a> <a href="#examples">Examples</a>
<a href="#left_out">Left out</a> <a href="#settings">Settings and versions</a>
<a href="MODEL_CARD.md">Model card</a></nav>

<h2 id="confusion">Confusion matrix</h2>
<p>Rows: labels; columns: predictions, with shares of the label. A click on a cell lists its
records.</p>
{confusion}

<h2 id="classes">Classes</h2>
{classes}
<p>Decision threshold at 95 % sensitivity: 95 % of the class's validation records have at least this
probability; sensitivity and specificity are those on test patients. –: too few records.</p>

<h2 id="errors">Errors</h2>
{errors}

<h2 id="pictures">Pictures</h2>
{pictures}

<h2 id="examples">Examples</h2>
{examples}

<h2 id="left_out">Left out</h2>
{left_out}

<h2 id="settings">Settings and versions</h2>
<details><summary>{n_settings} settings</summary>{settings}</details>
{versions}
<p>What the model takes and gives, its data and its limits: <a href="MODEL_CARD.md">model card</a>.
{not_medical}</p>
</body>
</html>
"""


# ------------------------------------------------------------------------------------------ HTML
def safe(text: object) -> str:
    """Return text as HTML that shows it: nothing in it is taken for markup."""
    return html.escape(printable(text))


def table(columns: dict[str, Sequence[object]], is_html: bool = False) -> str:
    """Return a table of these columns, whose cells are text, or HTML already."""
    frame = pd.DataFrame(columns).astype(str)
    if not is_html:
        frame = frame.map(safe)
    with pd.option_context("display.max_colwidth", None):
        cells = frame.to_html(index=False, border=0, escape=False)
    return f'<div class="wide">{cells}</div>'


def picture(content: bytes, words: str, broad: bool = True) -> str:
    """Return a PNG inside the page; `words` are HTML.

    On a small screen a broad one is not shrunk until nothing can be read, but can be scrolled.
    """
    data = base64.b64encode(content).decode()
    kind = ' class="broad"' if broad else ""
    return f'<figure{kind}><img src="data:image/png;base64,{data}" alt="{words}"></figure>'


def ecg_picture(results: Results, row: int, words: str) -> str:
    """Return the ECG of a test record as a picture inside the page."""
    return picture(style.as_png(ecg_page.draw_tested(results, row), DPI), words)


# -------------------------------------------------------------------------------------- headline
def _headline(results):
    """Return what the model reached, next to its baselines, and what it is not."""
    run, metrics = results.run, results.metrics
    columns = {"": list(BASELINES.values())}
    for kind in ("balanced accuracy", "accuracy"):
        columns[kind] = ["{:.3f} ({:.2f}–{:.2f})".format(*metrics[who][kind]) for who in BASELINES]
    notice = f"{origin.caution(run)} {origin.note(run)}".strip()
    unseen = origin.unseen(run, run["recipe"]["epochs"] != 0)
    return "\n".join([
        f'<p class="headline">Balanced accuracy <b>{columns["balanced accuracy"][0]}</b> '
        f"on {metrics['records']} records of {metrics['patients']} patients{unseen} "
        "(95 % interval over patients).</p>",
        f'<p class="notice">{safe(notice)}</p>',
        table(columns)])


# ------------------------------------------------------------------------------- confusion matrix
def _cell(n, share, i, j):
    """Return a cell of the confusion matrix, coloured by its share, that leads to its records."""
    words = f"{n}<br>–" if np.isnan(share) else f"{n}<br>{share:.0%}"
    if not n:
        return f"<td>{words}</td>"
    return (f'<td style="background: rgba(0, 114, 178, {0.75 * share:.2f})">'
            f'<a href="#cell-{i}-{j}">{words}</a></td>')


def _records(results, i, j, numbers):
    """Return the records of a cell, shown when the cell is clicked.

    `numbers` has, by row of a record, the number under which its error is shown.
    """
    rows = np.flatnonzero((results.true == i) & (results.predicted == j))
    p = results.probabilities[:, j]
    rows = rows[np.argsort(-p[rows], kind="stable")]
    listed = rows[:MAX_LISTED]
    records = results.table["record"].iloc[listed].map(safe)
    links = [f'<a href="#error-{numbers[row]}">{record}</a>' if row in numbers else record
             for row, record in zip(listed, records, strict=True)]

    cells = {"record": links,
             "patient": results.table["subject_id"].iloc[listed].map(safe).tolist(),
             "probability": [f"{p[row]:.3f}" for row in listed]}
    n_more = len(rows) - len(listed)
    rest = f"<p>{n_more} more are in predictions.csv.</p>" if n_more else ""
    label, predicted = safe(results.classes[i]), safe(results.classes[j])
    return (f'<div class="records" id="cell-{i}-{j}"><h3>Label {label}, predicted {predicted}: '
            f"{len(rows)} records</h3>{table(cells, is_html=True)}{rest}</div>")


def _confusion(results, numbers):
    """Return the confusion matrix, whose cells lead to their records."""
    names = [f"<th>{safe(name)}</th>" for name in results.classes]
    n = len(names)
    counts = np.bincount(results.true * n + results.predicted, minlength=n * n).reshape(n, n)
    with np.errstate(invalid="ignore"):    # a class without records
        shares = counts / counts.sum(axis=1, keepdims=True)

    rows = [f"<tr><th></th>{''.join(names)}</tr>"]
    for i, name in enumerate(names):
        cells = "".join(_cell(counts[i, j], shares[i, j], i, j) for j in range(n))
        rows.append(f"<tr>{name}{cells}</tr>")
    lists = [_records(results, i, j, numbers) for i, j in zip(*np.nonzero(counts), strict=True)]
    return "\n".join([
        f'<div class="wide"><table class="confusion">{"".join(rows)}</table></div>', *lists])


def _classes(results):
    """Return precision, recall, F1 score and threshold by class."""
    rows = []
    for name in results.classes:
        scores = results.metrics["per class"][name]
        at = results.metrics["thresholds"][name] or {}
        values = [scores[kind] if scores["support"] else None
                  for kind in ("precision", "recall", "f1-score")]
        values += [at.get(kind) for kind in ("probability", "sensitivity", "specificity")]
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        rows.append([name, f"{scores['support']:.0f}", *cells])

    heading = ["class", "test records", "precision", "recall", "F1", "threshold",
               "sensitivity there", "specificity there"]
    return table(dict(zip(heading, zip(*rows, strict=True), strict=True)))


# ------------------------------------------------------------------------------------------ ECGs
def _out_of_range(results, row):
    """Return the features of a record that are out of their reference range."""
    words = []
    for feature in results.features:
        value = results.table[feature.column].iloc[row]
        if feature.reference and not feature.reference[0] <= value <= feature.reference[1]:
            low, high = feature.reference
            measured = f"{value:.3g}" if np.isfinite(value) else "not measurable"
            reference = f"{low:g}–{high:g} {feature.unit}".strip()
            words.append(f"{feature.name} {measured} ({reference})")
    return safe(", ".join(words) or "none")


def _error(results, number, row):
    """Return what is known of one wrongly classified record."""
    names = [safe(name) for name in results.classes]
    p = results.probabilities[row]
    record, subject = (safe(results.table[name].iloc[row]) for name in ("record", "subject_id"))
    label, predicted = names[results.true[row]], names[results.predicted[row]]
    order = np.argsort(-p, kind="stable")
    probabilities = ", ".join(f"{names[i]} {p[i]:.3f}" for i in order)
    return f"""<article id="error-{number}">
<h3>{number}. Label {label}, predicted {predicted} ({p.max():.3f})</h3>
<p class="path">Record {record}, patient {subject}<br>Probabilities: {probabilities}<br>
Out of the reference range: {_out_of_range(results, row)}</p>
{ecg_picture(results, row, f"ECG of {record}")}</article>"""


def _errors(results, numbers):
    """Return the most confident errors with their ECGs; `numbers` are theirs, by row."""
    n_wrong = np.sum(results.true != results.predicted)
    if not n_wrong:
        return "<p>No test record was classified wrongly.</p>"
    words = (f"<p>{n_wrong} of {len(results.true)} test records were classified otherwise than "
             f"labelled. The {len(numbers)} most confident: either the model is wrong, or the "
             "label.</p>")
    return "\n".join([words, *(_error(results, number, row) for row, number in numbers.items())])


def rows_of_ecgs(results: Results, errors: int) -> list[int]:
    """Return the test records whose ECGs are shown: an example of each class, then the errors."""
    examples = choose_examples(results.true, results.probabilities)
    return [*examples.values(), *confident_errors(results.true, results.probabilities, errors)]


# ------------------------------------------------------------------------------------------ page
def _pictures(results):
    """Return the figures that were drawn."""
    parts = []
    for name, (heading, words) in PICTURES.items():
        path = results.folder / "figures" / f"{name}.png"
        shown = "<p>Not drawn: python tools/figures.py draws it.</p>"
        if path.is_file():
            shown = picture(path.read_bytes(), words, broad=name != "reliability")
        if name == "training_curves" and not results.has_epochs:
            shown = "<p>No epoch was trained.</p>"
        parts.append(f"<h3>{heading}</h3><p>{words}</p>{shown}")
    return "\n".join(parts)


def _examples(results):
    """Return the example of each class that the test has."""
    parts = []
    for number, row in choose_examples(results.true, results.probabilities).items():
        words = f"{safe(results.classes[number])}: a typical record."
        parts.append(f"<p>{words}</p>{ecg_picture(results, row, words)}")
    return "\n".join(parts)


def page(results: Results, errors: int = ERRORS) -> str:
    """Return index.html of a results folder, from its files alone.

    Parameters
    ----------
    results : whose figures are taken from the folder's `figures/`
    errors : how many of the most confident errors are shown with their ECGs, at most
        `ecg.output.write.KEPT_ERRORS`
    """
    rows = confident_errors(results.true, results.probabilities, errors)
    numbers = {row: number for number, row in enumerate(rows, start=1)}
    left_out = left_out_by_reason(results)
    settings = listed_settings(results.run)
    versions = results.run["versions"]
    no_record = "<p>No record was left out.</p>"
    return PAGE.format(
        name=safe(results.folder.resolve().name),
        style=STYLE,
        headline=_headline(results),
        confusion=_confusion(results, numbers),
        classes=_classes(results),
        errors=_errors(results, numbers),
        pictures=_pictures(results),
        examples=_examples(results),
        left_out=table({"reason": left_out.index, "records": left_out.to_numpy()})
        if len(left_out) else no_record,
        n_settings=len(settings),
        settings=table({"setting": list(settings), "value": list(settings.values())}),
        versions=table({"package": list(versions), "version": list(versions.values())}),
        not_medical=origin.NOT_MEDICAL,
    )
