"""Write merged reflections as MTZ and CrystFEL reflection lists, and the scaled observations as an unmerged MTZ.

merged.mtz holds H K L IMEAN SIGIMEAN N, where anomalous I(+) SIGI(+) I(-) SIGI(-) as well, and FreeR_flag (0 is free) where the
setting free_fraction asks for it: a reflection's flag depends on its indices only, so that it stays when data are added.
unmerged.mtz holds one batch a crystal. I and SIGI are the observation times SCALEUSED = 1 / (polarisation G exp(-2 B s^2)),
s = sin(theta) / lambda; FRACTIONCALC is the partiality by the merger's curve, by which I is NOT divided; XDET and YDET are fs and
ss in pixels; EXCITATION is the distance from the Ewald sphere in 1/angstrom.
Of other mergers it holds the crystals that they merged, with the scales that they tell; where they tell none (partialator), G = 1 and B = 0:
observations corrected for polarisation only, for programs that scale themselves.
The .hkl files are merged in the Laue group.
With --group everything is of that group of a split dataset, and there is no unmerged MTZ.
"""

import contextlib
import json
from pathlib import Path

import numpy as np

from sfxflow.ambiguity.operators import in_assigned_modes
from sfxflow.cell import inverse_resolution
from sfxflow.errors import InputError
from sfxflow.io.files import provenance
from sfxflow.io.hkl import write_hkl
from sfxflow.io.merged import read_groups, read_merged
from sfxflow.io.mtz import Batch, Header, write_merged_mtz, write_unmerged_mtz
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.merging.corrected import excitation_in_widths, on_curve, scale_used
from sfxflow.point_group import asymmetric, order, point_group, point_group_name
from sfxflow.settings import settings_from_json
from sfxflow.symmetry import free_flags, space_group
from sfxflow.units import wavelength

#: Crystals whose observations are in memory at a time.
_CRYSTALS_PER_BLOCK = 500


def add_arguments(parser):
    """Arguments of `sfxflow export`."""
    parser.add_argument("--merged", required=True, metavar="FILE", help="merged file (merged.h5)")
    parser.add_argument("--group", metavar="NAME", help="only this group, where the dataset is split")
    parser.add_argument(
        "--integrated", nargs="*", default=[], metavar="FILE", help="the integrated chunk files that were merged"
    )
    parser.add_argument(
        "--settings", default="", metavar="JSON", help="settings of the stage; the defaults where not given"
    )
    parser.add_argument("--mtz", required=True, metavar="FILE", help="merged MTZ, to write")
    parser.add_argument("--unmerged", metavar="FILE", help="unmerged MTZ, to write")
    parser.add_argument("--hkl", required=True, metavar="FILE", help="merged reflection list, to write")
    parser.add_argument(
        "--half1", required=True, metavar="FILE", help="reflection list of the first half set, to write"
    )
    parser.add_argument(
        "--half2", required=True, metavar="FILE", help="reflection list of the second half set, to write"
    )


def run(args):
    """Write the files."""
    settings = settings_from_json("export", args.settings)
    if args.group and args.unmerged:
        raise InputError("--unmerged: the unmerged file is of the whole dataset; leave it out with --group")
    merged, crystals, curve, attrs = read_merged(args.merged)
    if args.group:
        merged = read_groups(args.merged, args.group).tables[args.group]
    chunks = _chunks(attrs["integrated"], args.integrated, args.merged) if args.unmerged else []
    origin = provenance({"free_fraction": settings.free_fraction}, [args.merged, *chunks])
    group = space_group(attrs["space_group"])
    header = Header(
        title=" ".join(filter(None, [attrs["dataset"], args.group, f"by {origin['program']}"])),
        dataset=attrs["dataset"],
        group=group,
        cell=attrs["cell"],
        wavelength=attrs["wavelength"],
        history=_history(origin, attrs["provenance"]),
    )
    hkl = np.column_stack([merged["h"], merged["k"], merged["l"]])
    for name, otherwise in (("scale", 1.0), ("B", 0.0), ("width", 1.0)):
        crystals[name] = np.where(np.isfinite(crystals[name]), crystals[name], otherwise)
    # First what reads the chunk files: where one of them is damaged, nothing is written.
    if args.unmerged:
        curve = _complete_curve(curve, crystals, attrs, chunks)
        write_unmerged_mtz(args.unmerged, header, _blocks(chunks, crystals, curve, attrs))
    write_merged_mtz(args.mtz, header, hkl, _merged_columns(merged, hkl, attrs, settings, group))
    _write_lists(args, merged, hkl, point_group_name(group), origin)
    n_merged = sum(status == "merged" for status in crystals["status"])
    whole = f"{n_merged} crystals of {len(crystals['status'])}"
    written = ", ".join(path for path in (args.mtz, args.unmerged, args.hkl) if path)
    print(f"{len(hkl)} reflections, {f'group {args.group}' if args.group else whole}: {written}")


