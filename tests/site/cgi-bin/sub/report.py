#!/usr/bin/env python3
"""Prints, as JSON, what it was given: its meta-variables, argv, working directory, body and descriptors."""

import json
import os
import sys

body = sys.stdin.buffer.read()
report = {
    "environ": {os.fsencode(k).decode("latin-1"): os.fsencode(v).decode("latin-1") for k, v in os.environ.items()},
    "argv": [os.fsencode(word).decode("latin-1") for word in sys.argv],
    "cwd": os.getcwd(),
    "body": body.decode("latin-1"),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
    if os.path.isdir("/proc/self/fd")
    else [],
    "pid": os.getpid(),
    "pgid": os.getpgid(0) if hasattr(os, "getpgid") else 0,
}
sys.stdout.write("Content-Type: application/json\n\n" + json.dumps(report))
