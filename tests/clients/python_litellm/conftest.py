"""The product, fixtures and options of the other Python clients."""

import importlib.util
import pathlib

_shared = pathlib.Path(__file__).parents[1] / "python" / "conftest.py"
_spec = importlib.util.spec_from_file_location("clients_conftest", _shared)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
globals().update({name: value for name, value in vars(_module).items() if not name.startswith("_")})
