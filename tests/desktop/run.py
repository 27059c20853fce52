#!/usr/bin/env python3
"""All tests of tray, window and pages: `python tests/desktop/run.py [pytest arguments]`."""
import pathlib
import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "--color=no", str(pathlib.Path(__file__).parent), *sys.argv[1:]]))
