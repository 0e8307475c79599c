"""wsgicgi in a process that holds as much memory as BENCH_HOLD_MIB says, as large applications do."""

from __future__ import annotations

import os

import wsgicgi

MIB = 1024 * 1024

# written to, page by page: only then it is there, and only then a fork has to copy its page tables
held = bytearray(b"x" * (int(os.environ.get("BENCH_HOLD_MIB", "0")) * MIB))

app = wsgicgi.create_app()
