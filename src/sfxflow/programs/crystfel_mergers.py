"""CrystFEL's mergers: which options they get, and what their output says of each crystal."""

from typing import NamedTuple

import numpy as np

from sfxflow.programs.crystfel import extra_options

#: Half sets of process_hkl: name to the option that makes it. partialator writes the same two halves itself.
HALVES = {"half1": "--odd-only", "half2": "--even-only"}

_LEFT_OUT_OF_MERGE = (b"partiality_too_small", b"nan_esd")


class CrystalNote(NamedTuple):
    """What a program says of a crystal: frame, whether it was merged, scale factor G (NaN if it does not say) and merged observations (-1)."""

    frame: str
    merged: bool
    scale: float
    n_observations: int


def partialator_options(settings, point_group, integration, threads):
    """Options of partialator.

    Parameters
    ----------
    settings : sfxflow.settings.Partialator
    point_group : str
        CrystFEL's name: without it partialator takes one of its own.
    integration : sfxflow.settings.Integration
        For the polarisation.
    threads : int

    Returns
    -------
    list of str
    """
    return [
        "-y",
        point_group,
        f"--model={settings.model}",
        f"--iterations={settings.iterations}",
        *([] if settings.scale else ["--no-scale"]),
        *([] if settings.b_factor else ["--no-Bscale"]),
        *([] if settings.post_refinement else ["--no-pr"]),
        *([] if settings.delta_cc_half else ["--no-deltacchalf"]),
        f"--max-rel-B={settings.max_rel_b:g}",
        *_common_options(settings, integration),
        "-j",
        str(threads),
        "--no-logs",
        *extra_options(settings.extra, "partialator.extra"),
    ]


def process_hkl_options(settings, point_group, integration):
    """Options of process_hkl; see `partialator_options`."""
    return [
        "-y",
        point_group,
        *(["--scale"] if settings.scale else []),
        *_option("--min-snr", settings.min_snr),
        *_option("--min-cc", settings.min_cc),
        *_common_options(settings, integration),
        *extra_options(settings.extra, "process_hkl.extra"),
    ]


def polarisation_option(integration):
    """The polarisation as CrystFEL takes it: whole degrees and whole percent, 0deg99."""
    return f"--polarisation={round(integration.polarisation_angle) % 180}deg{round(100 * integration.polarisation_fraction)}"


def _common_options(settings, integration):
    # 1/angstrom here, 1/nm there.
    push_res = None if settings.push_res is None else 10 * settings.push_res
    return [
        f"--min-measurements={settings.min_measurements}",
        *_option("--max-adu", settings.max_adu),
        *_option("--min-res", settings.min_res),
        *_option("--push-res", push_res),
        polarisation_option(integration),
    ]


def _option(name, value):
    return [] if value is None else [f"{name}={value:g}"]


def partialator_crystals(lines):
    """What partialator's list of unmerged reflections says of each crystal.

    Parameters
    ----------
    lines : iterable of bytes

    Returns
    -------
    list of CrystalNote
    """
    found, frame, merged, n = [], None, True, 0
    for line in lines:
        if line.startswith(b"Crystal "):
            if frame is not None:
                found.append(CrystalNote(frame, merged, np.nan, n))
            frame, merged, n = "", True, 0
        elif line.startswith(b"Filename: "):
            frame = line[10:].decode("utf-8", "replace").strip()
        elif line.startswith(b"Flagged: "):
            merged = line[9:].strip() != b"yes"
        elif line.strip() and not line.rstrip().endswith(_LEFT_OUT_OF_MERGE):
            n += 1
    if frame is not None:
        found.append(CrystalNote(frame, merged, np.nan, n))
    return found


def process_hkl_crystals(lines):
    """What process_hkl's statistics say of each crystal that it has merged.

    Parameters
    ----------
    lines : iterable of bytes

    Returns
    -------
    list of CrystalNote
    """
    found = []
    for line in lines:
        frame, scale, _ = line.decode("utf-8", "replace").rsplit(maxsplit=2)
        # process_hkl multiplies the intensities of a crystal by its scale.
        found.append(CrystalNote(frame, True, 1.0 / float(scale) if float(scale) else np.nan, -1))
    return found


def notes_of_crystals(frames, notes):
    """The note of each crystal, None where the program does not mention it.

    Parameters
    ----------
    frames : sequence of str
        Frame ('FILE //N') of each crystal of the stream, in its order.
    notes : list of CrystalNote
        In the same order, but not of all crystals.

    Returns
    -------
    list of (CrystalNote or None)

    Raises
    ------
    ValueError
        The program mentions a crystal that is not in the stream.
    """
    found, following = [], 0
    for frame in frames:
        if following < len(notes) and notes[following].frame == frame:
            found.append(notes[following])
            following += 1
        else:
            found.append(None)
    if following < len(notes):
        raise ValueError(notes[following].frame)
    return found
