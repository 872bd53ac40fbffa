"""Turn any array into leads that can be computed with: real, finite, in columns."""

from typing import Any

import numpy as np
import pandas as pd

BEYOND_ANY_CONVERTER = 1e9    # such a value is damage, like NaN and infinity


def find_runs(is_so: np.ndarray, shortest: float) -> np.ndarray:
    """Return the runs of True in `is_so` (samples,) that are `shortest` samples or longer.

    Each row holds the first sample of a run and the first after it.
    """
    is_edge = np.diff(is_so, prepend=False, append=False)
    runs = np.flatnonzero(is_edge).reshape(-1, 2)
    length = runs[:, 1] - runs[:, 0]
    return runs[length >= shortest]


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
