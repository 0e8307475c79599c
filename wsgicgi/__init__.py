"""Serve a directory over WSGI and run its CGI scripts (RFC 3875).

The way of a request::

    server -> app(environ, start_response)                                                       app.py
      CGIMiddleware.__call__           what names no script goes on to StaticMiddleware:         gateway.py
                                         find_file -> open, fstat -> conditional -> file_wrapper static.py
        script    = paths.find_script(...)    -> Script        what the URL names; 404, 403      paths.py
        body      = body.collect(...)         -> Body          the script's stdin; 4xx, 501, 507 body.py
        metavars  = metavars.build(...)       -> dict          what the script will see          metavars.py
        execution = runner.start(Invocation)  -> Execution     a started script; 431, 500, 503   runners/
        head      = exchange.read_head(...)   -> ResponseHead  status, fields, kind; 502, 504    exchange.py
        a local redirect goes through the application again, at most 10 times
      start_response(head.status_line, fields); return exchange     the app_iter; its close() ends the script

A module imports only from the layers below its own:

    errors < config response listing conditional < paths < metavars diagnosis body client runners < pipes < exchange
    < inquiry < debug_page < gateway static < app < replay < check < devserver

Only ``runners`` starts processes; only ``exchange`` (with ``pipes`` and ``body``) moves bytes to and from a script;
only ``paths`` and ``static`` look for files to serve; only ``config`` reads settings from the environment. Why a script
failed is found by ``diagnosis``; ``inquiry`` keeps what is known of a run for it, and writes the log.
"""

__version__ = "0.1.0"

from .app import create_app
from .config import Config
from .errors import ConfigError
from .gateway import CGIMiddleware, CGIScript
from .static import StaticMiddleware

__all__ = ["CGIMiddleware", "CGIScript", "Config", "ConfigError", "StaticMiddleware", "__version__", "create_app"]
