"""One frozen dataclass a stage: default, limits, unit and meaning of every setting.

The config file's sections, the schema in workflow/schemas and the `--settings` of each sub-command are made from these.
"""

import json
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields
from difflib import get_close_matches

from sfxflow.errors import InputError


def setting(default, meaning, *, low=None, high=None, choices=None):
    """A dataclass field with its meaning, its limits (both included) and its choices."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Peaks:
    """Peak finding: which pixels are a Bragg spot, and which frames are hits."""

    min_snr: float = setting(4.0, "signal-to-noise ratio that a peak must reach", low=0)
    threshold: float | None = setting(None, "absolute lowest value of a peak's pixels, detector unit; none by default")
    min_pix_count: int = setting(2, "fewest connected pixels of a peak", low=1)
    max_pix_count: int = setting(200, "most connected pixels of a peak", low=1)
    local_bg_radius: int = setting(3, "the local background is taken within twice this radius, pixel", low=1)
    min_res: float = setting(0.0, "peaks nearer to the beam are ignored, pixel", low=0)
    max_res: float | None = setting(None, "peaks farther from the beam are ignored, pixel; none by default", low=0)
    min_peaks: int = setting(15, "a frame with fewer peaks is a blank", low=0)
    max_peaks: int = setting(2000, "of more peaks only the strongest are kept", low=1)
    use_saturated: bool = setting(True, "keep peaks with pixels above max_adu")
    max_bad_frames: float = setting(0.5, "fraction of failed frames above which the job fails", low=0, high=1)


@dataclass(frozen=True)
class Cell:
    """Finding the unit cell of a dataset for which none is given, from its first runs."""

    search_frames: int = setting(
        10000, "the cell is looked for in the dataset's first chunks, as many as hold so many frames", low=1
    )
    n_frames: int = setting(200, "hits that are looked at, spread evenly over those chunks", low=5)
    min_peaks: int = setting(15, "hits with fewer peaks are passed over", low=8)
    min_length: float = setting(20.0, "shortest axis of a primitive cell, angstrom", low=8, high=200)
    max_length: float = setting(340.0, "longest axis of a primitive cell, angstrom", low=30, high=800)
    max_log10_p: float = setting(-14.0, "log10 of the chance of a random fit of one frame must be lower", high=0)
    min_frames: int = setting(5, "fewest frames that must agree on a cell", low=3)
    min_share: float = setting(0.5, "share of these frames that must be indexed with the cell", low=0, high=1)


@dataclass(frozen=True)
class Indexing:
    """Indexing with a known cell, and refinement of each lattice against its peaks."""

    max_lattices: int = setting(8, "most lattices looked for in a frame", low=1)
    min_peaks: int = setting(6, "fewest peaks that a lattice must explain", low=4)
    max_log10_p: float | None = setting(
        None,
        "significance: log10 of the chance of a random fit must be lower; none: calibrated on the run's own peaks",
        high=0,
    )
    cell_tolerance: float = setting(0.03, "largest relative deviation of a cell length", low=0, high=0.2)
    angle_tolerance: float = setting(1.5, "largest deviation of a cell angle, degree", low=0, high=10)
    max_bad_frames: float = setting(0.5, "fraction of failed frames above which the job fails", low=0, high=1)


@dataclass(frozen=True)
class Geometry:
    """Refinement of the detector geometry, and the search for a wrong beam centre or camera length."""

    level: str = setting(
        "rigid_groups",
        "what moves by itself: the smallest rigid groups of the geometry (panels, where there are none), panels, or only all together",
        choices=("rigid_groups", "panels", "overall"),
    )
    distance: bool = setting(False, "refine the camera length too; the crystals' cells are then held to the given one")
    cell_spread: float = setting(
        0.002,
        "relative standard deviation of the crystals' cells about the given one, with distance",
        low=1e-5,
        high=0.05,
    )
    out_of_plane: bool = setting(
        False, "refine distances and tilts of the groups too, where the crystals determine them"
    )
    min_crystals: int = setting(50, "with fewer crystals only the overall shift is refined", low=5)
    max_crystals: int = setting(5000, "of more crystals so many are used, evenly spread", low=50)
    min_peaks: int = setting(20, "a group with fewer matched peaks does not move by itself", low=10)
    search: str = setting(
        "auto",
        "search for the beam centre and the camera length first: never, always, or if strong hits are not indexed (auto)",
        choices=("auto", "always", "never"),
    )
    search_shift: float = setting(8.0, "how far the beam centre is searched each way, pixel", low=0, high=100)
    search_distance: float = setting(0.03, "how far the camera length is searched each way, relative", low=0, high=0.1)
    search_frames: int = setting(50, "strong frames that are searched with", low=5, high=1000)


@dataclass(frozen=True)
class Integration:
    """Prediction of reflections and their intensities."""

    method: str = setting(
        "profile",
        "profile: fit of the shape that the strong spots of the frame have; rings: sum of the peak region",
        choices=("profile", "rings"),
    )
    background: str = setting(
        "auto",
        "background under a reflection: the mean of the ring, a plane, or a plane where its slope is significant",
        choices=("flat", "plane", "auto"),
    )
    saturated: str = setting(
        "drop",
        "reflections with pixels above max_adu: drop them, or mask these pixels and take the rest",
        choices=("drop", "mask"),
    )
    inner_radius: float = setting(3.0, "radius of the peak region, pixel", low=1)
    middle_radius: float = setting(4.0, "inner radius of the background ring, pixel", low=1)
    outer_radius: float = setting(6.0, "outer radius of the background ring, pixel", low=2)
    max_excitation: float = setting(
        3.5, "reflections are predicted up to so many sigma(q) off the Ewald sphere", low=0.5
    )
    d_min: float | None = setting(
        None, "highest resolution that is integrated, angstrom; none: the detector's edge", low=0
    )
    push_res: float | None = setting(
        None,
        "each crystal is integrated so far beyond its own resolution, 1/angstrom; none: to d_min or the detector's edge",
    )
    polarisation_fraction: float = setting(
        0.99, "fraction of the beam that is polarised along the main direction", low=0, high=1
    )
    polarisation_angle: float = setting(0.0, "main direction of the electric field, degree from +x to +y")
    max_bad_frames: float = setting(0.5, "fraction of failed frames above which the job fails", low=0, high=1)


@dataclass(frozen=True)
class Ambiguity:
    """Indexing ambiguity: which of several ways to index each crystal agrees with the others."""

    resolve: bool = setting(True, "find the way to index of each crystal, where cell and space group admit several")
    program: str = setting(
        "builtin",
        "what finds it: sfxflow itself, or CrystFEL's ambigator, for two ways and without a reference",
        choices=("builtin", "ambigator"),
    )
    reference: str = setting(
        "global",
        "what the dataset's reference is used for: to choose among the ways to index all crystals alike (global), to tell the way of"
        " each crystal (crystals), or for nothing (none)",
        choices=("global", "crystals", "none"),
    )
    tolerance: float = setting(
        0.005, "relative difference up to which cell lengths count as equal (angles: in radian)", low=0, high=0.05
    )
    d_min: float | None = setting(None, "highest resolution that is compared, angstrom; none: all", low=0)
    cycles: int = setting(3, "rounds of merging and assigning again with the scales of the merge", low=0, high=20)
    min_margin: float = setting(
        1.0, "crystals whose way to index is less certain (log likelihood ratio) are not merged; 0: all are", low=0
    )
    max_crystals: int = setting(
        20000, "of more crystals, so many are compared with each other, the rest with these", low=2
    )


@dataclass(frozen=True)
class Merging:
    """Scaling, partiality and merging."""

    partiality: str = setting(
        "empirical",
        "partiality model: a curve estimated from the data, a Gaussian, a sphere, or none",
        choices=("empirical", "gaussian", "xsphere", "unity"),
    )
    cycles: int = setting(
        8, "most cycles of scaling and merging; they end when the intensities stay as they are", low=1, high=100
    )
    min_measurements: int = setting(2, "fewest measurements of a reflection, of crystals that are merged", low=1)
    keep_unrecorded: bool = setting(
        True,
        "keep reflections of which hardly anything was recorded in any measurement: what these and Wilson's distribution tell (n = 0)",
    )
    max_excitation: float = setting(3.5, "observations farther off the Ewald sphere are left out, sigma(q)", low=0.5)
    min_partiality: float = setting(0.02, "observations with a smaller partiality are left out", low=0, high=1)
    anomalous: bool = setting(False, "keep Friedel pairs apart")
    reject_delta_cc: float | None = setting(
        None,
        "crystals whose delta-CC1/2 is so many standard deviations below the mean are left out; none: all are kept",
        low=0,
    )
    independent_halves: bool = setting(
        False, "fit scales, curve and weights of each half set with its own crystals only: two more runs"
    )


@dataclass(frozen=True)
class Crystfel:
    """Engine crystfel: indexamajig. Its peak search takes the settings of peaks, its integration the radii, d_min and push_res of integration."""

    peak_search: str = setting(
        "peakfinder8",
        "where the peaks come from: indexamajig's peakfinder8, or the engine builtin",
        choices=("peakfinder8", "builtin"),
    )
    peaks_extra: str = setting("", "more options of indexamajig for the peak search, as on a command line")
    indexing: str = setting(
        "asdf",
        "indexing methods, with commas between, as indexamajig's --indexing takes them; those that are installed",
    )
    multi: bool = setting(False, "look for more lattices in an indexed frame (--multi)")
    retry: bool = setting(True, "try again without the weakest peaks where a frame is not indexed")
    refine: bool = setting(True, "refine each lattice against its peaks")
    check_peaks: bool = setting(True, "a lattice must explain most of the peaks")
    check_cell: bool = setting(True, "a lattice must have the dataset's cell, within the tolerances")
    cell_tolerance: float = setting(0.05, "largest relative deviation of a cell length", low=0, high=1)
    angle_tolerance: float = setting(1.5, "largest deviation of a cell angle, degree", low=0, high=90)
    integration: str = setting("rings-nocen-nosat-nograd", "integration method of indexamajig")
    extra: str = setting("", "more options of indexamajig for indexing and integration, as on a command line")
    max_bad_frames: float = setting(0.5, "fraction of frames lost in indexing above which the job fails", low=0, high=1)


@dataclass(frozen=True)
class Partialator:
    """Merger partialator of CrystFEL."""

    model: str = setting("xsphere", "partiality model", choices=("unity", "xsphere", "offset", "ggpm", "random"))
    iterations: int = setting(3, "cycles of scaling and post-refinement", low=0, high=100)
    scale: bool = setting(True, "refine scale and B factor of each crystal")
    b_factor: bool = setting(True, "refine the B factor too")
    post_refinement: bool = setting(True, "refine orientation, cell and profile radius of each crystal")
    delta_cc_half: bool = setting(True, "leave out crystals that lower CC1/2")
    min_measurements: int = setting(2, "fewest measurements of a reflection", low=1)
    max_adu: float | None = setting(
        None, "reflections with a higher peak value are left out, detector unit; none: all are kept", low=0
    )
    min_res: float | None = setting(
        None, "crystals that do not diffract to this resolution are left out, angstrom; none: all are kept", low=0
    )
    push_res: float | None = setting(
        None, "each crystal is merged so far beyond its own resolution, 1/angstrom; none: all reflections are"
    )
    max_rel_b: float = setting(100.0, "largest relative B factor, angstrom^2; crystals beyond are left out", low=0)
    extra: str = setting("", "more options of partialator, as on a command line")


@dataclass(frozen=True)
class ProcessHkl:
    """Merger process_hkl of CrystFEL: averages, without a partiality model."""

    scale: bool = setting(True, "scale each crystal to the others")
    min_measurements: int = setting(2, "fewest measurements of a reflection", low=1)
    min_snr: float | None = setting(
        None, "measurements of a lower I/sigma(I) are left out; none: all are kept (else the mean is too high)"
    )
    min_cc: float | None = setting(None, "crystals that agree less with the rest are left out; none: all are kept")
    max_adu: float | None = setting(
        None, "reflections with a higher peak value are left out, detector unit; none: all are kept", low=0
    )
    min_res: float | None = setting(
        None, "crystals that do not diffract to this resolution are left out, angstrom; none: all are kept", low=0
    )
    push_res: float | None = setting(
        None, "each crystal is merged so far beyond its own resolution, 1/angstrom; none: all reflections are"
    )
    extra: str = setting("", "more options of process_hkl, as on a command line")


@dataclass(frozen=True)
class Dials:
    """Engine dials. Its spot finder takes the settings of peaks, its integration d_min and the polarisation of integration."""

    threshold: str = setting(
        "dispersion_extended",
        "how strong pixels are told from background",
        choices=("dispersion", "dispersion_extended"),
    )
    sigma_background: float = setting(
        6.0, "standard deviations of the index of dispersion above which pixels are not background", low=0
    )
    sigma_strong: float = setting(3.0, "standard deviations above the local mean of a strong pixel", low=0)
    gain: float | None = setting(
        None, "detector units a photon; none: as the geometry says, or else estimated from the frames", low=0
    )
    extra_find_spots: str = setting("", "more options of dials.find_spots, as on a command line")
    indexing: str = setting(
        "ssx_index",
        "ssx_index and ssx_integrate with the peaks of the peak file, or stills_process, which finds the spots again",
        choices=("ssx_index", "stills_process"),
    )
    max_lattices: int = setting(1, "most lattices looked for in a frame", low=1)
    integration: str = setting(
        "stills", "integration by ssx_integrate: stills or ellipsoid", choices=("stills", "ellipsoid")
    )
    extra_index: str = setting("", "more options of dials.ssx_index or dials.stills_process, as on a command line")
    extra_integrate: str = setting("", "more options of dials.ssx_integrate or dials.stills_process")
    max_bad_frames: float = setting(0.5, "fraction of failed frames above which the job fails", low=0, high=1)


@dataclass(frozen=True)
class DialsScale:
    """Merger dials_scale: dials.scale, one experiment a crystal."""

    model: str = setting("KB", "scaling model", choices=("KB", "physical"))
    decay_correction: bool = setting(False, "refine a relative B factor of each crystal (model KB)")
    error_model: bool = setting(True, "refine DIALS' error model (basic)")
    partiality: bool = setting(
        True, "divide by a Gaussian partiality of the excitation error first; DIALS takes all for fully recorded"
    )
    min_partiality: float = setting(0.4, "observations with a smaller partiality are left out", low=0, high=1)
    outlier_rejection: str = setting("standard", "how outliers are found", choices=("standard", "simple"))
    outlier_zmax: float = setting(6.0, "observations farther from the others are rejected, sigma", low=0)
    min_i_over_sigma: float = setting(-5.0, "observations with a lower I/sigma(I) are left out")
    min_measurements: int = setting(2, "fewest measurements of a reflection", low=1)
    extra: str = setting("", "more options of dials.scale, as on a command line")


@dataclass(frozen=True)
class CctbxXfelMerge:
    """Merger cctbx_xfel_merge: cctbx.xfel.merge under MPI; with the dataset's reference it scales to that."""

    post_refinement: bool = setting(True, "post-refine each crystal, where there is a reference")
    error_model: str = setting("ev11", "error model", choices=("ha14", "ev11", "errors_from_sample_residuals"))
    min_measurements: int = setting(2, "fewest measurements of a reflection", low=2)
    extra: str = setting("", "more options of cctbx.xfel.merge, as on a command line")


