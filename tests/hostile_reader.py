"""`adapterscan …` with a reader that some bytes hang or crash: a stand-in for unknown defects.

    python -m tests.hostile_reader scan FOLDER --timeout 4s

What a file's first bytes say happens where its content is first looked at. Nothing that ships has
such a reader, so nothing can be made to do this but by a defect of ours.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time

from adapterscan.cli import main
from adapterscan.reading import weights

sniffed = weights.sniff
MARK = os.environ.get("MARK", "bred")  # by which a test knows the process that it started


def hang():
    while True:
        time.sleep(1)


def spin():
    re.fullmatch("(a+)+$", "a" * 60 + "b")  # in C, without letting go of the interpreter


def grow():
    held = []
    while True:
        held.append(bytearray(8 << 20))


def grow_and_swallow():
    held = []
    while True:
        try:
            held.append(bytearray(8 << 20))
        except MemoryError:
            time.sleep(0.05)


def crash():
    ctypes.string_at(8)


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def leave():
    os._exit(0)


def breed():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", MARK])
    hang()


def sniff(head):
    for name in (
        "hang",
        "spin",
        "grow_and_swallow",
        "grow",
        "crash",
        "be_killed",
        "leave",
        "breed",
    ):
        if head.startswith(b"!" + name.encode() + b"!"):
            globals()[name]()
    return sniffed(head)


if __name__ == "__main__":
    weights.sniff = sniff
    main()
