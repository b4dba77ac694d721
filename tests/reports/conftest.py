"""The store and the browser that the tests of reports share."""

from __future__ import annotations

import pytest
from browser_visit import browser
from reports_example import Example, make_example

__all__ = ["browser"]


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return make_example(tmp_path_factory.mktemp("example"))
