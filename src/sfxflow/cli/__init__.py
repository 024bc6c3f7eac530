"""The `sfxflow` command: one module a stage, each with `add_arguments(parser)` and `run(args)`.

A module's docstring is its help text. Bad input ends with the message of `InputError` and exit status 1.
"""

import argparse
import errno
import importlib
import json
import os
import sys
import textwrap

import sfxflow
from sfxflow.cli.chunk_lists import expanded
from sfxflow.errors import InputError
from sfxflow.io.job_costs import cost_line
from sfxflow.settings import STAGES, schema_of

# Matrices here are tiny and the work is spread over processes: threads of the linear algebra library would only get in each other's way.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

#: Sub-command to what it does; the module has the same name, with _ for -. The order is that of the work.
COMMANDS = {
    "init": "look into the files and write a config that runs",
    "runs": "add runs to the table of runs",
    "run": "run the workflow, on the first of several clusters that takes it",
    "simulate": "simulate frames with known truth",
    "peaks": "find peaks",
    "cell": "find the unit cell where none is known",
    "indexing": "index the peaks with a known cell",
    "geometry": "propose a refined detector geometry",
    "integration": "predict and integrate reflections",
    "crystfel_peaks": "find peaks with CrystFEL",
    "crystfel_indexing": "index and integrate with CrystFEL",
    "dials_peaks": "find peaks with DIALS",
    "dials_indexing": "index and integrate with DIALS",
    "stream": "write a CrystFEL stream",
    "convert": "convert between streams, tables, peak files, MTZ",
    "frames": "gather the frame account of a run",
    "split": "say which frames are merged apart",
    "ambiguity": "resolve the indexing ambiguity",
    "merging": "scale and merge",
    "partialator": "merge a stream with CrystFEL's partialator",
    "process_hkl": "merge a stream with CrystFEL's process_hkl",
    "dials_scale": "scale and merge with dials.scale",
    "cctbx_xfel_merge": "scale and merge with cctbx.xfel.merge",
    "figures_of_merit": "figures of merit, by shell and overall",
    "export": "write MTZ and HKL files",
    "difference": "isomorphous difference of two groups",
    "comparison": "one table of all engines and mergers",
    "report": "write the HTML report",
    "lock": "write down versions and parameters, and pin some frames",
    "check-lock": "run the pinned frames again and say what moved",
    "pack": "pack packages and workflow for machines that see neither",
    "doctor": "what is installed, what works from here, what is missing",
}


#: Commands whose `--settings` has a section for each of several stages.
SECTIONS = {
    "crystfel_peaks": ("peaks", "crystfel"),
    "crystfel_indexing": ("crystfel", "integration"),
    "dials_peaks": ("peaks", "dials"),
    "dials_indexing": ("dials", "indexing", "integration", "peaks"),
    "partialator": ("partialator", "integration"),
    "process_hkl": ("process_hkl", "integration"),
}


class _Help(argparse.HelpFormatter):
    """Keeps paragraphs and indented lines as they are meant, and shows a default where it says something."""

    def _fill_text(self, text, width, indent):
        lines = []
        for paragraph in text.strip().split("\n\n"):
            if paragraph.startswith("  "):
                lines += [textwrap.fill(line, width, subsequent_indent=6 * " ") for line in paragraph.splitlines()]
            else:
                lines.append(textwrap.fill(" ".join(paragraph.split()), width))
            lines.append("")
        return "\n".join(indent + line for line in lines[:-1])

    def _get_help_string(self, action):
        if isinstance(action.default, bool) or action.default in (None, "", [], argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: %(default)s)"


def _settings_text(command):
    """The settings of a command for its help text; None where it has none."""
    stages = SECTIONS.get(command, (command,) if command in STAGES else ())
    lines = []
    for stage in stages:
        where = f"the section {stage}" if len(stages) > 1 else "--settings"
        lines += [f"keys of {where}, which are those of the section in config.yaml:", ""]
        for name, entry in schema_of(stage)["properties"].items():
            lines.append(f"  {name} ({json.dumps(entry['default'])}): {entry['description']}")
        lines.append("")
    return "\n".join(lines) or None


def _cpu_seconds():
    """User and system time of this process and of those that it waited for."""
    usage = os.times()
    return usage.user + usage.system + usage.children_user + usage.children_system


def main(argv=None):
    """Run one sub-command; returns the exit status."""
    argv = expanded(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="sfxflow", description=sfxflow.__doc__)
    parser.add_argument("--version", action="version", version=f"sfxflow {sfxflow.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="STAGE", required=True)
    chosen = argv[0] if argv and argv[0] in COMMANDS else None
    for name, meaning in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=meaning, formatter_class=_Help)
        if name == chosen:
            subparser.epilog = _settings_text(name)
            module = importlib.import_module(f"sfxflow.cli.{name.replace('-', '_')}")
            subparser.description = module.__doc__
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    args, rest = parser.parse_known_args(argv)
    if rest and not hasattr(args, "rest"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        status = args.run(args) or 0
        if not status and (hasattr(args, "threads") or args.command == "stream"):
            print(cost_line(_cpu_seconds()), file=sys.stderr)
        return status
    except InputError as error:
        print(f"sfxflow {args.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG):
            print(f"sfxflow {args.command}: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
            return 1
        raise
