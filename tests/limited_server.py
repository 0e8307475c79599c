"""Serves a directory with waitress, with a limit on processes. Usage: limited_server.py DIRECTORY SPARE_PROCESSES

Started by root it becomes another user first, for nothing limits root; everything is loaded by then, so that the other
user need not be able to read it.
"""

import os
import resource
import sys

import waitress.server

import wsgicgi

THREADS = 8
UID = 54321


def tasks(uid: int) -> int:
    """How many threads a user has in all: what RLIMIT_NPROC counts."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue
    return count


if __name__ == "__main__":
    server = waitress.server.create_server(wsgicgi.create_app(sys.argv[1]), host="127.0.0.1", port=0, threads=THREADS)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
    limit = tasks(os.geteuid()) + int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
    print(f"Serving on http://127.0.0.1:{server.effective_port}", flush=True)
    server.run()
