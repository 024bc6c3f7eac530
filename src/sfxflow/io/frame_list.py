"""Lists of frames (.lst), as CrystFEL has them: on each line a file and the event in it; without an event all frames of the file."""

from sfxflow.errors import InputError
from sfxflow.io.files import written_whole

ENDING = ".lst"
_BEFORE_EVENT = " "


def read_frame_list(path):
    """Files and events of a list.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of (str, str)
        File, and event such as '//12'; empty where the line names none. Paths are relative to the working directory.

    Raises
    ------
    InputError
        Not there, not text, or without a line.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            lines = [line.strip() for line in handle]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the list of frames can't be read ({getattr(error, 'strerror', None) or error})"
        ) from None
    listed = [file_and_event(line) for line in lines if line]
    if not listed:
        raise InputError(f"{path}: the list of frames is empty; a line 'file //event' a frame is expected")
    return listed


def write_frame_list(path, frames):
    """Write a list.

    Parameters
    ----------
    path : path
    frames : iterable of (str, str)
        File and event; empty where the file holds one frame.
    """
    lines = [f"{file}{_BEFORE_EVENT}{event}".rstrip() for file, event in frames]
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def file_and_event(line):
    """File and event of a line; an event has // in it and no space, the file's name may have spaces."""
    file, _, event = line.rpartition(_BEFORE_EVENT)
    return (file.rstrip(), event) if file and "//" in event else (line, "")
