"""What tests of several folders use."""

import os
from pathlib import Path

import pytest

# Of this process and all that tests start: threads that spin while they wait for each other take several times the
# processor time of their work where tests run side by side.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole workflows first: short tests then fill what is left of the time of pytest's workers."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run of pytest have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
