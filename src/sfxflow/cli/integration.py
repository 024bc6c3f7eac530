"""Predict the reflections of each indexed crystal and take their intensities from the frames, by profiles or in rings."""

import sys

import numpy as np

from sfxflow.cli import options
from sfxflow.errors import FrameError, InputError
from sfxflow.geometry import panel_arrays, polarisation_factor
from sfxflow.indexing.frame import panel_inverses
from sfxflow.integration.pixels import surface_of
from sfxflow.integration.predict import highest_q, predict
from sfxflow.integration.profile import integrate_profiles, radial_axes
from sfxflow.integration.rings import Outcome
from sfxflow.io.files import provenance_json
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.table import ChunkWriter, open_chunk, read_rows
from sfxflow.parallel import ordered_map
from sfxflow.peaks import estimate_gain, prepare
from sfxflow.progress import Progress
from sfxflow.reflections import Status
from sfxflow.symmetry import space_group
from sfxflow.units import wavelength

#: Frames whose reflections are gathered before they are written.
_BLOCK = 64


def add_arguments(parser):
    """Arguments of the sub-command."""
    parser.add_argument("--indexed", required=True, help="file of the indexed crystals")
    options.add_frames(parser)
    options.add_job(parser, "file of the integrated reflections (HDF5)")


def run(args):
    """Integrate; see the module's docstring."""
    settings = options.stage_settings("integration", args)
    if not settings.inner_radius <= settings.middle_radius < settings.outer_radius:
        raise InputError(
            "integration: the radii must grow: inner_radius <= middle_radius < outer_radius, "
            f"but they are {settings.inner_radius:g}, {settings.middle_radius:g}, {settings.outer_radius:g}"
        )
    detector = read_geometry(args.geometry)
    with open_frames(args.frames, detector, args.mask, near=args.first) as frames:
        wanted = options.frame_range(args, frames.n_frames)
        inputs = [args.indexed, args.geometry, *([args.mask] if args.mask else []), *frames.files_of(wanted)]
    with open_chunk(args.indexed, "frames", "crystals") as handle:
        account = read_rows(handle["frames"])
        crystals = read_rows(handle["crystals"])
        attributes = {name: handle.attrs[name] for name in ("warning", "cell", "space_group")}
    if list(account["frame"]) != list(wanted):
        raise InputError(
            f"{args.indexed}: does not hold the frames {wanted.start} to {wanted.stop - 1}; run the indexing of this chunk again"
        )
    rows_of_frame = _rows_by_frame(crystals["frame"])
    wanted_frames = [int(account["frame"][i]) for i in rows_of_frame]
    tasks = [
        (frame, {name: crystals[name][rows] for name in _PER_CRYSTAL}, following)
        for frame, rows, following in zip(
            wanted_frames, rows_of_frame.values(), [*wanted_frames[1:], None], strict=False
        )
    ]

    setup = (args.frames, detector, args.mask, settings, str(attributes["space_group"]), args.first)
    results = ordered_map(_integrate_frame, _Integrator, setup, tasks, args.threads)
    progress = Progress("frames integrated", len(tasks))
    counts, n_without_profile = np.zeros(len(Outcome), dtype=int), 0
    with hdf5_written_whole(args.output) as handle:
        writer = ChunkWriter(
            handle, provenance_json(dict(vars(settings)), inputs), ["frames", "crystals", "reflections"]
        )
        for name, value in attributes.items():
            handle.attrs[name] = value
        kept, block, n_crystals = [], [], 0
        for (i, rows), result in zip(rows_of_frame.items(), results, strict=True):
            progress.add()
            if isinstance(result, str):
                _mark_failed(account, i, result)
                continue
            result, counts_of_frame, has_profile = result
            counts += counts_of_frame
            n_without_profile += not has_profile
            result["crystal"] = (result["crystal"] + n_crystals).astype(np.uint32)
            n_crystals += len(rows)
            kept.append(rows)
            block.append(result)
            if len(block) == _BLOCK:
                _append(writer, block)
                block = []
        _append(writer, block)
        chosen = np.concatenate(kept) if kept else np.zeros(0, dtype=int)
        writer.append("crystals", {name: values[chosen] for name, values in crystals.items()})
        writer.append("frames", account)
        for outcome in Outcome:
            handle.attrs[f"n_{outcome.name}"] = int(counts[outcome])
        handle.attrs["n_frames_without_profile"] = n_without_profile if settings.method == "profile" else 0
        messages = [account["message"][i] for i in np.flatnonzero(account["status"] == Status.failed)]
        options.check_failures(len(messages), len(wanted), settings.max_bad_frames, messages)
    progress.finish()
    print(f"{len(kept)} frames integrated: {_account(counts)}", file=sys.stderr)
    if settings.method == "profile" and n_without_profile:
        print(
            f"{n_without_profile} of {len(kept)} frames have too few strong spots for a profile; their reflections are summed in rings",
            file=sys.stderr,
        )


_PER_CRYSTAL = ("reciprocal", "profile_radius", "mosaicity", "bandwidth", "shift", "excess", "resolution")

_WORDS = {
    Outcome.saturated: "saturated",
    Outcome.incomplete: "on bad pixels or over an edge",
    Outcome.inseparable: "too close to another",
    Outcome.no_background: "without a background",
}


def _account(counts):
    """What became of the predicted reflections, in words."""
    left_out = ", ".join(f"{counts[outcome]} {words}" for outcome, words in _WORDS.items() if counts[outcome])
    return f"{counts[Outcome.integrated]} reflections" + (f"; left out: {left_out}" if left_out else "")


