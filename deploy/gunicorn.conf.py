# What for: serve a directory and its CGI scripts with gunicorn, sized by the machine.
# Start: WSGICGI_DIRECTORY=/srv/site gunicorn --config deploy/gunicorn.conf.py
"""Settings for gunicorn; each can be given on the command line instead."""

import os

wsgi_app = "wsgicgi:create_app()"
bind = os.environ.get("BIND", "127.0.0.1:8000")

# A running script takes a thread, mostly to wait: many threads cost little.
worker_class = "gthread"
workers = min(4, os.cpu_count() or 1)
threads = 64

# A worker that is busy with scripts still answers gunicorn's own checks; this is for one that hangs altogether.
timeout = 120
# Running requests may finish when the server is stopped or restarted; wsgicgi's own timeout is 60 s.
graceful_timeout = 70
keepalive = 5

# RFC 9110 section 4.1 asks for request targets of 8000 octets; scripts get long queries.
limit_request_line = 8190

# Kept in memory: on a disk the workers' heartbeat can block.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None

accesslog = "-"
access_log_format = '%(h)s "%(r)s" %(s)s %(B)s %(M)sms'
