"""Runs CPython's own tests of ``http.server`` with our handler in the place of its own.

It is started by the interpreter whose tests they are, with the package on PYTHONPATH. The last line of its output tells
what became of them, as JSON.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import unittest

from wsgicgi import handler

#: What is put in the place of what, each time with the tests that are about it. The original's tests want its warning
#: of its removal, which is not ours.
ROUNDS = [
    (["CGIHTTPRequestHandler"], ["CGIHTTPServerTestCase"]),
    (["SimpleHTTPRequestHandler"], ["SimpleHTTPServerTestCase", "SimpleHTTPRequestHandlerTestCase"]),
    (
        ["SimpleHTTPRequestHandler", "BaseHTTPRequestHandler"],
        ["BaseHTTPServerTestCase", "BaseHTTPRequestHandlerTestCase", "RequestHandlerLoggingTestCase"],
    ),
    (["test"], ["ScriptTestCase"]),
]
cases_run: set[str] = set()
FUNCTIONS = ("test", "_url_collapse_path", "nobody_uid", "executable")


def run(names: list[str], cases: list[str]) -> unittest.TestResult:
    sys.modules.pop("test.test_httpservers", None)
    originals = {name: getattr(http.server, name) for name in (*names, *FUNCTIONS) if hasattr(http.server, name)}
    for name in originals:
        setattr(http.server, name, getattr(handler, name, handler.CGIHTTPRequestHandler))
    try:
        from test import test_httpservers as module

        suite = unittest.TestSuite()
        for case in cases:
            # Python 3.15 has no CGI any more, and no tests of it
            if hasattr(module, case):
                tests = getattr(module, case)
                tests.assertWarnsRegex = lambda *_: contextlib.nullcontext()
                cases_run.add(case)
                suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(tests))
        return unittest.TextTestRunner(verbosity=2).run(suite)
    finally:
        for name, original in originals.items():
            setattr(http.server, name, original)


results = [run(names, cases) for names, cases in ROUNDS]
failures = [str(test) for result in results for test, _ in [*result.failures, *result.errors]]
skipped = {str(test): why for result in results for test, why in result.skipped}
run_in_all = sum(result.testsRun for result in results)
print(json.dumps({"run": run_in_all, "failed": failures, "skipped": skipped, "cases": sorted(cases_run)}))
