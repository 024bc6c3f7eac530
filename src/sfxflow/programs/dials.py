"""DIALS' programs: which options they get, and what is expected of them.

The only place where a setting of sfxflow becomes an option of DIALS. Nothing that matters is left to a default, which another version
may change; `extra_...` come last, so that they may overrule what was given before.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from sfxflow.errors import InputError
from sfxflow.programs.running import ProgramError, hdf5_filters, require_program

#: Lowest version of DIALS: the first with dials.ssx_index and dials.ssx_integrate.
MINIMUM = "3.10"
#: Module that the stills indexer imports and Debian's package lacks; an empty one will do, nothing of it is used.
MISSING_MODULE = "xfel_mono_sim_ext"


def require_dials(*programs):
    """'DIALS 3.12', after a check that the programs are there.

    Raises
    ------
    ProgramError
        DIALS or one of the programs is missing, or too old.
    """
    version = require_program("dials.version", MINIMUM, version_arguments=()).version
    for name in programs:
        if shutil.which(name) is None:
            raise ProgramError(f"{name}: no such program on PATH, though DIALS {version} is there; install all of it")
    return f"DIALS {version}"


def environment(directory):
    """Variables for DIALS' programs: one thread each, and what their installation lacks.

    Parameters
    ----------
    directory : path
        Working directory of the job; gets the empty module where it is missing.

    Returns
    -------
    dict
    """
    variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **hdf5_filters()}
    if lacks_module():
        folder = Path(directory, "modules")
        folder.mkdir(exist_ok=True)
        (folder / f"{MISSING_MODULE}.py").write_text("")
        variables["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return variables


def lacks_module():
    """Whether the Python that DIALS runs in has no `MISSING_MODULE`; False where it can't be asked."""
    script, other = shutil.which("dials.version"), shutil.which("dials.python")
    try:
        interpreter = (script and interpreter_of(script)) or (other and [other])
        if not interpreter:
            return False
        command = [*interpreter, "-c", f"import {MISSING_MODULE}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "No module named" in done.stderr


def interpreter_of(script):
    """The Python that a program is a script for, as a list of arguments; None where it is no script of Python."""
    with open(script, "rb") as handle:
        first = handle.readline(500)
    if not first.startswith(b"#!") or b"python" not in first:
        return None
    return shlex.split(first[2:].decode(errors="replace"))


def extra(settings, name, section="dials"):
    """The additional options of a program as a list.

    Raises
    ------
    InputError
        Something that is not of the form name=value.
    """
    try:
        found = shlex.split(getattr(settings, name))
    except ValueError as error:
        raise InputError(f"{section}.{name}: {error}") from None
    for option in found:
        if "=" not in option.strip("="):
            raise InputError(f"{section}.{name}: {option!r} is not of the form name=value, as DIALS takes options")
    return found


def find_spots_options(peaks, dials, gain):
    """Options of dials.find_spots, which dials.stills_process has too.

    Parameters
    ----------
    peaks : sfxflow.settings.Peaks
        Of these DIALS gets the numbers of pixels and the threshold; resolution limits, the numbers of peaks and saturation are
        applied to what it finds.
    dials : sfxflow.settings.Dials
    gain : float
        Detector units a photon.
    """
    return [
        f"spotfinder.threshold.algorithm={dials.threshold}",
        f"spotfinder.threshold.dispersion.gain={gain:g}",
        "spotfinder.threshold.dispersion.kernel_size=3,3",
        f"spotfinder.threshold.dispersion.sigma_background={dials.sigma_background:g}",
        f"spotfinder.threshold.dispersion.sigma_strong={dials.sigma_strong:g}",
        "spotfinder.threshold.dispersion.min_local=2",
        f"spotfinder.threshold.dispersion.global_threshold={peaks.threshold or 0:g}",
        f"spotfinder.filter.min_spot_size={peaks.min_pix_count}",
        f"spotfinder.filter.max_spot_size={peaks.max_pix_count}",
        "spotfinder.filter.max_separation=2",
        # A frame of nothing but strong pixels must not end the job.
        "spotfinder.filter.max_strong_pixel_fraction=1",
        "spotfinder.filter.d_min=None",
        "spotfinder.filter.d_max=None",
        "spotfinder.filter.ice_rings.filter=False",
        "spotfinder.mp.nproc=1",
        "spotfinder.mp.njobs=1",
    ]


def find_spots_arguments(peaks, dials, gain, frames, found):
    """Command line of dials.find_spots."""
    return [
        "dials.find_spots", frames, f"output.reflections={found}", "output.shoeboxes=True", *find_spots_options(peaks, dials, gain),
        *extra(dials, "extra_find_spots"),
    ]  # fmt: skip


def _indexing_options(cell, group, dials):
    return [
        f"indexing.known_symmetry.space_group={group}",
        "indexing.known_symmetry.unit_cell=" + ",".join(f"{value:.6g}" for value in cell),
        "indexing.known_symmetry.relative_length_tolerance=0.1",
        "indexing.known_symmetry.absolute_angle_tolerance=5",
        "indexing.stills.refine_all_candidates=True",
        "indexing.stills.candidate_outlier_rejection=True",
        "indexing.stills.rmsd_min_px=2",
        "indexing.stills.ewald_proximal_volume_max=0.0025",
        f"indexing.multiple_lattice_search.max_lattices={dials.max_lattices}",
        # Beam and detector are the geometry's, the same for every engine.
        "refinement.parameterisation.beam.fix=all",
        "refinement.parameterisation.detector.fix=all",
        "refinement.parameterisation.auto_reduction.min_nref_per_parameter=1",
        "refinement.parameterisation.auto_reduction.action=fix",
        "refinement.reflections.weighting_strategy.override=stills",
        "refinement.reflections.outlier.algorithm=null",
    ]


def _integration_options(gain, d_min):
    return [
        "prediction.d_min=" + (f"{d_min:g}" if d_min else "None"),
        f"integration.summation.detector_gain={gain:g}",
        "integration.background.algorithm=simple",
        "integration.background.simple.outlier.algorithm=plane",
        "integration.background.simple.model.algorithm=linear2d",
        "profile.gaussian_rs.min_spots.overall=0",
        "profile.gaussian_rs.centroid_definition=com",
    ]


def ssx_index_arguments(cell, group, dials, frames, strong):
    """Command line of dials.ssx_index.

    Parameters
    ----------
    cell : sequence of 6 floats
    group : str
        Space group, as P43212.
    dials : sfxflow.settings.Dials
    frames, strong : str
        Files of the experiments and the spots.
    """
    return [
        "dials.ssx_index", frames, strong, "nproc=1", "min_spots=1", "method=fft1d+real_space_grid_search", "output.html=None",
        "indexing.stills.indexer=stills", *_indexing_options(cell, group, dials), *extra(dials, "extra_index"),
    ]  # fmt: skip


def ssx_integrate_arguments(dials, gain, d_min, frames, indexed):
    """Command line of dials.ssx_integrate; `d_min` in angstrom or None."""
    return [
        "dials.ssx_integrate", frames, indexed, "nproc=1", f"algorithm={dials.integration}", "output.html=None",
        "output.batch_size=1000000", *_integration_options(gain, d_min), *extra(dials, "extra_integrate"),
    ]  # fmt: skip


def stills_process_arguments(peaks, cell, group, dials, gain, d_min, frames):
    """Command line of dials.stills_process, which finds the spots again."""
    return [
        "dials.stills_process", frames, "mp.nproc=1", "output.composite_output=True", "dispatch.hit_finder.enable=False",
        "indexing.stills.method_list=fft1d real_space_grid_search",
        "indexing.stills.refine_candidates_with_known_symmetry=True",
        "integration.integrator=stills", "integration.profile.fitting=False",
        *find_spots_options(peaks, dials, gain), *_indexing_options(cell, group, dials), *_integration_options(gain, d_min),
        *extra(dials, "extra_find_spots"), *extra(dials, "extra_index"), *extra(dials, "extra_integrate"),
    ]  # fmt: skip


def scale_arguments(settings, d_min, experiments, reflections, scaled, anomalous=False):
    """Command line of dials.scale.

    Parameters
    ----------
    settings : sfxflow.settings.DialsScale
    d_min : float or None
        Angstrom.
    experiments, reflections : str
        Files to scale.
    scaled : str
        Name of the files that are written, without their ends.
    anomalous : bool
        Friedel mates are not equivalent.
    """
    return [
        "dials.scale", experiments, reflections, f"output.experiments={scaled}.expt", f"output.reflections={scaled}.refl",
        "output.html=None", "nproc=1", f"model={settings.model}", f"KB.decay_correction={settings.decay_correction}",
        "reflection_selection.intensity_choice=sum", "reflection_selection.method=use_all", f"anomalous={anomalous}",
        f"error_model={'basic' if settings.error_model else 'None'}",
        f"outlier_rejection={settings.outlier_rejection}", f"outlier_zmax={settings.outlier_zmax:g}",
        f"cut_data.min_isigi={settings.min_i_over_sigma:g}", "cut_data.d_min=" + (f"{d_min:g}" if d_min else "None"),
        f"cut_data.partiality_cutoff={settings.min_partiality:g}",
        f"reflection_selection.min_partiality={settings.min_partiality:g}",
        # As many parameters as crystals: their matrix would be too large.
        "scaling_options.full_matrix=False", "scaling_options.check_consistent_indexing=False",
        *extra(settings, "extra", "dials_scale"),
    ]  # fmt: skip


def xfel_merge_arguments(settings, cell, group, d_min, reference, prefix):
    """Command line of cctbx.xfel.merge.

    Parameters
    ----------
    settings : sfxflow.settings.CctbxXfelMerge
    cell : sequence of 6 floats
    group : str
    d_min : float or None
        Angstrom; the program needs one.
    reference : str or None
        MTZ file with the column IMEAN.
    prefix : str
        Of the files that it writes.

    Raises
    ------
    InputError
        There is no `d_min`.
    """
    if not d_min:
        raise InputError("cctbx.xfel.merge needs the highest resolution: set datasets.NAME.d_min (--d-min)")
    scaling = ["scaling.algorithm=mark1", "postrefinement.enable=False"]
    if reference:
        scaling = [
            "scaling.algorithm=mark0", f"scaling.model={reference}", "scaling.mtz.mtz_column_F=imean",
            f"postrefinement.enable={settings.post_refinement}", "postrefinement.algorithm=rs",
        ]  # fmt: skip
    return [
        "cctbx.xfel.merge", "input.path=.", "input.experiments_suffix=.expt", "input.reflections_suffix=.refl",
        "input.keep_imagesets=False", "scaling.unit_cell=" + ",".join(f"{value:.6g}" for value in cell),
        f"scaling.space_group={group}", *scaling, f"merging.d_min={d_min:g}", "merging.merge_anomalous=True",
        "merging.set_average_unit_cell=True", f"merging.error.model={settings.error_model}",
        f"merging.minimum_multiplicity={settings.min_measurements}", "statistics.cc1_2.hash_filenames=False",
        f"output.prefix={prefix}", "output.output_dir=.", *extra(settings, "extra", "cctbx_xfel_merge"),
    ]  # fmt: skip
