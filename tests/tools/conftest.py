"""What several tests of the tools need."""

import pytest

from tests.support.models import save


@pytest.fixture(scope="package")
def model(tmp_path_factory):
    """The path of a small model with random weights."""
    return save("lstm", tmp_path_factory.mktemp("model") / "m.keras")
