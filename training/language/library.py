"""llama.cpp's functions (llama-cpp-python's ctypes layer) without the rest of that package, which opens /dev/null for
writing when it is imported: nothing in a job's process may open a file for writing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

PACKAGE = "llama_cpp"


@cache
def llama_cpp() -> Any:
    """The module `llama_cpp.llama_cpp`; ImportError where the extra `language` is not installed."""
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"{PACKAGE} is not installed")
        package = ModuleType(PACKAGE)
        package.__path__, package.__spec__ = list(spec.submodule_search_locations), spec
        sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.llama_cpp")
