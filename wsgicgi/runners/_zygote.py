"""Where a warm parent of scripts begins; what it does is in ``_forking``.

There is not more here, because an interpreter takes the tree of its first file apart in each child.
"""

import sys

BASELINE = frozenset(sys.modules)
MAIN_NAMES = {name: value for name, value in globals().items() if name[:2] == name[-2:] == "__"}
HERE = __file__.rpartition("/")[0]
if sys.path[:1] == [HERE]:
    del sys.path[0]  # all modules are the interpreter's own

import importlib.util  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(name: str) -> "Any":
    """Make a module of a file beside this one."""
    spec = importlib.util.spec_from_file_location(name, f"{HERE}/{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    is_quiet, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = is_quiet
    return module


if __name__ == "__main__":
    load("_warden")
    forking = load("_forking")
    del sys.modules["_warden"], sys.modules["_forking"]
    try:
        forking.main(BASELINE, MAIN_NAMES)
    except forking.Begin as begin:
        forking.prepare(*begin.args)
        raise
