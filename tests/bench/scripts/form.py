#!/usr/bin/python3
"""A form's script with the imports that such scripts have."""

import datetime
import email.message
import html
import json
import os
import sys
import urllib.parse

body = sys.stdin.buffer.read(int(os.environ["CONTENT_LENGTH"]))
fields = {name: values[0] for name, values in urllib.parse.parse_qs(body.decode(), keep_blank_values=True).items()}
head = email.message.Message()
head["Content-Type"] = "text/html; charset=utf-8"
year = datetime.date(2000, 1, 1).year
print(f"{head}<p>{html.escape(fields['name'])} {html.escape(json.dumps(fields['text']))} {year}</p>")