def _chunks(expected, given, merged):
    """Chunk files in the merged file's order. They may have moved as a whole, so only names are compared."""
    if [Path(path).name for path in expected] == [Path(path).name for path in given]:
        return given
    if sorted(expected) == sorted(given):
        return expected
    raise InputError(
        f"--integrated: {len(given)} files were given, {merged} was made from {len(expected)}"
        f" ({_few(expected)}); give these, in any order"
    )


def _few(names):
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"


def _history(origin, merging_provenance):
    """History records: one line of at most 80 characters each."""
    merging = json.loads(merging_provenance)
    lines = [f"{origin['program']} export", f"settings of export: {json.dumps(origin['settings'], sort_keys=True)}"]
    settings = json.dumps(merging.get("settings", {}), sort_keys=True)
    lines += [f"merged by {merging.get('program', '?')}, settings:"]
    lines += [settings[start : start + 80] for start in range(0, len(settings), 80)]
    for described in origin["inputs"]:
        text = f"{described['size']} bytes, {described['modified']}"
        lines.append(f"input {described['name'][-(80 - len(text) - 8) :]}: {text}")
    # The format counts history lines with three digits, and CCP4 keeps 30.
    return lines[:30]


def _merged_columns(merged, hkl, attrs, settings, group):
    columns = [("IMEAN", "J", merged["I"]), ("SIGIMEAN", "Q", merged["sigI"])]
    if attrs["anomalous"]:
        columns += [
            ("I(+)", "K", merged["I_plus"]),
            ("SIGI(+)", "M", merged["sigI_plus"]),
            ("I(-)", "K", merged["I_minus"]),
            ("SIGI(-)", "M", merged["sigI_minus"]),
        ]
    columns.append(("N", "I", merged["n"]))
    if settings.free_fraction > 0:
        columns.append(("FreeR_flag", "I", free_flags(hkl, group, settings.free_fraction)))
    return columns


def _write_lists(args, merged, hkl, name, origin):
    unique = asymmetric(hkl, point_group(name))
    rows = order(unique)
    # the lists have no word for a reflection that was never well recorded: programs would count it as measured
    rows = rows[merged["n"][rows] > 0]
    for path, suffix in ((args.hkl, ""), (args.half1, "_half1"), (args.half2, "_half2")):
        values = (merged[f"{word}{suffix}"][rows] for word in ("I", "sigI", "n"))
        write_hkl(path, name, unique[rows], *values, notes=[f"Generated by {origin['program']}", json.dumps(origin)])


def _complete_curve(curve, crystals, attrs, chunks):
    """The curve with what its use needs besides; None where the merger made none."""
    if attrs.get("partiality_model") == "unity" or not {"x", "q", "partiality"} <= curve.keys():
        return None
    n = len(crystals["width"])
    added = {"crystal_rotation": np.zeros((n, 2)), "crystal_energy": np.zeros(n)}
    if "reference_width" not in curve:
        radii = []
        for path in chunks:
            with _reading(path) as handle:
                radii.append(handle["crystals/profile_radius"][()])
        added["reference_width"] = float(np.median(np.concatenate(radii))) if n else 1.0
    return added | curve


def _blocks(chunks, crystals, curve, attrs):
    """Batches and observations of the merged crystals, some hundred crystals at a time."""
    owner = np.asarray(crystals["chunk"], dtype=np.int64)
    merged = np.array([status == "merged" for status in crystals["status"]], dtype=bool)
    for number, path in enumerate(chunks):
        with _reading(path) as handle:
            first_row = _first_rows(handle)
            chosen = np.flatnonzero(merged & (owner == number))
            for start in range(0, len(chosen), _CRYSTALS_PER_BLOCK):
                yield _block(
                    handle, path, first_row, chosen[start : start + _CRYSTALS_PER_BLOCK], crystals, curve, attrs
                )


