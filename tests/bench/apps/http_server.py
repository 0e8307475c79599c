"""Python's own server with its CGI handler (3.14 and older), without its access log. Usage: http_server.py SITE PORT"""

import functools
import http.server
import sys
import warnings

warnings.simplefilter("ignore", DeprecationWarning)


class Handler(http.server.CGIHTTPRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[2])), functools.partial(Handler, directory=sys.argv[1])).serve_forever()