@dataclass(frozen=True)
class FiguresOfMerit:
    """Figures of merit of merged data."""

    n_shells: int = setting(10, "number of resolution shells of equal volume", low=1)
    d_max: float | None = setting(None, "lowest resolution, angstrom; none: as the data", low=0)
    d_min: float | None = setting(None, "highest resolution, angstrom; none: as the data", low=0)


@dataclass(frozen=True)
class Export:
    """Files for other programs."""

    free_fraction: float = setting(
        0.0, "fraction of reflections flagged free (FreeR_flag); 0: no flags", low=0, high=0.5
    )


@dataclass(frozen=True)
class Report:
    """The HTML report."""

    title: str = setting("sfxflow", "heading of the report")


@dataclass(frozen=True)
class Lock:
    """The drift guard: frames that are pinned, and how far their figures may move."""

    frames: int = setting(200, "frames that are pinned of each dataset, evenly spread", low=10)
    hit_share: float = setting(0.75, "which part of them are hits; the others are blanks", low=0.1, high=1)
    hit_rate_tolerance: float = setting(0.02, "largest move of the hit rate of the pinned frames", low=0, high=1)
    index_rate_tolerance: float = setting(0.03, "largest move of the index rate of the pinned hits", low=0, high=1)
    cc_half_tolerance: float = setting(0.02, "largest move of CC1/2 of the pinned frames", low=0, high=2)


