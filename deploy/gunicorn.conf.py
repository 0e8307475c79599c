# What for: serve a directory and its CGI scripts with gunicorn, sized by the machine.
# Start: WSGICGI_DIRECTORY=/srv/site gunicorn --config deploy/gunicorn.conf.py
"""Settings for gunicorn; each can be given on the command line instead.

Variables: BIND, WORKERS, THREADS, and DRAIN, which are seconds between SIGTERM and the stop. Meanwhile
``/-/health/ready`` says 503, so that a load balancer sends nothing more, and what it sends all the same is answered. A
second SIGTERM ends them.
"""

import mmap
import os
import signal
import sys

from gunicorn.http.wsgi import Response

from wsgicgi import ConfigError
from wsgicgi.loading import load

try:
    _settings = load({})
except ConfigError as error:  # before any worker has begun
    sys.exit(f"wsgicgi: {error}")
_drain = float(os.environ.get("DRAIN", "0"))

wsgi_app = "wsgicgi:create_app()"
bind = os.environ.get("BIND", "127.0.0.1:8000")

# A running script takes a thread, mostly to wait: many threads cost little. Files need some beside those of scripts.
worker_class = "gthread"
_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
workers = int(os.environ.get("WORKERS", min(4, _cores)))
threads = int(os.environ.get("THREADS", max(64, (_settings.max_scripts or 0) + 16)))

# A worker that is busy with scripts still answers gunicorn's own checks; this is for one that hangs altogether.
timeout = 120

# Running requests may finish when the server is stopped or restarted: as long as any script may take. One that may take
# as long as it likes (max_time=None) is given the time of one that is silent.
_every = [_settings, *(_settings.with_sections([section]) for section in _settings.scripts)]
graceful_timeout = int(max(max(each.timeout, each.max_time or 0) for each in _every)) + 10
keepalive = 5

# RFC 9110 section 4.1 asks for request targets of 8000 octets; scripts get long queries.
limit_request_line = 8190

# What X-Forwarded fields mean is decided by trusted_proxies; by itself gunicorn believes any process on this machine.
secure_scheme_headers = {}
forwarded_allow_ips = ""
forwarder_headers = ""

# Kept in memory: on a disk the workers' heartbeat can block.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# Its place is shared by all servers of a user, and is not writable in a container.
control_socket_disable = True

# The client, the request, status, bytes, milliseconds, and the id that the log of scripts has (request_id=True).
accesslog = "-"
access_log_format = '%(h)s "%(r)s" %(s)s %(B)s %(M)sms %({x-request-id}o)s'


def when_ready(server):
    """Put the time for draining before the stop."""
    server.draining = mmap.mmap(-1, 1)  # one byte that all workers see
    stop = signal.getsignal(signal.SIGTERM)
    if not _drain or not callable(stop):
        return

    def drain(number, frame):
        if server.draining[0]:
            stop(signal.SIGTERM, frame)
            return
        server.draining[0] = 1
        signal.setitimer(signal.ITIMER_REAL, _drain)
        os.write(2, f"draining for {_drain:g} s\n".encode())  # the log may be being written when a signal comes

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGALRM, lambda number, frame: stop(signal.SIGTERM, frame))


def pre_fork(server, worker):
    """Let the worker see it, one that comes after a reload too."""
    worker.draining = server.draining


class _Pieces(list):
    """What stands for a socket while what is to go out is collected."""

    sendall = list.append


def _write_at_once(write):
    """Send the head of an answer together with its first piece, in one system call in the place of two.

    A balancer that has a head cannot ask another machine any more, should this one die before it sends the rest.
    """

    def write_at_once(self, piece):
        if self.headers_sent or not piece:
            write(self, piece)
            return
        sock, self.sock = self.sock, _Pieces()
        try:
            write(self, piece)
        finally:
            pieces, self.sock = self.sock, sock
        if pieces:
            sock.sendall(b"".join(pieces))

    return write_at_once


def post_worker_init(worker):
    """Have heads go out with first pieces, and the answer about readiness follow the main process."""
    Response.write = _write_at_once(Response.write)
    app = worker.wsgi

    def ready_or_draining(environ, start_response):
        if worker.draining[0] and environ.get("PATH_INFO") == "/-/health/ready":
            start_response("503 Service Unavailable", [("Content-Type", "text/plain"), ("Content-Length", "9")])
            return [b"draining\n"]
        return app(environ, start_response)

    worker.wsgi = ready_or_draining
