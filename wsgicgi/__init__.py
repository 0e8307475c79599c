"""Serve a directory over WSGI and run its CGI scripts (RFC 3875).

The way of a request::

    server -> app(environ, start_response)                                                       app.py
      CGIMiddleware.__call__           what names no script goes on to StaticMiddleware:         middleware.py
                                         filecache, or find_file -> resources -> fileanswer  static.py
        script    = scripts.find(path_info)   -> Script        what the URL names; 404, 403      scripts.py
      Gateway.run                                                                                gateway.py
        terms     = all_terms.of(script)      -> Terms         the settings that hold for it     terms.py
        run_as    = identity.of_script(...)   -> Identity      whom it runs as; 403, 500         identity.py
        body      = body.collect(...)         -> Body          the script's stdin; 4xx, 501, 507 body.py
        metavars  = metavars.build(...)       -> dict          what the script will see          metavars.py
        admission = admission.admit(...)      -> Admission     it may run now; 503               admission.py
        execution = runner.start(Invocation)  -> Execution     a started script; 431, 500, 503   runners/
        head      = exchange.read_head(...)   -> ResponseHead  status, fields, kind; 502, 504    exchange.py
        a local redirect goes through the application again, at most 10 times
      start_response(head.status_line, fields); return exchange     the app_iter; its close() ends the script

``handler`` does the same for servers of ``http.server``: connection -> is_cgi -> Script -> as above -> send_response.

A module imports only from the layers below its own:

    errors frameworks targets < globs tomlfile urlpaths stderr < values < filerules
    < config response listing ranges variants tls cors < paths conditional loading < scripts filecache filebody
    < metavars diagnosis representation client forwarded server runners
    < body identity pipes privatefiles < slots exchange tally < admission habits < terms inquiry metrics
    < debug_page health observation < operating fileanswer resources < gateway static framing < errorpages middleware
    < app connection < handlerpaths < handlerenviron < handler journal < accesslog panel run
    < recording < replay check checkconfig < compress devhttp < devserver testing presets pastedeploy django

Only ``runners`` starts processes; only ``exchange`` (with ``pipes`` and ``body``) moves bytes to and from a script;
only ``paths``, ``scripts``, ``static`` and ``handler`` (with ``handlerpaths``) look for what a URL names; only
``loading`` reads settings from the environment, and ``config`` says which there are.
What frameworks around us do to requests, ``frameworks`` knows; ``presets`` has settings for well-known programs.
Why a script failed is found by ``diagnosis``; ``inquiry`` keeps what is known of a run for it, and writes the log.
What operators ask for (health, metrics, request ids, JSON in the log) is in ``operating``, which stands before the
application where one of them is set; the gateway tells it of its runs through ``observation``.

``wsgicgi-dev`` puts two middlewares around the application, which no other server has: ``accesslog`` prints lines and
fills the ``journal`` of script runs, ``panel`` shows it to browsers on the same machine.
"""

__version__ = "0.1.0"

from .app import create_app
from .config import Config
from .errors import ConfigError
from .handler import CGIHTTPRequestHandler
from .middleware import CGIMiddleware, CGIScript
from .static import StaticMiddleware

__all__ = [
    "CGIHTTPRequestHandler",
    "CGIMiddleware",
    "CGIScript",
    "Config",
    "ConfigError",
    "StaticMiddleware",
    "__version__",
    "create_app",
]
