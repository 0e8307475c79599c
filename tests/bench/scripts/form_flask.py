#!/usr/bin/python3
"""A form's Flask application, as a CGI script."""

import html
import json
from wsgiref.handlers import CGIHandler

import flask

app = flask.Flask(__name__)


@app.post("/form")
def answer() -> str:
    """What was posted."""
    fields = flask.request.form
    return f"<p>{html.escape(fields['name'])} {html.escape(json.dumps(fields['text']))} 2000</p>\n"


CGIHandler().run(app)
