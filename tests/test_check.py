"""``wsgicgi-dev check`` as its users and their CI meet it: what it finds, and that it runs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from programs import find
from servers import BIN
from sites import Site

PY = f"#!{sys.executable}\n"
CT = "Content-Type: text/plain"


def check(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "wsgicgi-dev", "check", *options, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def findings(directory: Path, *options: str) -> dict[str, dict]:
    """The findings by file."""
    done = check(directory, "--json", *options)
    assert done.returncode in (0, 1), done.stderr
    return {finding["file"]: finding for finding in json.loads(done.stdout)["findings"]}


CASES = {
    "crlf": ("x.sh", "#!/bin/sh\r\necho\r\n", 0o755, 1, None),
    "byte-order-mark": ("x.py", b"\xef\xbb\xbf#!/usr/bin/env python3\n", 0o755, 1, None),
    "not-executable": ("x.sh", "#!/bin/sh\necho\n", 0o644, None, None),
    "no-shebang": ("x.cgi", "echo hello\n", 0o755, 1, None),
    "no-interpreter": ("x.cgi", "#!/no/such/sh\necho hello\n", 0o755, 1, None),
    "env-needs-S": ("x.cgi", "#!/usr/bin/env python3 -u\nprint(1)\n", 0o755, 1, None),
    "python-syntax": ("x.py", PY + "print(1\n", 0o755, 2, None),
    "python-tabs": ("x.py", PY + "if 1:\n        x = 1\n\ty = 2\n", 0o755, 4, None),
    "python-2": ("x.py", PY + "print 'x'\n", 0o755, 2, None),
    "python-no-module": ("x.py", PY + "import os\nimport no_such_module\n", 0o755, 3, None),
    "python-main": ("x.py", PY + "def f():\n    pass\nif __name__ == '__man__':\n    f()\n", 0o755, 4, None),
    "never-called": ("x.py", PY + f"def main():\n    print('{CT}\\n')\n", 0o755, 2, None),
    "shell-syntax": ("x.sh", "#!/bin/sh\nif true; then\n", 0o755, 3, None),
    "perl-no-module": ("x.pl", "#!/usr/bin/perl\nuse strict;\nuse No::Such;\n", 0o755, 3, "perl"),
    "php-syntax": ("x.php", "#!/usr/bin/php-cgi\n<?php\necho 1\necho 2;\n", 0o755, 4, "php-cgi"),
    "ruby-syntax": ("x.rb", "#!/usr/bin/ruby\ndef x\n", 0o755, 2, "ruby"),
    "node-error": ("x.js", "#!/usr/bin/env node\nlet x = ;\n", 0o755, 2, "node"),
    "world-writable": ("x.sh", f"#!/bin/sh\necho {CT}\necho\n", 0o777, None, None),
    "set-id": ("x.sh", f"#!/bin/sh\necho {CT}\necho\n", 0o4755, None, None),
    "no-header-in-source": ("x.sh", "#!/bin/sh\necho hello\n", 0o755, None, None),
}


@pytest.mark.parametrize("rule", CASES)
def test_what_can_be_known_is_found_without_running_anything(site: Site, rule: str) -> None:
    """By the rules of the log; every script here would leave a file if it ran."""
    name, text, mode, line, program = CASES[rule]
    if program is not None:
        find(program, package=program)
    script = site.script(name, text, mode)
    before = sorted(script.parent.iterdir())
    found = findings(site.directory)[f"cgi-bin/{name}"]
    assert (found["rule"], found["line"]) == (rule, line)
    assert found["level"] == ("warning" if rule in ("set-id", "no-header-in-source") else "error")
    assert sorted(script.parent.iterdir()) == before


@pytest.mark.parametrize(
    "text",
    [
        PY + "import sys\nopen('ran', 'w')\n",
        "#!/bin/sh\ntouch ran\n",
        "#!/usr/bin/perl\nBEGIN { open(F, '>ran'); close(F) }\n",
        "#!/usr/bin/perl\nuse lib '.';\nuse Mine;\n",
        "#!/usr/bin/php-cgi\n<?php touch('ran');\n",
        "#!/usr/bin/ruby\nBEGIN { File.write('ran', '') }\n",
        "#!/usr/bin/env node\nrequire('fs').writeFileSync('ran', '')\n",
    ],
    ids=["python", "sh", "perl", "perl-module", "php", "ruby", "node"],
)
def test_nothing_of_a_script_is_run(site: Site, text: str) -> None:
    """Reading is not running: no statement, no BEGIN block, no module of its own."""
    site.script("x.cgi", text)
    site.file("cgi-bin/Mine.pm", "open(F, '>ran'); close(F); 1;\n")
    site.file("cgi-bin/sitecustomize.py", "open('ran', 'w')\n")
    check(site.directory)
    assert not list(site.directory.rglob("ran"))


def test_run_makes_a_request_for_each_script(site: Site) -> None:
    """What only shows when it runs."""
    site.python("x.py", f"print('{CT}\\n')\nprint(name)\n")
    assert "cgi-bin/x.py" not in findings(site.directory)
    found = findings(site.directory, "--run")["cgi-bin/x.py"]
    assert (found["rule"], found["line"]) == ("python-exception", 3)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        (".git/config", "warning"),
        (".env", "warning"),
        ("index.html~", "warning"),
        ("cgi-bin/x.py.bak", "warning"),
        ("cgi-bin/orders.sql", "warning"),
        ("backup.sql", "error"),
        ("server.key", "error"),
        ("old.py.txt", "error"),
    ],
)
def test_secrets_and_left_overs_are_found(site: Site, name: str, level: str) -> None:
    """An error where everyone can fetch them, a warning where they are hidden (CWE-530, CWE-538)."""
    site.file(name, "x")
    found = findings(site.directory)[name.removesuffix("/config")]
    assert (found["rule"], found["level"]) == ("left-over", level)


def test_a_directory_that_everyone_may_write_to_is_found_once(site: Site) -> None:
    """Whoever can replace a script can run anything."""
    (site.directory / "cgi-bin").chmod(0o777)
    found = findings(site.directory)["cgi-bin"]
    assert (found["level"], found["rule"]) == ("error", "world-writable-directory")
    assert check(site.directory).stdout.count("everyone may replace") == 1


def test_a_clean_site_is_good(site: Site) -> None:
    """Exit status 0 and one line; modules beside scripts are no scripts that do nothing."""
    (site.directory / "cgi-bin" / "steps.py").unlink()  # it prints what it is told to
    site.file("cgi-bin/mine.py", "def f():\n    return 1\n")
    site.python("uses.py", f"import mine\nprint('{CT}\\n')\n")
    done = check(site.directory)
    assert (done.returncode, done.stdout) == (0, "4 scripts, 0 errors, 0 warnings\n")


def test_the_table_has_place_cause_and_remedy(site: Site) -> None:
    """For people; errors make the exit status 1, for CI."""
    site.script("x.sh", "#!/bin/sh\r\n")
    done = check(site.directory)
    lines = done.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if "cgi-bin/x.sh:1" in line)
    assert lines[place].startswith("error    cgi-bin/x.sh:1")
    assert r"line 1 ends in CR LF, so the kernel looks for '/bin/sh\r'" in lines[place]
    assert rf"Try: sed -i 's/\r$//' {site.directory}/cgi-bin/x.sh" in lines[place + 1]
    assert done.returncode == 1


def test_the_command_that_it_gives_mends_the_script(site: Site) -> None:
    """What is to be pasted works."""
    for name, text in {
        "crlf.sh": f"#!/bin/sh\r\necho '{CT}'\r\necho\r\n",
        "bom.sh": b"\xef\xbb\xbf#!/bin/sh\necho 'Content-Type: text/plain'\necho\n",
        "mode.sh": f"#!/bin/sh\necho '{CT}'\necho\n",
        "env.py": f"#!/usr/bin/env python3 -u\nprint('{CT}\\n')\n",
        "typo.sh": f"#!/usr/local/no/sh\necho '{CT}'\necho\n",
        "none.cgi": f"echo '{CT}'\necho\n",
        "blank.sh": f"\n #!/bin/sh\necho '{CT}'\necho\n",
        "almost.sh": f"#/bin/sh\necho '{CT}'\necho\n",
    }.items():
        site.script(name, text, 0o644 if name == "mode.sh" else 0o755)
    broken = {name: found for name, found in findings(site.directory).items() if found["level"] == "error"}
    assert len(broken) == 8
    for found in broken.values():
        subprocess.run(found["command"], shell=True, check=True, timeout=20)
    left = [found["file"] for found in findings(site.directory, "--run").values() if found["level"] == "error"]
    assert left == ["cgi-bin/steps.py"]  # it prints what it is told to


def test_a_wrong_directory_is_told(tmp_path: Path) -> None:
    """Exit status 2, one sentence."""
    done = check(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "there is no such directory" in done.stderr
