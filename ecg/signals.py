"""Turn any array into leads that can be computed with: real, finite, in columns."""

import math
from typing import Any

import numpy as np
import pandas as pd

MIN_FS, MAX_FS = 50, 4000   # Hz; the QRS band reaches to 20 Hz
MAX_LIMB_ERROR = 0.3        # of the larger of I and II; rounding and filters give 0.01
BEYOND_ANY_CONVERTER = 1e9    # such a value is damage, like NaN and infinity


def check_rate(fs: float) -> int:
    """Return the samples of a second, the least that features are measured on."""
    if not MIN_FS <= fs <= MAX_FS:
        raise ValueError(f"expected fs from {MIN_FS} to {MAX_FS} Hz, got {fs}")
    return math.ceil(fs)


def as_leads(signal: Any, shortest: int = 1, n_leads: int = 12) -> np.ndarray:
    """Validate an ECG and fill its gaps.

    Parameters
    ----------
    signal : array_like, shape (samples, n_leads)
    shortest : int
        Samples at least.
    n_leads : int

    Returns
    -------
    ndarray of float64, shape (samples, n_leads)
        Each lead contiguous in memory; not to be changed, as it may be the caller's own array.
        Gaps (NaN, infinities, absurd values) are interpolated linearly; a lead of gaps alone is 0.

    Raises
    ------
    ValueError
        Not real numbers of that shape.
    """
    leads = np.asarray(signal)
    is_right = leads.ndim == 2 and leads.shape[1] == n_leads
    if not is_right or leads.dtype.kind not in "biuf":
        raise ValueError(f"expected real numbers of shape (samples, {n_leads}), got "
                         f"{leads.dtype} of shape {leads.shape}")
    if len(leads) < shortest:
        raise ValueError(f"expected {shortest} samples or more, got {len(leads)}")

    leads = leads.astype(np.float64, copy=False)
    is_sound = leads.min() > -BEYOND_ANY_CONVERTER and leads.max() < BEYOND_ANY_CONVERTER
    if not is_sound:    # NaN makes both comparisons false
        known = np.where(np.abs(leads) < BEYOND_ANY_CONVERTER, leads, np.nan)
        filled = pd.DataFrame(known).interpolate(limit_direction="both").fillna(0.0)
        leads = filled.to_numpy()
    return np.asfortranarray(leads)


def limb_leads_add_up(leads: np.ndarray) -> bool:
    """Tell whether I, II, III and aVR, the first leads (samples, 12), add up as Einthoven's do."""
    i, ii, iii, avr = leads.T[:4, ::5]    # every fifth sample tells as well
    errors = np.var([iii - ii + i, avr + (i + ii) / 2], axis=1)
    return errors.max() <= MAX_LIMB_ERROR**2 * max(np.var(i), np.var(ii))
