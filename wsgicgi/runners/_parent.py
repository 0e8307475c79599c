"""The beginning of a warm parent: it loads the files beside this one, and leaves the rest to ``_forking``.

It is not imported but executed by ``_zygote``, before anything else.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    main: "dict[str, Any]" = {}  # given by ``_zygote``: its names

BASELINE = frozenset(sys.modules)
MAIN_NAMES = {name: value for name, value in main.items() if name[:2] == name[-2:] == "__"}
HERE = MAIN_NAMES["__file__"].rpartition("/")[0]
if sys.path[:1] == [HERE]:
    del sys.path[0]  # all modules are the interpreter's own

import importlib.util  # noqa: E402

FILES = ("_warden", "_loaded", "_programs", "_ending", "_script", "_forking")


def load(name: str) -> "Any":
    """Make a module of a file beside this one."""
    spec = importlib.util.spec_from_file_location(name, f"{HERE}/{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    is_quiet, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = is_quiet
    return module


forking = [load(name) for name in FILES][-1]
for name in FILES:
    del sys.modules[name]
forking.main(BASELINE, MAIN_NAMES)