def _rows_by_frame(frame_of_crystal):
    """Rows of the crystals table for each row of the frames table that has any, in order."""
    order = np.argsort(frame_of_crystal, kind="stable")
    frames, starts = np.unique(frame_of_crystal[order], return_index=True)
    return dict(zip(frames.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}


def _mark_failed(account, i, message):
    account["status"][i] = Status.failed
    account["n_lattices"][i] = 0
    account["resolution"][i] = np.nan
    account["message"][i] = message


def _append(writer, block):
    if block:
        writer.append("reflections", {name: np.concatenate([rows[name] for rows in block]) for name in block[0]})


class _Integrator:
    """What a worker needs: its own open files and the geometry."""

    def __init__(self, pattern, detector, mask, settings, group, near):
        self.frames = open_frames(pattern, detector, mask, near)
        self.memory = self.frames.memory()
        self.surface = surface_of(self.frames.mask)
        self.detector = detector
        self.arrays = panel_arrays(detector)
        self.settings = settings
        self.centering = _lattice_centering(space_group(group))
        self.max_adu = options.highest_values(detector)
        self.polarisation_angle = np.radians(settings.polarisation_angle)
        self._geometry = (None, None, None)
        self._prepared = (None, None)

    def geometry(self, clen, length):
        """Inverse panel matrices and highest |q| for a camera length and wavelength."""
        if self._geometry[0] != clen:
            self._geometry = (clen, panel_inverses(self.arrays, clen), highest_q(self.arrays, clen, 1.0))
        q_max = self._geometry[2] / length
        return self._geometry[1], min(q_max, 1.0 / self.settings.d_min) if self.settings.d_min else q_max

    def gain(self, frame):
        """Detector units a photon, from the geometry or else from the frame."""
        known = options.header_gain(self.detector, frame.photon_energy)
        if known is not None:
            return known
        clen = options.clen_of_bins(self.detector, frame.clen)
        if self._prepared[0] != clen:
            self._prepared = (clen, prepare(self.arrays, self.frames.mask, clen))
        return estimate_gain(frame.data, self._prepared[1], self.frames.valid_range, frame.good)


def _lattice_centering(group):
    """Centring symbol as in cell files: rhombohedral groups on hexagonal axes are H there."""
    return "H" if group.hm.startswith("R") and group.ext == "H" else group.centring_type()


def _limit(q_max, resolution, push_res):
    """Highest |q| of one crystal, 1/angstrom."""
    if push_res is None or not np.isfinite(resolution):
        return q_max
    return min(q_max, max(1.0 / resolution + push_res, 0.0))


def _integrate_frame(integrator, task):
    """Reflections of one frame as columns, the number of each outcome, and whether the frame has a profile; or, as text, the reason why it
    could not be read."""
    index, crystals, following = task
    try:
        frame = integrator.frames.read(index, integrator.memory)
    except FrameError as error:
        return str(error)
    if following is not None:
        integrator.frames.announce(following)
    settings = integrator.settings
    length = wavelength(frame.photon_energy)
    to_panel, q_max = integrator.geometry(frame.clen, length)
    predicted = [
        predict(
            crystals["reciprocal"][c],
            np.append(crystals["shift"][c], crystals["excess"][c]),
            (crystals["profile_radius"][c], crystals["mosaicity"][c], crystals["bandwidth"][c]),
            length,
            integrator.arrays.bounds,
            to_panel,
            integrator.centering,
            _limit(q_max, crystals["resolution"][c], settings.push_res),
            settings.max_excitation,
        )
        for c in range(len(crystals["reciprocal"]))
    ]
    hkl, fs, ss, panel, excitation_error, direction = (
        np.concatenate(column) for column in zip(*predicted, strict=True)
    )
    crystal = np.repeat(np.arange(len(predicted)), [len(p.fs) for p in predicted])
    good = integrator.surface if frame.good is None else integrator.frames.mask & frame.good
    towards, relative_q2 = radial_axes(integrator.arrays, panel, direction)
    found, profile = integrate_profiles(
        frame.data,
        good,
        integrator.frames.valid_range,
        integrator.arrays.bounds,
        fs,
        ss,
        panel,
        (settings.inner_radius, settings.middle_radius, settings.outer_radius),
        integrator.gain(frame),
        integrator.max_adu,
        towards,
        relative_q2,
        method=settings.method,
        background=settings.background,
        mask_saturated=settings.saturated == "mask",
    )
    counts = np.bincount(found.outcome, minlength=len(Outcome))
    ok = found.ok
    polarisation = polarisation_factor(direction[ok], settings.polarisation_fraction, integrator.polarisation_angle)
    reflections = {
        "crystal": crystal[ok],
        "h": hkl[ok, 0],
        "k": hkl[ok, 1],
        "l": hkl[ok, 2],
        "I": found.I[ok].astype(np.float32),
        "sigI": found.sigI[ok].astype(np.float32),
        "excitation_error": excitation_error[ok].astype(np.float32),
        "polarisation": polarisation.astype(np.float32),
        "fs": fs[ok].astype(np.float32),
        "ss": ss[ok].astype(np.float32),
        "panel": panel[ok].astype(np.uint16),
        "peak": found.peak[ok].astype(np.float32),
        "background": found.background[ok].astype(np.float32),
    }
    return reflections, counts, profile is not None
