#!/usr/bin/env python3
"""A form, by GET and by POST, and what was sent with it.

A form's fields come in QUERY_STRING (GET) or in the body (POST): CONTENT_LENGTH bytes on standard input, and not one
more, because the server need not close it (RFC 3875 section 4.2).
"""

import html
import os
import sys
from urllib.parse import parse_qsl

MAX_BODY_BYTES = 64 * 1024  # ample for this form
MAX_FIELDS = 100

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>A form</title>
<style>
  body {{ margin: 1rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
  h1 {{ margin: 0 0 .6rem; font-size: 1.2rem; }}
  form {{ display: flex; flex-wrap: wrap; align-items: end; gap: .5rem; margin: .6rem 0; }}
  label {{ flex: 1 1 10rem; font-size: .85rem; }}
  input {{ display: block; box-sizing: border-box; width: 100%; }}
  input, button {{ font: inherit; padding: .3rem .6rem; }}
  dt {{ font-size: .85rem; opacity: .7; }}
  dd {{ margin: 0 0 .4rem; white-space: pre-wrap; }}
</style>
<h1>A form</h1>
<p>{message}</p>
<dl>{fields}</dl>
<form method="get" action="form.py">
<label>By GET <input name="text" value="{text}"></label> <button>Send</button>
</form>
<form method="post" action="form.py">
<label>By POST <input name="text" value="{text}"></label> <button>Send</button>
</form>
</html>
"""


class RequestError(Exception):
    """A request that cannot be answered; holds the status to send and the reason in words."""

    def __init__(self, status, reason):
        super().__init__(status)
        self.status = status
        self.reason = reason


def metavar(name):
    """Give a meta-variable as text that can be printed, whatever bytes the client sent."""
    return os.fsencode(os.environ.get(name, "")).decode("utf-8", "replace")


def read_body():
    """Read the body of a POST as text."""
    content_type = metavar("CONTENT_TYPE").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise RequestError("415 Unsupported Media Type", "This script reads only application/x-www-form-urlencoded.")
    length = metavar("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        raise RequestError("400 Bad Request", "CONTENT_LENGTH is not a number.")
    if len(length) > 9 or int(length) > MAX_BODY_BYTES:
        raise RequestError("413 Content Too Large", f"This script reads at most {MAX_BODY_BYTES} bytes.")
    return sys.stdin.buffer.read(int(length)).decode("utf-8", "replace")


def read_fields(method):
    """Read the fields of the form, as pairs of name and value in the order sent."""
    if method not in ("GET", "HEAD", "POST"):
        raise RequestError("405 Method Not Allowed", "This script knows GET, HEAD and POST.")
    encoded = read_body() if method == "POST" else metavar("QUERY_STRING")
    try:
        return parse_qsl(encoded, keep_blank_values=True, errors="replace", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise RequestError("400 Bad Request", f"This script reads at most {MAX_FIELDS} fields.") from None


def main():
    method = metavar("REQUEST_METHOD") or "GET"
    fields = []
    status = "200 OK"
    try:
        fields = read_fields(method)
        message = f"Received by {method}:" if fields else "Nothing was sent yet."
    except RequestError as error:
        status, message = error.status, error.reason

    # Everything that came from the client is escaped: it is text here, never markup.
    page = PAGE.format(
        message=html.escape(message),
        fields="".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in fields),
        text=html.escape(dict(fields).get("text", "Grüße, 世界")),
    )
    header = f"Status: {status}\nContent-Type: text/html; charset=utf-8\n"
    if status.startswith("405"):
        header += "Allow: GET, HEAD, POST\n"
    # The header, an empty line, the body. As bytes, so that neither locale nor operating system changes them.
    sys.stdout.buffer.write((header + "\n" + page).encode())


main()
