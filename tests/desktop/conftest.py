"""Fixtures: a private desktop per test, and where pictures go."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from desktop import Desktop  # noqa: E402


@pytest.fixture
def desktop():
    private = Desktop()
    yield private
    private.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Screenshots go here; name LLAMA_RUNNER_PICTURES to keep them."""
    named = os.environ.get("LLAMA_RUNNER_PICTURES")
    folder = pathlib.Path(named) if named else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the applications said."""
    outcome = yield
    report = outcome.get_result()
    private = item.funcargs.get("desktop") if hasattr(item, "funcargs") else None
    if report.when == "call" and report.failed and private:
        for thing in private.opened:
            if hasattr(thing, "log"):
                report.sections.append(("application log", thing.log()[-8000:]))
