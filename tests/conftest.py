"""Fixtures that several folders of tests use."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """The folder `shared` beside the checkout, with real data and data simulated by another program; skips without it."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no folder shared/data beside the checkout")
    return folder
