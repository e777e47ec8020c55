#!/usr/bin/env python3
"""Kills what a test run has left running when the run is gone. Reads lines `+GROUP` and `-GROUP` as process groups begin and end; the end
of its input is the end of the test run."""
import os, signal, sys

groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