#: Stage to its class; the order is that of the work.
STAGES = {
    "peaks": Peaks,
    "cell": Cell,
    "indexing": Indexing,
    "geometry": Geometry,
    "integration": Integration,
    "ambiguity": Ambiguity,
    "merging": Merging,
    "crystfel": Crystfel,
    "partialator": Partialator,
    "process_hkl": ProcessHkl,
    "dials": Dials,
    "dials_scale": DialsScale,
    "cctbx_xfel_merge": CctbxXfelMerge,
    "figures_of_merit": FiguresOfMerit,
    "export": Export,
    "report": Report,
    "lock": Lock,
}


def settings_from(stage, values, where="--settings"):
    """Settings of `stage` with `values` in place of the defaults.

    Parameters
    ----------
    stage : str
    values : dict
    where : str
        File or option that the values come from, for messages.

    Raises
    ------
    InputError
        An unknown key, a value of the wrong type or out of range.
    """
    return STAGES[stage](**checked_values(STAGES[stage], values, f"{where}: {stage}."))


def checked_values(cls, values, prefix):
    """`values` as the types that the fields of `cls` ask for; `prefix` stands before each key in messages.

    Parameters
    ----------
    cls : dataclass
        Its fields are made by `setting`.
    values : dict
    prefix : str

    Raises
    ------
    InputError
        An unknown key, a value of the wrong type or out of range.
    """
    known = {f.name: f for f in fields(cls)}
    hints = typing.get_type_hints(cls)
    converted = {}
    for key, value in values.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has: {', '.join(known)}"
            raise InputError(f"{prefix}{key}: no such setting{hint}")
        converted[key] = _checked(value, hints[key], known[key].metadata, f"{prefix}{key}")
    return converted


