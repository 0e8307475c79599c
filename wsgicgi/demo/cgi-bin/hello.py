#!/usr/bin/env python3
"""Greet, and show some of the meta-variables that describe the request (RFC 3875 section 4.1)."""

import html
import os
import platform
import sys

SHOWN = (
    "GATEWAY_INTERFACE",
    "SERVER_SOFTWARE",
    "SERVER_PROTOCOL",
    "SERVER_NAME",
    "SERVER_PORT",
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "HTTP_USER_AGENT",
)

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Hello from Python</title>
<style>
  body {{ margin: 1rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
  h1 {{ margin: 0; font-size: 1.2rem; }}
  p {{ margin: 0 0 .6rem; }}
  dl {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .6rem 1rem; margin: 0; }}
  dt {{ font: .75rem/1.4 ui-monospace, monospace; opacity: .7; }}
  dd {{ margin: 0; }}
</style>
<h1>Hello from Python</h1>
<p>This is Python {version}. The server told this script:</p>
<dl>
{rows}
</dl>
</html>
"""


def metavar(name):
    """Give a meta-variable as text that can be printed, whatever bytes the client sent."""
    return os.fsencode(os.environ.get(name, "")).decode("utf-8", "replace")


# What comes from the client is escaped: it is text here, never markup.
rows = "\n".join(f"<div><dt>{name}</dt><dd>{html.escape(metavar(name)) or '(empty)'}</dd></div>" for name in SHOWN)

# The header, an empty line, the body. As bytes, so that neither locale nor operating system changes them.
header = "Content-Type: text/html; charset=utf-8\n\n"
sys.stdout.buffer.write((header + PAGE.format(version=platform.python_version(), rows=rows)).encode())