@contextlib.contextmanager
def _reading(path):
    """An open chunk file; what it lacks or can't give is told with its name."""
    with open_chunk(path) as handle:
        try:
            yield handle
        except (KeyError, OSError) as error:
            raise InputError(f"{path}: incomplete or damaged ({error}); remove it and run again") from None


def _first_rows(handle):
    """Row of `reflections` at which each crystal begins, and the end."""
    rows = handle["reflections/crystal"][()]
    return np.searchsorted(rows, np.arange(len(handle["crystals/frame"]) + 1))


def _block(handle, path, first_row, chosen, crystals, curve, attrs):
    rows = np.asarray(crystals["crystal"], dtype=np.int64)[chosen]
    low, high = rows.min(), rows.max() + 1
    if high >= len(first_row):
        raise InputError(f"{path}: holds {len(first_row) - 1} crystals, the merged file counts on more; merge again")
    own = read_rows(
        handle["crystals"], low, high, ["frame", "cell", "reciprocal", "profile_radius", "mosaicity", "bandwidth"]
    )
    energy = handle["frames/photon_energy"][()][own["frame"]]
    seen = read_rows(handle["reflections"], first_row[low], first_row[high])
    crystal_row = np.full(high - low, -1)
    crystal_row[rows - low] = chosen
    dataset_crystal = crystal_row[seen["crystal"] - low]
    with np.errstate(invalid="ignore"):
        use = (dataset_crystal >= 0) & np.isfinite(seen["I"]) & (seen["sigI"] > 0) & (seen["polarisation"] > 0)
    seen = {name: values[use] for name, values in seen.items()}
    dataset_crystal = dataset_crystal[use]
    if "operators" in attrs:
        local_mode = np.zeros(high - low, np.int64)
        local_mode[rows - low] = np.asarray(crystals["mode"])[chosen]
        seen["crystal"] = seen["crystal"] - low
        own, seen = in_assigned_modes(own, seen, attrs["operators"], local_mode, np.zeros(high - low, bool))
        seen["crystal"] = seen["crystal"] + low
    hkl = np.column_stack([seen[name] for name in "hkl"])
    q = inverse_resolution(hkl, attrs["cell"])
    factor = scale_used(
        seen["polarisation"].astype(np.float64),
        np.asarray(crystals["scale"])[dataset_crystal],
        np.asarray(crystals["B"])[dataset_crystal],
        q,
    )
    local = seen["crystal"] - low
    columns = {
        "hkl": hkl,
        "BATCH": dataset_crystal + 1,
        "I": seen["I"] * factor,
        "SIGI": seen["sigI"] * factor,
        "FRACTIONCALC": _partiality(seen, hkl, q, own, wavelength(energy), local, crystals, dataset_crystal, curve),
        "SCALEUSED": factor,
        "XDET": seen["fs"],
        "YDET": seen["ss"],
        "EXCITATION": seen["excitation_error"],
    }
    name = Path(path).name
    batches = [
        Batch(int(c) + 1, f"{name} crystal {r}", own["cell"][r - low]) for c, r in zip(chosen, rows, strict=True)
    ]
    return batches, columns


def _partiality(seen, hkl, q, own, length, local, crystals, dataset_crystal, curve):
    """Partiality by the merger's curve, relative to a crystal of the reference width; 1 where there is no curve."""
    if curve is None:
        return np.ones(len(q))
    spread = (np.nan_to_num(own["mosaicity"][local]) * q) ** 2
    spread += (np.nan_to_num(own["bandwidth"][local]) * length[local] * q**2 / 2.0) ** 2
    sigma_q = np.sqrt(own["profile_radius"][local].astype(np.float64) ** 2 + spread)
    width = np.asarray(crystals["width"])[dataset_crystal]
    rotation, shift = curve["crystal_rotation"][dataset_crystal], curve["crystal_energy"][dataset_crystal]
    lab = np.einsum("nij,nj->ni", own["reciprocal"][local], hkl)
    x = excitation_in_widths(seen["excitation_error"], lab, q, length[local], sigma_q, width, rotation, shift)
    # The area of the curve is the same at every width (docs/merging.md), so its height is not.
    return curve["reference_width"] / (sigma_q * width) * on_curve(x, q, curve)
