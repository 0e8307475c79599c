"""Perl scripts from a warm parent: none can tell, and nothing goes from one to the next."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warm_perl_cases import CASES
