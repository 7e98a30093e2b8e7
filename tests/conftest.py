"""What tests of several folders use."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import toy_corpus

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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    toy_corpus.make(folder)
    return folder


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """The command line sets up the project's logger; no test leaves that to the next one."""
    logger = logging.getLogger("ssondo")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
