"""Let the measured heart rate decide between bradycardia, normal and tachycardia.

The three differ in nothing but the heart rate, which is measured to half a beat per minute. A
network alone learns a hospital's habits around 55 bpm, and carries them to the next hospital. So
behind the trained network, the core, the heart rate decides which of the three classes gets the sum
of their probabilities. The limits are fixed, or fitted to the training labels. The step has no
weights.
"""

import re
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from ecg.errors import user_errors
from ecg.metrics import FAST_BPM, SLOW_BPM

RATE_CLASSES = "bradycardia", "normal", "tachycardia"
WIDTH_BPM = 2.0             # of the logistic curve from one of them to the next
MAX_WITHOUT_RATE = 0.5      # probability of each where no rate was measured

# Chosen in folds of PTB-XL, and by demo labels of other limits: see benchmarks/LOG.md
PRIOR_RECORDS = 100         # weight of the prior, the reference range
PRIOR_BPM = np.arange(30.0, 151.0)    # heart rates of these records
LEAST_LIKELY = 0.01         # floor for the probability of a label: some are wrong


class RateStep(NamedTuple):
    """How the heart rate divides the three classes; `NO_STEP`, without places, changes nothing.

    Parameters
    ----------
    places : indices of bradycardia, normal and tachycardia among the classes
    limits : bpm; below the first is bradycardia, above the second tachycardia
    """

    places: list[int]
    limits: list[float]

    def apply(self, probabilities: Any, rate: Any, xp: Any = np) -> Any:
        """Return probabilities after the step.

        Parameters
        ----------
        probabilities : ndarray, shape (n, n_classes), of the core
        rate : ndarray, shape (n, 1), heart rates in bpm, NaN where not measurable
        xp : module
            NumPy, or `keras.ops` for Keras's tensors.
        """
        if not self.places:
            return probabilities
        columns = [probabilities[:, place:place + 1] for place in range(probabilities.shape[1])]
        core = [columns[place] for place in self.places]
        excess = [xp.maximum(p - MAX_WITHOUT_RATE, 0.0) for p in core]
        # Before `where`: exported to ONNX it becomes products, through which NaN would spread
        rate = xp.nan_to_num(rate, nan=0.0)
        is_known = rate > 0
        # A logistic curve, by the hyperbolic tangent, which both modules have
        low, high = (
            0.5 + 0.5 * xp.tanh((rate - limit) / (2 * WIDTH_BPM))
            for limit in self.limits)
        by_rate = 1 - low, low - high, high

        for place, p, over, share in zip(
                self.places, core, excess, by_rate, strict=True):
            without_rate = p - 1.5 * over + 0.5 * sum(excess)    # half and half to the other two
            columns[place] = xp.where(is_known, share * sum(core), without_rate)
        return xp.hstack(columns)

    def behind(self, keras: Any, core: Any, heart_rate: int) -> Any:
        """Return a Keras model: a core and behind it this step, in stock operations of Keras.

        `heart_rate` is the index of the heart rate among the features.
        """
        rate = core.inputs[1][:, heart_rate:heart_rate + 1]
        decided = self.apply(core.outputs[0], rate, keras.ops)
        return keras.Model(core.inputs, decided, name=core.name)

    def in_words(self) -> str:
        """Return what decides, in a few words."""
        if not self.places:
            return ("Rate step: none, as the recipe has none, or as there is not one class each "
                    "called bradycardia, normal and tachycardia")
        low, high = self.limits
        return f"Rate step: bradycardia below {low:.0f} bpm here, tachycardia above {high:.0f}"


NO_STEP = RateStep([], [])


# ----------------------------------------------------------------------------------------- choose
def rate_places(classes: list[str]) -> list[int]:
    """Return the indices of bradycardia, normal and tachycardia; [] unless each is there once."""
    names = [re.sub("sinus|rhythm|ecg|[^a-z]", "", name.casefold()) for name in classes]
    if any(names.count(kind) != 1 for kind in RATE_CLASSES):
        return []
    return [names.index(kind) for kind in RATE_CLASSES]


def of_card(card: dict) -> RateStep:
    """Return the rate step of a card; a malformed card raises any error."""
    limits = card.get("rate_limits")
    if not limits:
        return NO_STEP
    return RateStep(rate_places(card["classes"]), [*map(float, limits)])


def fixed_limits(text: str) -> list[float]:
    """Return the limits in a setting like "60,100"; [] for "" (fit them) and "none" (no step).

    Raises
    ------
    UserError
        It is something else.
    """
    if text in ("", "none"):
        return []
    with user_errors(
            f"--set rate_limits={text:.80}: expected two heart rates in bpm, such as 60,100, or "
            "none", ValueError):
        low, high = map(float, text.split(","))
        if not low < high:
            raise ValueError
    return [low, high]


def choose(text: str, classes: list[str], rate: np.ndarray, targets: np.ndarray) -> RateStep:
    """Return the rate step of these classes with the limits of a setting, or fitted to records.

    Parameters
    ----------
    text : str, "60,100", "none", or "" for fitted limits
    classes : list of str
    rate, targets : ndarray, shape (n,), heart rates in bpm, and indices into `classes`
    """
    places = rate_places(classes)
    if not places or text == "none":
        return NO_STEP
    is_used = rate > 0
    limits = fixed_limits(text) or fit_limits(rate[is_used], targets[is_used], places)
    return RateStep(places, limits)


def fit_limits(rate: np.ndarray, targets: np.ndarray, places: list[int]) -> list[float]:
    """Fit the limits, to 0.1 bpm, to labels (maximum a posteriori); classes have equal weight.

    The prior is that `PRIOR_RECORDS` more records are labelled, softly, by the reference range.

    Parameters
    ----------
    rate : ndarray, shape (n,), heart rates in bpm, one for each record
    targets : ndarray of int, shape (n,); classes without a place are ignored
    places : list of int, indices of the three classes
    """
    start = SLOW_BPM, FAST_BPM
    rates = np.append(rate, PRIOR_BPM)[:, None]

    def shares(limits):
        return -np.diff(expit((rates - limits) / WIDTH_BPM), prepend=1, append=0)

    counts = shares(start) * PRIOR_RECORDS / len(PRIOR_BPM)
    labels = targets[:, None] == places
    counts[:len(rate)] = labels * labels.sum() / len(places) / labels.sum(axis=0).clip(1)

    def cost(limits):
        return -(counts * np.log(shares(limits).clip(LEAST_LIKELY))).sum()

    return minimize(cost, start, method="Nelder-Mead").x.round(1).tolist()
