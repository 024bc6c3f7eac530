"""Tables of what was merged, for people and files."""

from dataclasses import dataclass, field

import numpy as np

from sfxflow.merging import errors, scaling
from sfxflow.merging.observations import ccp4_asymmetric_unit
from sfxflow.symmetry import reflection_key


@dataclass
class Merged:
    """Result of merging.

    Attributes
    ----------
    reflections : dict of ndarray
        h, k, l (CCP4 asymmetric unit), I, sigI, n (merged measurements; 0: of all hardly anything was recorded), n_measured
        (all), I_half1, sigI_half1, n_half1, I_half2, ..., and with anomalous I_plus, ..., I_plus_half1, ...
    crystals : dict of ndarray
        scale, B, width (factor on sigma(q)), rotation (radian, about x and y), energy (relative change), half, delta_cc_half
        (CC1/2 of all data less that without the crystal), n_observations, n_rejected, status.
    partiality : dict of ndarray
        The curve (`partiality.PartialityCurve.arrays`) and `reference_width` R (1/angstrom): an observation's partiality is
        R / (width sigma(q)) times the curve, but with the model 'unity'.
    model : str
        The model used: empirical, gaussian or unity.
    summary : dict
        Numbers and remarks for the log and the file's attributes.
    groups : dict of dict
        Name of each group to its own `reflections`.
    """

    reflections: dict
    crystals: dict
    partiality: dict
    model: str
    summary: dict = field(default_factory=dict)
    groups: dict = field(default_factory=dict)


def merged_tables(run, remark="", parts=None):
    """What was merged, for people and files."""
    unit = ccp4_asymmetric_unit(run.hkl, run.collector.numbers.group)
    # where nothing was merged, the sums have no slots of groups
    groups = {name: min(g, len(run.measured) - 1) for g, name in enumerate(parts.names if parts else ())}
    crystals = _crystals(run)
    return Merged(
        reflections=_reflections(run, run.sums, run.measured.sum(axis=0), *unit, run.inferred),
        groups={
            name: _reflections(run, run.apart[:, :, g].reshape(run.sums.shape), run.measured[g], *unit)
            for name, g in groups.items()
        },
        crystals=crystals,
        partiality=run.curve.arrays() | {"reference_width": run.reference_width},
        model=run.model,
        summary=_summary(run, remark, crystals),
    )


def _reflections(run, sums, measured, hkl, mate, inferred=None):
    """Columns of merged reflections from the sums (n, 4, 5) of half sets and mates; uncertainties as they are for all data.

    `inferred`: intensities and uncertainties (n, 2) where nothing was merged, NaN for none.
    """
    total = sums.sum(axis=1)
    if inferred is None:
        inferred = np.full((len(total), 2), np.nan)
    keep = (np.rint(total[:, 3]) >= 1) | np.isfinite(inferred[:, 0])
    keep &= measured >= run.settings.min_measurements
    halves = sums[:, :2] + sums[:, 2:]
    parts = {"": total, "_half1": halves[:, 0], "_half2": halves[:, 1]}
    if run.settings.anomalous:
        parts |= _friedel_mates(sums, mate)
    factor = run.scatter[np.searchsorted(run.levels, run.posterior())]
    # what was recorded once lost no weight to the robust fit
    factor = np.where(np.rint(run.total[:, 3]) == 1, factor / errors.NORMAL, factor)
    order = np.argsort(reflection_key(hkl), kind="stable")
    order = order[keep[order]]
    columns = {name: hkl[order, i] for i, name in enumerate("hkl")}
    columns["n_measured"] = measured[order].astype(np.int32)
    for name, part in parts.items():
        count = np.rint(part[:, 3]).astype(np.int32)
        there = (count > 0) & (part[:, 1] > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            intensity = np.where(there, part[:, 0] / part[:, 1], np.nan)
            sigma = np.where(there, np.maximum(errors.merged_sigma(part, factor), run.least_sigma), np.nan)
        if not name:
            intensity, sigma = (
                np.where(there, own, other) for own, other in zip((intensity, sigma), inferred.T, strict=True)
            )
        columns[f"I{name}"], columns[f"sigI{name}"], columns[f"n{name}"] = intensity[order], sigma[order], count[order]
    return columns


def _friedel_mates(sums, mate):
    """Sums of I(+) and I(-), all and by half set; `mate`: the one in the CCP4 asymmetric unit is the other one here."""
    parts = {}
    for sign, own in (("plus", 0), ("minus", 2)):
        halves = np.where(mate[:, None, None], sums[:, 2 - own : 4 - own], sums[:, own : own + 2])
        parts |= {f"_{sign}": halves.sum(axis=1), f"_{sign}_half1": halves[:, 0], f"_{sign}_half2": halves[:, 1]}
    return parts


def _crystals(run):
    rejected = np.zeros(len(run.state), np.int64)
    for i in range(len(run.blocks)):
        block = run.blocks[i]
        lost = np.concatenate([[0], np.cumsum(np.asarray(block.columns["weight"]) == 0)])
        own = slice(block.first_crystal, block.first_crystal + len(block.offsets) - 1)
        rejected[own] = np.diff(lost[block.offsets])
    return {
        "scale": np.exp(run.state[:, 0]),
        "B": run.state[:, 1],
        "width": np.exp(run.state[:, 2]),
        "rotation": run.state[:, 3:5],
        "energy": run.state[:, 5],
        "half": run.half + 1,
        "delta_cc_half": run.gained,
        "n_observations": np.where(run.active == 1, run.counts - rejected, 0),
        "n_rejected": rejected,
        "status": [text or "merged" for text in run.status],
    }


def _half_sets(run):
    """What is wrong with the half sets, for people."""
    there = np.unique(run.half[run.active == 1])
    if len(there) != 1 or run.only is not None:
        return ""
    return (
        f"all crystals that were merged are in half set {there[0] + 1} (too few, or of one orientation, such as the same crystals "
        "given twice): there are no figures from half sets"
    )


def _summary(run, remark, crystals):
    collector = run.collector
    recorded = np.rint(run.total[:, 3])
    asked_for = run.measured.sum(axis=0) >= run.settings.min_measurements
    return {
        "remark": remark,
        "fallback": run.fallback,
        "half_sets": _half_sets(run),
        "n_rejected": int(crystals["n_rejected"].sum()),
        "n_recorded_once": int(np.sum(asked_for & (recorded == 1))),
        "n_never_recorded": int(np.sum(asked_for & (recorded == 0))),
        "unrecorded_kept": bool(np.isfinite(run.inferred).any()),
        "n_crystals_lowering_cc": int(np.sum(run.status == scaling.LOWERS_CC)),
        "independent_halves": False,
        "n_crystals": len(run.state),
        "n_crystals_merged": int(np.sum(run.active == 1)),
        "n_observations": collector.n_observations,
        "n_absent": collector.n_absent,
        "absent_mean_i_over_sigma": collector.absent_mean,
        "mean_i_over_sigma": collector.present_mean,
        "absences_are_there": collector.absences_are_there,
        "n_unusable": collector.n_unusable,
        "gain": float(np.median(collector.gain)) if len(run.state) else 0.0,
        "prior_widths": dict(zip(scaling.PARAMETERS, run.priors.tolist(), strict=True)),
    }
