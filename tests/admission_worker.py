"""Takes slots, and looks how many are inside meanwhile. Usage: admission_worker.py WHAT POOL SIZE DIRECTORY [TIMES]

With ``compete`` it takes a slot some times, in three threads (``gevent``: 20 greenlets); with ``hold`` some slots at
once, until its standard input ends; with ``preload`` the pool is made before two children are forked, which compete. It
takes its parent for the server, as a pre-fork server's worker; with ``alone`` in WHAT, itself. Who is inside has a file
of its own in DIRECTORY, so what it prints (the largest number of them) comes from no lock.
"""

import os
import sys
import threading
import time

if "gevent" in sys.argv[1]:
    import gevent.monkey

    gevent.monkey.patch_all()

from pathlib import Path

from wsgicgi.admission import Pool, admit
from wsgicgi.errors import TooManyScripts

WHAT, POOL, SIZE, DIRECTORY = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
TIMES = int(sys.argv[5]) if len(sys.argv) > 5 else 1
ENVIRON = {"wsgi.multithread": True, "wsgi.multiprocess": "alone" not in WHAT}
seen: list[int] = []
refused: list[str] = []


def compete(pool: Pool) -> None:
    for number in range(TIMES):
        try:
            admission = admit([pool], ENVIRON, label="/x", timeout=60)
        except TooManyScripts as error:
            refused.append(str(error))
            continue
        marker = DIRECTORY / f"{os.getpid()}-{threading.get_ident()}-{number}"
        marker.touch()
        seen.append(len(os.listdir(DIRECTORY)))
        time.sleep(0.002)
        marker.unlink()
        admission.leave()


def run(pool: Pool, count: int = 3) -> None:
    threads = [threading.Thread(target=compete, args=(pool,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(1, f"{max(seen, default=0)} {len(refused)}\n".encode())


pool = Pool(POOL, SIZE)
if "hold" in WHAT:
    held = [admit([pool], ENVIRON, label="/x", timeout=60) for _ in range(TIMES)]
    print("held", flush=True)
    sys.stdin.read()
elif "preload" in WHAT:
    children = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            run(pool)
            os._exit(0)
        children.append(pid)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
elif "gevent" in WHAT:
    run(pool, count=20)
else:
    run(pool)
