"""Pack what a job needs of this computer into one archive: Python packages, sfxflow, the workflow.

`snakemake --profile htcondor-transfer` calls this when it starts; its jobs take the archive along to machines that do not see this
folder. An archive that is up to date is left as it is. The machines need a Python of the same version (3.11, say) on PATH and a C
library that is not older; what they do not need is a network, an installation or rights.
"""

import sys
from pathlib import Path

import sfxflow
from sfxflow.errors import InputError
from sfxflow.io.packed import files_to_pack, fingerprint, needed_distributions, packed_fingerprint, write_packed


def add_arguments(parser):
    """Arguments of `sfxflow pack`."""
    parser.add_argument(
        "--also",
        nargs="*",
        default=[],
        metavar="PACKAGE",
        help="more installed packages, with all that they need (plug-ins of Snakemake for storage, say)",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="archive to write (.tar.gz)")


def run(args):
    """Find, compare, write."""
    checkout = Path(sfxflow.__file__).resolve().parents[2]
    if not (checkout / "Snakefile").exists():
        raise InputError(
            f"{checkout}: no Snakefile there: sfxflow was not installed from a checkout of its repository, and the workflow is packed "
            "from it; install with: pip install --editable REPOSITORY[workflow,htcondor]"
        )
    if sys.platform == "win32":
        raise InputError("packages of Windows do not run on the machines of a pool; pack on one like them")
    files = files_to_pack(needed_distributions(["sfxflow", "snakemake", *args.also]), checkout)
    if packed_fingerprint(args.output) == fingerprint(files):
        print(f"{args.output} is up to date")
        return
    size = write_packed(args.output, files)
    print(f"packed {len(files)} files into {args.output}, {size / 1e6:.0f} MB")
