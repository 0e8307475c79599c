"""The house of ``wsgicgi/__init__.py``: who may import whom, who starts processes, who reads the environment."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsgicgi

PACKAGE = Path(wsgicgi.__file__).parent

#: The doors of the package stand above all layers; nothing inside imports them (but for ``__version__``).
DOORS = {"__init__", "__main__"}


def stated_layers() -> list[set[str]]:
    """The layers as the map of the package states them, the lowest first."""
    assert wsgicgi.__doc__ is not None
    found = re.search(r"layers below its own:\n\n(.*?)\n\n", wsgicgi.__doc__, re.DOTALL)
    assert found is not None
    return [set(layer.split()) for layer in found[1].split("<")]


LAYERS = {name: number for number, names in enumerate(stated_layers()) for name in names}


def modules() -> dict[str, Path]:
    """The modules of the package by their dotted names below it; the demo's scripts are no part of it."""
    files = (file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py"))
    return {".".join(file.with_suffix("").parts): PACKAGE / file for file in sorted(files) if file.parts[0] != "demo"}


MODULES = modules()


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_bytes())


def is_type_checking(node: ast.AST) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def code(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run, functions' bodies included: not what is under ``if TYPE_CHECKING``."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and is_type_checking(node):
        children = iter(node.orelse)
    for child in children:
        yield from code(child)


def imports(tree: ast.Module, module: str) -> Iterator[str]:
    """What a module imports, by absolute names: ``wsgicgi.paths``, ``wsgicgi.paths.Script``, ``os``."""
    package = ["wsgicgi", *module.split(".")[:-1]]
    for node in code(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def parts_imported(tree: ast.Module, module: str) -> set[str]:
    """The parts of the package (``paths``, ``runners``) that a module imports."""
    found = set()
    for name in imports(tree, module):
        words = name.split(".")
        if words[0] == "wsgicgi" and words[1:] != ["__version__"]:
            found.add(words[1] if len(words) > 1 else "__init__")
    return found


def test_the_map_names_every_module_and_no_other() -> None:
    """A module has a place in the house (``wsgicgi/__init__.py``): a new one is put there first."""
    assert {name.split(".")[0] for name in MODULES} - DOORS == set(LAYERS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_the_layers_below_its_own(module: str) -> None:
    """The rule of ``wsgicgi/__init__.py``; a package's own modules may import each other."""
    part = module.split(".")[0]
    above = len(LAYERS)
    own = above if module in DOORS else LAYERS[part]
    imported = parts_imported(parse(module), module) - ({part} if "." in module else set())
    assert {name for name in imported if LAYERS.get(name, above) >= own} == set()


@pytest.mark.parametrize(
    ("text", "module", "expected"),
    [
        pytest.param("from .paths import x", "app", {"paths"}, id="from-module"),
        pytest.param("from . import paths, body", "app", {"paths", "body"}, id="from-package"),
        pytest.param("from . import __version__", "app", set(), id="version"),
        pytest.param("from . import create_app", "app", {"create_app"}, id="from-the-door"),
        pytest.param("from .runners.base import x", "app", {"runners"}, id="from-sub-package"),
        pytest.param("from .base import x", "runners.spawn", {"runners"}, id="inside-sub-package"),
        pytest.param("from ..errors import x", "runners.spawn", {"errors"}, id="out-of-sub-package"),
        pytest.param("from .base import x", "runners.__init__", {"runners"}, id="door-of-sub-package"),
        pytest.param("import wsgicgi.app", "errors", {"app"}, id="absolute"),
        pytest.param("import wsgicgi", "errors", {"__init__"}, id="whole-package"),
        pytest.param("from wsgicgi import app", "errors", {"app"}, id="absolute-from"),
        pytest.param("def f():\n    from .app import x", "errors", {"app"}, id="inside-a-function"),
        pytest.param("try:\n    from .app import x\nexcept E: pass", "errors", {"app"}, id="inside-try"),
        pytest.param("if TYPE_CHECKING:\n    from .app import x", "errors", set(), id="type-checking"),
        pytest.param("if typing.TYPE_CHECKING:\n    from .app import x", "errors", set(), id="typing-type-checking"),
        pytest.param("if TYPE_CHECKING:\n  pass\nelse:\n  from .app import x", "errors", {"app"}, id="else"),
        pytest.param("if not TYPE_CHECKING:\n    from .app import x", "errors", {"app"}, id="not-type-checking"),
        pytest.param("import os\nfrom werkzeug import x", "errors", set(), id="others"),
    ],
)
def test_imports_are_seen_in_all_their_forms(text: str, module: str, expected: set[str]) -> None:
    """A rule that overlooks an import holds nothing."""
    assert parts_imported(ast.parse(text), module) == expected


def names_used(tree: ast.Module) -> set[str]:
    """Dotted names such as ``os.environ`` in the code of a module, and what it imports by such names."""
    return {ast.unparse(node) for node in code(tree) if isinstance(node, ast.Attribute)} | {
        name for name in imports(tree, "x") if "." in name
    }


PROCESS_MODULES = {"subprocess", "multiprocessing", "concurrent", "pty", "_posixsubprocess", "_winapi"}
PROCESS_CALLS = re.compile(r"os\.(fork|forkpty|system|popen|posix_spawnp?|startfile|exec[lv]p?e?|spawn[lv]p?e?)")


def test_only_runners_start_processes() -> None:
    """A process has one kind of owner (``wsgicgi/__init__.py``)."""
    starters = set()
    for module in MODULES:
        tree = parse(module)
        if {name.split(".")[0] for name in imports(tree, module)} & PROCESS_MODULES:
            starters.add(module)
        if any(PROCESS_CALLS.fullmatch(name) for name in names_used(tree)):
            starters.add(module)
    assert {module.split(".")[0] for module in starters} == {"runners"}


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of nodes that are docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)
    }


def test_only_loading_reads_settings_from_the_environment() -> None:
    """``os.environ`` is for loading's settings, for gateway, which chooses what scripts inherit, and for what is the
    system's, or seen when modules are loaded: ``LD_LIBRARY_PATH``, ``XDG_RUNTIME_DIR``, ``NO_COLOR``."""
    readers, namers = set(), set()
    for module in MODULES:
        tree = parse(module)
        if names_used(tree) & {"os.environ", "os.environb", "os.getenv", "os.getenvb"}:
            readers.add(module)
        skipped = docstrings(tree)
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in skipped}
        if any(isinstance(text, str) and "WSGICGI_" in text for text in texts):
            namers.add(module)
    assert readers <= {
        "loading",
        "accesslog",
        "gateway",
        "terms",
        "handler",
        "privatefiles",
        "runners.warden",
        "runners._forking",
        "runners._loaded",
        "runners.interpreter",
    }
    assert "loading" in readers
    assert readers & namers == {"loading"}


@pytest.mark.parametrize("script", sorted((PACKAGE / "demo").rglob("*.py")), ids=lambda file: file.name)
def test_the_demo_scripts_are_ordinary_cgi_scripts(script: Path) -> None:
    """People copy them: they know nothing of the package that runs them."""
    assert parts_imported(ast.parse(script.read_bytes()), "demo.x") == set()
