#!/usr/bin/python3 -Wignore
"""A form's script with the imports that such scripts have."""

import contextlib
import datetime
import html
import json
import os
import sqlite3
import sys
import urllib.parse

with contextlib.suppress(ImportError):  # it is not in 3.13
    import cgi  # noqa: F401  # for its time

body = sys.stdin.buffer.read(int(os.environ["CONTENT_LENGTH"]))
fields = {name: values[0] for name, values in urllib.parse.parse_qs(body.decode(), keep_blank_values=True).items()}
with sqlite3.connect(":memory:") as database:
    [text] = database.execute("select ?", [fields["text"]]).fetchone()
year = datetime.date(2000, 1, 1).year
print("Content-Type: text/html; charset=utf-8\n")
print(f"<p>{html.escape(fields['name'])} {html.escape(json.dumps(text))} {year}</p>")
