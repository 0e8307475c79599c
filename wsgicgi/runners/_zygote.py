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


def load(name):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(name, f"{HERE}/{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    module.__dict__.update(BASELINE=BASELINE, MAIN_NAMES=MAIN_NAMES)
    is_quiet, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = is_quiet
    return module


if __name__ == "__main__":
    load("_warden")
    forking = load("_forking")
    del sys.modules["_warden"], sys.modules["_forking"]
    try:
        forking.main()
    except forking.Begin as begin:
        forking.prepare(*begin.args)
        raise