def settings_from_json(stage, text):
    """Settings of `stage` from the JSON text that a rule passes; an empty text gives the defaults."""
    try:
        values = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise InputError(f"--settings: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError("--settings: a JSON object with the stage's settings is expected")
    return settings_from(stage, values)


def defaults(stage):
    """Default settings of `stage` as a dict."""
    return asdict(STAGES[stage]())


def _allowed_types(hint):
    if isinstance(hint, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _checked(value, hint, metadata, where):
    allowed = _allowed_types(hint)
    meaning = metadata["meaning"]
    if value is None and type(None) in allowed:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed and int not in allowed:
        value = float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
        expected = " or ".join(names[t] for t in allowed)
        raise InputError(f"{where}: {value!r} is not {expected} ({meaning})")
    if metadata["choices"] and value not in metadata["choices"]:
        raise InputError(f"{where}: {value!r} is not one of {', '.join(metadata['choices'])} ({meaning})")
    low, high = metadata["low"], metadata["high"]
    if low is not None and not value >= low:
        raise InputError(f"{where}: {value} is below {low} ({meaning})")
    if high is not None and not value <= high:
        raise InputError(f"{where}: {value} is above {high} ({meaning})")
    return value


def schema_of(stage):
    """JSON schema (draft 2020-12) of the stage's config section: every property with description and default."""
    names = {float: "number", int: "integer", bool: "boolean", str: "string", type(None): "null"}
    cls = STAGES[stage]
    hints = typing.get_type_hints(cls)
    properties = {}
    for f in fields(cls):
        assert f.default is not MISSING
        kinds = [names[t] for t in _allowed_types(hints[f.name])]
        entry = {
            "type": kinds[0] if len(kinds) == 1 else kinds,
            "description": f.metadata["meaning"],
            "default": f.default,
        }
        if f.metadata["choices"]:
            entry["enum"] = list(f.metadata["choices"])
        if f.metadata["low"] is not None:
            entry["minimum"] = f.metadata["low"]
        if f.metadata["high"] is not None:
            entry["maximum"] = f.metadata["high"]
        properties[f.name] = entry
    return {
        "type": "object",
        "description": cls.__doc__.strip().splitlines()[0],
        "default": {},
        "additionalProperties": False,
        "properties": properties,
    }
