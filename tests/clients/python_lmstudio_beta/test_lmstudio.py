"""The tests of the released `lmstudio` library with its next version."""

import importlib.util
import pathlib

import lmstudio

_shared = pathlib.Path(__file__).parents[1] / "python" / "test_lmstudio.py"
_spec = importlib.util.spec_from_file_location("lmstudio_tests", _shared)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
globals().update({name: value for name, value in vars(_module).items() if not name.startswith("_")})


def test_this_is_the_next_version():
    assert lmstudio.__version__.startswith("1.6")
