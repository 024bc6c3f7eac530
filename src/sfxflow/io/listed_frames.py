"""The frames that a list names, of files here or at a server."""

from sfxflow.errors import FrameError, InputError
from sfxflow.io.frame_list import read_frame_list
from sfxflow.io.frames_of_files import Frames
from sfxflow.io.remote_files import is_here, local_file
from sfxflow.io.urls import is_remote


class ListedFrames(Frames):
    """The frames of a list (`sfxflow.io.frame_list`), in its order; otherwise as `Frames`.

    A file that is not there is missed, or fetched from its server, only when a frame of it is read, if the list says which events it has: a
    job on another machine may have no more than the files of its own chunk.

    Parameters
    ----------
    path : str
        The list.
    detector : Detector
    extra : str, optional
        Mask file of the user.
    near : int, optional
        A frame of those that will be read.

    Raises
    ------
    InputError
        A file has no such event, or anything that `Frames` raises.
    """

    def __init__(self, path, detector, extra=None, near=0):
        listed = read_frame_list(path)
        self._listed = None
        self._absent = {}
        for file, event in listed:
            if event and not is_here(file):
                self._absent[file] = self._absent.get(file, 0) + 1
        if near < len(listed) and is_remote(listed[near][0]) and len(self._absent) == len({file for file, _ in listed}):
            local_file(listed[near][0])
            del self._absent[listed[near][0]]
        # The first file tells what all have in common.
        files = sorted(dict.fromkeys(file for file, _ in listed), key=lambda file: file in self._absent)
        super().__init__(files, detector, extra)
        numbers = {file: number for number, file in enumerate(self.files)}
        places, events, named = [], {}, []
        for file, event in listed:
            number = numbers[file]
            n_in_file = int(self._starts[number + 1] - self._starts[number])
            if not event:
                places += [(number, within) for within in range(n_in_file)]
                # Lines without an event stand for as many frames as their file has.
                named += [(file, "")] * n_in_file
                continue
            named.append((file, event))
            if file in self._absent:
                places.append((number, 0))
                continue
            if number not in events:
                events[number] = self._events(number)
            if event not in events[number]:
                raise InputError(f"{path}: {file} has no event {event}; it holds {n_in_file} frames")
            places.append((number, events[number][event]))
        self._listed, self._named = places, named
        self.n_frames = len(places)
        self._near = min(near, self.n_frames - 1)

    def _events(self, number):
        """Event to number within the file."""
        reader = self._reader(number)
        return {reader.event(within): within for within in range(reader.n_frames)}

    def files_of(self, wanted):
        """As `Frames.files_of`; no file is fetched for it."""
        return list(dict.fromkeys(self._named[i][0] for i in wanted))

    def announce(self, i):
        """As `Frames.announce`; no file is fetched for it."""
        if 0 <= i < self.n_frames and self._named[i][0] not in self._absent:
            super().announce(i)

    def origin(self, i):
        """(file, event) of frame `i`, as the list has them."""
        return self._named[i] if self._named[i][1] else super().origin(i)

    def _count(self):
        if not self._needs_opening():
            return [1] * len(self.files)
        return [self._absent.get(file) or self._reader(number).n_frames for number, file in enumerate(self.files)]

    def _place(self, i):
        if self._listed is None:
            return super()._place(i)
        if not 0 <= i < self.n_frames:
            raise IndexError(f"frame {i} of {self.n_frames}")
        file, event = self._named[i]
        if file in self._absent and is_remote(file):
            self._look_into_fetched(file)
        if self._listed[i][1] is None:
            raise FrameError(f"{file} has no event {event}")
        return self._listed[i]

    def _look_into_fetched(self, file):
        """Where in a file at a server its frames are; it is fetched for that."""
        number = self.files.index(file)
        events = self._events(number)
        del self._absent[file]
        for i, (name, event) in enumerate(self._named):
            if name == file:
                self._listed[i] = (number, events.get(event))
