"""What the programs of the engines say of themselves: versions, and the indexing methods that CrystFEL was built with."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

#: A program that says its version takes no longer, seconds.
_PATIENCE = 60
_VERSION = re.compile(r"(\d+\.\d+[\w.+-]*)")
_METHODS = re.compile(r"^Auto-determined indexing methods: (\S+)", re.MULTILINE)

_GEOMETRY = """photon_energy = 9000
clen = 0.1
res = 10000
adu_per_photon = 1
data = /data
p/min_fs = 0
p/max_fs = 9
p/min_ss = 0
p/max_ss = 9
p/corner_x = -5
p/corner_y = -5
p/fs = x
p/ss = y
"""
_CELL = """CrystFEL unit cell file version 1.0

lattice_type = tetragonal
centering = P
unique_axis = c
a = 79 A
b = 79 A
c = 38 A
al = 90 deg
be = 90 deg
ga = 90 deg
"""


def said_version(program, *arguments):
    """Version that a program says, None where it is not installed or says none.

    Parameters
    ----------
    program : str
        Looked for on PATH.
    *arguments : str
        That make it say its version; --version if there are none.
    """
    path = shutil.which(program)
    if path is None:
        return None
    text = _output([path, *(arguments or ["--version"])])
    found = _VERSION.search(text)
    return found.group(1).rstrip(".+-") if found else None


def crystfel_methods():
    """Indexing methods that the installed indexamajig was built with, None where it does not say.

    indexamajig says them when it is started without --indexing. It does not find the programs of others here, so that none of them
    is started.
    """
    path = shutil.which("indexamajig")
    if path is None:
        return None
    with tempfile.TemporaryDirectory(prefix="sfxflow-") as folder:
        for name, text in (("p.geom", _GEOMETRY), ("p.cell", _CELL), ("p.lst", "no_such_file.h5 //0\n")):
            Path(folder, name).write_text(text)
        text = _output(
            [path, "-i", "p.lst", "-g", "p.geom", "-p", "p.cell", "-o", "p.stream", "-j", "1", "--peaks=zaef"],
            cwd=folder,
            env=os.environ | {"PATH": folder},
        )
    found = _METHODS.search(text)
    return found.group(1).split(",") if found else None


def _output(command, **options):
    """What a command prints; nothing where it can't be started or hangs."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
