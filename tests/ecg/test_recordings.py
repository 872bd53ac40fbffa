"""What a shipped model has learnt from: 128 bytes a recording, and what may be in that file."""

import numpy as np
import pytest

from ecg import files, recordings
from tests.support.runs import ROOT


@pytest.fixture
def signals():
    """Eight prepared ECGs of noise, as long as the default's."""
    return np.random.default_rng(0).normal(size=(8, 500, 12)).astype(np.float32)


def write(path, numbers):
    """Write the file beside a model; return the model's path."""
    recordings.known_file(path).write_bytes(files.npz(recordings=numbers))
    return path


def test_recordings_are_known_again_at_any_moment_gain_and_sign_and_others_are_not(
        signals, tmp_path):
    numbers = recordings.as_known(signals[:4])
    assert numbers.nbytes == 4 * 128
    known = recordings.read_known(write(tmp_path / "m.keras", numbers))
    moved = np.roll(-2 * signals, 7, axis=1)
    assert recordings.is_known(moved, known).tolist() == [True] * 4 + [False] * 4
    assert recordings.read_known(tmp_path / "other.keras") is None


def test_the_numbers_are_the_same_on_every_machine_and_for_each_length(signals):
    assert recordings.PROJECTION[:2, :6].tolist() == [[-1, 1, -1, 1, 1, 1], [1, -1, 1, 1, 1, -1]]
    flat = np.zeros((1, 100, 12), np.float32)
    assert not recordings.as_known(flat).any()


def test_shipped_models_tell_what_they_have_learnt_from():
    for name in ("real_large", "real_default"):
        known = recordings.read_known(ROOT / f"models/{name}.keras")
        assert known.shape == (2085, 128)


@pytest.mark.parametrize("numbers", [
    np.zeros((2, 128)), np.zeros((2, 12), np.int8), np.array([None], object)])
def test_a_file_of_another_form_is_refused(tmp_path, numbers):
    with pytest.raises(ValueError, match=r"describe recordings|pickle"):
        recordings.read_known(write(tmp_path / "m.keras", numbers))
