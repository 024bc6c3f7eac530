"""The frames of a run, whatever files they are in."""

import glob
import os

from sfxflow.errors import InputError
from sfxflow.io.frame_list import ENDING
from sfxflow.io.frames_of_files import Frames
from sfxflow.io.listed_frames import ListedFrames
from sfxflow.io.urls import is_remote


def open_frames(pattern, detector, mask=None, near=0):
    """Open the frames of a run.

    Parameters
    ----------
    pattern : str
        A file or a glob, whose files are taken in sorted order and their frames count through; an address at a server
        (`sfxflow.io.urls`), whose file is fetched; or a list of frames (.lst), of both kinds of files.
    detector : Detector
    mask : str, optional
        A mask file beside the geometry's (`sfxflow.io.masks.extra_mask`).
    near : int, optional
        A frame of those that will be read: of a list's files at a server no others are fetched.

    Returns
    -------
    Frames

    Raises
    ------
    InputError
        No file matches, or a file can't be fetched or opened or does not fit the geometry.
    """
    if str(pattern).endswith(ENDING):
        return ListedFrames(pattern, detector, mask, near)
    return Frames(matching_files(pattern), detector, mask)


def matching_files(pattern):
    """The files that `pattern` names: itself, or sorted what the glob matches.

    Raises
    ------
    InputError
        None, or a pattern for files at a server.
    """
    pattern = str(pattern)
    if is_remote(pattern):
        if "*" in pattern:
            raise InputError(
                f"{pattern}: which files a server has can't be looked up; name one file, or a list (.lst) with a line "
                "'ADDRESS //EVENT' for each frame"
            )
        return [pattern]
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    files = sorted(name for name in glob.glob(pattern) if not os.path.isdir(name))
    if not files:
        raise InputError(f"{pattern}: no file matches; check the folder (now in {os.getcwd()}) and the spelling")
    return files
