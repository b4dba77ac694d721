"""The store that the tests of reports share."""

from __future__ import annotations

import pytest
from reports_example import Example, make_example


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return make_example(tmp_path_factory.mktemp("example"))
