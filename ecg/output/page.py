"""The page index.html of a results folder: its pictures are inside it, and no script runs.

Nothing is fetched, so it works from a mail attachment, but for the link to MODEL_CARD.md beside it.
"""

import base64
import html

import pandas as pd

from ecg import cohort, intervals, origin, rate_step
from ecg.errors import printable
from ecg.output import ecg_page, style, tables
from ecg.output.model_card import listed_settings
from ecg.output.read import Results, read_texts

DPI = 100            # of ECGs: 1,169 pixels wide
PICTURES = {         # heading by file name
    "confusion_matrix": "Confusion matrix",
    "reliability": "Calibration: how often the model is right, by how sure it is",
    "training_curves": "Training: loss, accuracy and learning rate by epoch",
    "roc_precision_recall": "ROC and precision-recall curves of each class against the rest",
    "features": "Features by true class",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1240px;
  padding: 0 16px 64px; }
h1 { font-size: 1.6em; } h2 { margin-top: 2em; border-bottom: 1px solid #ddd; }

nav a { margin-right: 1em; white-space: nowrap; }
a { color: #0072B2; }
img { max-width: 100%; max-height: 52em; border: 1px solid #eee; }
figure { margin: 1em 0; overflow-x: auto; }
section { display: inline-block; max-width: 100%; margin-right: 1em; vertical-align: top; }
@media (max-width: 720px) { img { max-width: none; max-height: none; width: 720px; } }
[alt^="Confusion"], [alt^="Calibration"] { width: 30em; max-width: 100%; }

.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 4px 8px; border: 1px solid #ddd; text-align: right; vertical-align: top; }
td:not(:first-child) { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td:first-child { min-width: 7em; }

.notice { background: #FFF4DA; padding: 8px 12px; border-left: 4px solid #E69F00; }
.headline { font-size: 1.25em; }
h1, .path { overflow-wrap: anywhere; }
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
<p class="headline">Balanced accuracy <b>{balanced_accuracy}</b> on {metrics[records]} records of
{metrics[patients]} patients{unseen} (95 % interval over patients).</p>
<p class="notice">{notice}</p>
{accuracies}
{overall}
<nav><a href="#pictures">Figures</a> <a href="#classes">Classes</a>
<a href="#groups">Groups</a> <a href="#errors">Errors</a>
<a href="#examples">Examples</a> <a href="#cohort">Patients and records</a>
<a href="#settings">Settings and versions</a>
<a href="MODEL_CARD.md">Model card</a></nav>

<h2 id="pictures">Figures</h2>
{pictures}

<h2 id="classes">Classes</h2>
{by_class}
<p>{intervals.IN_WORDS}</p>
<p>{how_drawn}</p>
{at_prevalence}
{thresholds}
<p>Probability: the decision threshold at 95 % sensitivity. 95 % of the class's validation records
have at least this probability; sensitivity and specificity are those on test patients. –: too few
records.</p>
<p>{rate_step}.</p>

<h2 id="groups">Groups of patients</h2>
<p>{cohort.EXPLORATORY} Groups are columns of the label file, such as age and sex.</p>
{groups}

<h2 id="errors">Errors</h2>
<p>{n_wrong} of {metrics[records]} test records were classified otherwise than labelled. Of the most
confident, the ECGs follow: either the model is wrong, or the label.</p>
<details><summary>All errors</summary>{all_errors}</details>
{errors}

<h2 id="examples">Examples</h2>
<p>Of each class, the record with the median probability of it.</p>
{examples}

<h2 id="cohort">Patients and records</h2>
<p>The records that were used, each once, and their patients.</p>
{table1}
<p>What became of each row of the label file:</p>
{flow}

<h2 id="settings">Settings and versions</h2>
<details><summary>{n_settings} settings and versions</summary>{settings}</details>
<p>What the model takes and gives, its data and its limits: <a href="MODEL_CARD.md">model card</a>.
{origin.NOT_MEDICAL}</p>
</body>
</html>
"""


# ------------------------------------------------------------------------------------------ HTML
def safe(text: object) -> str:
    """Return text as HTML that shows it: nothing in it is taken for markup."""
    return html.escape(printable(text))


def html_table(frame: pd.DataFrame) -> str:
    """Return a table of cells that are HTML."""
    with pd.option_context("display.max_colwidth", None):
        cells = frame.to_html(index=False, border=0, escape=False)
    return f'<div class="wide">{cells}</div>'


def table(frame: pd.DataFrame) -> str:
    """Return a table of cells that are text."""
    return html_table(frame.map(safe).rename(columns=safe))


def picture(content: bytes, words: str) -> str:
    """Return a PNG inside the page; `words` are HTML."""
    data = base64.b64encode(content).decode()
    return f'<figure><img src="data:image/png;base64,{data}" alt="{words}"></figure>'


# ------------------------------------------------------------------------------------------ ECGs
def _articles(results, rows):
    """Return what is known of test records, one below the other, with their ECGs."""
    parts = []
    for row in rows:
        subject, record, label, predicted = results.table.iloc[row, :4].map(safe)
        confidence = results.probabilities[row].max()
        ecg = style.as_png(ecg_page.draw_tested(results, row), DPI)
        parts.append(f"""<article>
<h3>Label {label}, predicted {predicted} ({confidence:.3f})</h3>
<p class="path">Record {record}, patient {subject}</p>
{picture(ecg, f"ECG of {record}")}</article>""")
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------ page
def _pictures(results):
    """Return the figures; only training curves may not have been drawn."""
    parts = []
    for name, words in PICTURES.items():
        path = results.folder / "figures" / f"{name}.png"
        shown = "<p>No epoch was trained.</p>"
        if path.exists():
            shown = picture(path.read_bytes(), words)
        parts.append(f"<section><h3>{words}</h3>{shown}</section>")
    return "\n".join(parts)


def page(results: Results) -> str:
    """Return index.html of a results folder, from its files alone, after its figures."""
    run, metrics = results.run, results.metrics
    tested = results.table.iloc[:, :4].assign(confidence=results.probabilities.max(axis=1).round(3))
    wrong = tested[results.true != results.predicted]
    listed = {**listed_settings(run), **run["versions"]}
    shown = {
        **tables.of_metrics(metrics),
        "table1": read_texts(results.folder / "table1.csv"),
        "flow": read_texts(results.folder / "flow.csv"),
        "all_errors": wrong.sort_values("confidence", ascending=False),
        "settings": pd.DataFrame(listed.items(), columns=["setting or package", "value"])}

    return PAGE.format(
        **{name: table(frame) for name, frame in shown.items()},
        name=safe(results.folder.resolve().name),
        style=STYLE,
        balanced_accuracy=tables.as_text(metrics["model"]["balanced accuracy"]),
        metrics=metrics,
        unseen=origin.unseen(run, run["recipe"]["epochs"] != 0),
        notice=safe(" ".join(filter(None, [
            origin.caution(run), origin.note(run, is_tested=True), origin.label_error(run)]))),
        cohort=cohort,
        intervals=intervals,
        origin=origin,
        how_drawn=tables.how_drawn(metrics),
        rate_step=rate_step.of_card(run).in_words(),

        n_wrong=len(wrong),
        errors=_articles(results, results.errors),
        pictures=_pictures(results),
        examples=_articles(results, results.examples),
        n_settings=len(listed))
