"""The fixture ``cgi``, as a project has it that tests its scripts: in pytest runs of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

REPORT = """\
#!/bin/sh
echo "warning: $PATH_INFO" >&2
printf 'Content-Type: text/plain\\n\\n'
echo "$REQUEST_METHOD $SCRIPT_NAME|$PATH_INFO|$QUERY_STRING|$REQUEST_URI|$COLOUR|$PWD"
cat
"""


def script(pytester: pytest.Pytester, name: str, text: str = REPORT, mode: int = 0o755) -> Path:
    file = pytester.path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def passes(pytester: pytest.Pytester, test: str, *arguments: str, passed: int = 1) -> pytest.RunResult:
    pytester.makepyfile(test)
    result = pytester.runpytest("-W", "error", *arguments)
    result.assert_outcomes(passed=passed)
    return result


@pytest.mark.parametrize(
    ("target", "extra_path", "query", "uri"),
    [
        ("/", "", "", "/report.cgi"),
        ("/?x=1&y=%20", "", "x=1&y=%20", "/report.cgi?x=1&y=%20"),
        ("/more/of%20it", "/more/of it", "", "/report.cgi/more/of%20it"),
        ("/report.cgi", "", "", "/report.cgi"),
        ("/report.cgi/?a", "/", "a", "/report.cgi/?a"),
        ("/report.cgi/more", "/more", "", "/report.cgi/more"),
        ("/report.cgi.bak", "/report.cgi.bak", "", "/report.cgi/report.cgi.bak"),
    ],
)
def test_script_stands_at_its_name_and_at_the_root(
    pytester: pytest.Pytester, target: str, extra_path: str, query: str, uri: str
) -> None:
    """Its meta-variables are those of a script at ``/report.cgi``; the root asks for it without an extra path."""
    script(pytester, "report.cgi")
    expected = f"GET /report.cgi|{extra_path}|{query}|{uri}||{pytester.path}\n"
    passes(pytester, f"def test_it(cgi):\n    assert cgi('report.cgi').get({target!r}).text == {expected!r}\n")


def test_body_settings_and_log_are_as_one_expects(pytester: pytest.Pytester) -> None:
    """A POST; a setting as keyword; what it wrote to standard error is no failure and can be looked at."""
    script(pytester, "report.cgi")
    passes(
        pytester,
        """
        def test_it(cgi):
            app = cgi("report.cgi", env={"COLOUR": "blue"})
            response = app.post("/x", {"a": "1"})
            assert response.status_int == 200
            assert "|blue|" in response.text
            assert response.text.startswith("POST ")
            assert response.text.endswith("\\na=1")
            assert app.log == "/report.cgi: warning: /x\\n"
        """,
    )


def test_relative_paths_begin_at_the_test_file_then_at_the_root(pytester: pytest.Pytester) -> None:
    """Wherever pytest was started."""
    script(pytester, "near.cgi", REPORT.replace("warning", "root"))
    script(pytester, "tests/near.cgi", REPORT.replace("warning", "near"))
    script(pytester, "cgi-bin/far.cgi")
    test = pytester.path / "tests" / "test_of_relative_paths.py"
    test.write_text(
        "from pathlib import Path\n"
        "def test_it(cgi):\n"
        "    app = cgi('near.cgi')\n"
        "    assert app.get('/').status_int == 200\n"
        "    assert 'near:' in app.log\n"
        "    assert cgi('cgi-bin/far.cgi').get('/').status_int == 200\n"
        "    assert cgi(Path(__file__).parent / 'near.cgi').get('/').status_int == 200\n"
    )
    pytester.makeini("[pytest]\n")
    (pytester.path / "elsewhere").mkdir()
    os.chdir(pytester.path / "elsewhere")
    pytester.runpytest(f"--rootdir={pytester.path}", "-W", "error", str(test)).assert_outcomes(passed=1)


def test_missing_script_is_named_with_where_it_was_looked_for(pytester: pytest.Pytester) -> None:
    """Both places."""
    pytester.makepyfile("def test_it(cgi):\n    cgi('nowhere.py')\n")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *FileNotFoundError: cgi('nowhere.py'): there is no {pytester.path}/nowhere.py"])


def test_wrong_settings_and_scripts_that_cannot_run_are_told(pytester: pytest.Pytester) -> None:
    """In the words of the application."""
    script(pytester, "plain.cgi", mode=0o644)
    pytester.makepyfile(
        """
        def test_mode(cgi):
            cgi("plain.cgi")

        def test_setting(cgi):
            cgi(".", timeot=3)
        """
    )
    result = pytester.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["E *is not executable. Try: chmod 755 *", "E *Did you mean 'timeout'?"])


def test_directory_is_the_whole_application(pytester: pytest.Pytester) -> None:
    """Files, scripts, listing, redirects, as under a server."""
    script(pytester, "site/cgi-bin/report.cgi")
    script(pytester, "site/cgi-bin/go.cgi", "#!/bin/sh\nprintf 'Location: http://localhost/page.html\\n\\n'\n")
    (pytester.path / "site/page.html").write_text("<a href='cgi-bin/report.cgi?from=page'>report</a>")
    passes(
        pytester,
        """
        def test_it(cgi):
            app = cgi("site")
            assert app.get("/", headers={"Accept": "application/json"}).json["entries"][0]["name"] == "page.html"
            response = app.get("/cgi-bin/go.cgi").follow()
            assert "|from=page|" in response.click("report").text
            app.get("/cgi-bin/none", status=404)
        """,
    )


def test_failure_shows_what_the_script_said(pytester: pytest.Pytester) -> None:
    """Its standard error and the reason of the 502, in the report of the test and only there."""
    script(pytester, "broken.py", "import sys\nprint('half way', file=sys.stderr)\nraise ValueError('wrong number')\n")
    script(pytester, "report.cgi")
    pytester.makepyfile(
        """
        import pytest

        def test_fine(cgi):
            cgi("report.cgi").get("/silence-is-golden")

        def test_broken(cgi):
            cgi("broken.py").get("/")

        @pytest.fixture
        def page(cgi):
            return cgi("broken.py").get("/in-setup")

        def test_broken_fixture(page):
            pass
        """
    )
    result = pytester.runpytest("-W", "error")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(["E *Bad response: 502 Bad Gateway*", "*- cgi log -*", "/broken.py: *"])
    result.stdout.fnmatch_lines_random(["/broken.py: half way", "/broken.py: ValueError: wrong number"])
    result.stdout.re_match_lines([r"/broken\.py: .* \[[0-9a-f]{16}\]$"])  # the cause
    assert result.stdout.str().count("- cgi log -") == 2
    assert "silence-is-golden" not in result.stdout.str()


def test_scripts_end_with_their_test(pytester: pytest.Pytester) -> None:
    """One that goes on after its answer does not outlive the test that started it."""
    script(
        pytester,
        "stays.cgi",
        f"#!/bin/sh\necho $$ > {pytester.path}/pid\nprintf 'Content-Length: 2\\n\\nok'\nexec >&-\nexec sleep 300\n",
    )
    passes(
        pytester,
        """
        from pathlib import Path
        import pytest

        def is_running():
            return Path("/proc", Path("pid").read_text().strip()).exists()

        def test_first(cgi):
            assert cgi("stays.cgi").get("/").text == "ok"
            assert is_running()

        def test_second():
            assert not is_running()
        """,
        passed=2,
    )


def test_pytest_without_the_fixture_imports_nothing_of_ours(pytester: pytest.Pytester) -> None:
    """The plugin is loaded in every run of whoever has wsgicgi installed."""
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "pytest_wsgicgi" in sys.modules
            assert not {"wsgicgi", "webtest", "webob", "werkzeug", "jinja2", "waitress"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess("-W", "error", "-p", "no:xdist").assert_outcomes(passed=1)


@pytest.mark.parametrize("missing", ["webtest", "webob"])
def test_without_webtest_only_tests_that_need_it_fail(pytester: pytest.Pytester, missing: str) -> None:
    """With a sentence that says what to install; others run."""
    pytester.path.joinpath("sitecustomize.py").write_text(
        f"import sys\nsys.modules[{missing!r}] = None  # as if it were not installed\n"
    )
    pytester.makepyfile("def test_cgi(cgi):\n    pass\n\ndef test_other():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-W", "error"]
    env = {**os.environ, "PYTHONPATH": str(pytester.path)}
    done = subprocess.run(command, cwd=pytester.path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert "1 passed, 1 error" in done.stdout
    assert 'The fixture "cgi" needs WebTest (' in done.stdout
    assert 'Try: pip install "wsgicgi[testing]"' in done.stdout
    assert "Traceback" not in done.stdout


def test_a_project_s_own_fixture_of_that_name_comes_first(pytester: pytest.Pytester) -> None:
    """Nothing that worked before wsgicgi was installed stops working."""
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef cgi():\n    return 'mine'\n")
    passes(pytester, "def test_it(cgi):\n    assert cgi == 'mine'\n")
