"""What each figure of merit is, from which data it comes and in which unit: written into every table of figures."""

_DATA = "merged reflections"
_HALVES = "half sets"
_REFERENCE = "merged reflections (1) and reference (2)"
_SCALED = "; I2 is first scaled by exp(c0 + c1 s^2), least squares of ln(I1/I2) over pairs of positive intensities"

#: Name to (definition, input, unit); the order is that of the table's columns.
DEFINITIONS = {
    "n_reflections": ("unique reflections with finite I and sigma(I)", _DATA, ""),
    "n_possible": ("unique reflections that the centring allows", "cell and point group", ""),
    "completeness": ("n_reflections / n_possible", _DATA, "fraction"),
    "n_measurements": ("sum of the measurements merged", _DATA, ""),
    "multiplicity": ("n_measurements / n_reflections", _DATA, ""),
    "i_over_sigma": ("mean of I / sigma(I)", _DATA, ""),
    "mean_i": ("mean of I", _DATA, "unit of I"),
    "n_pairs": ("reflections that both half sets hold", _HALVES, ""),
    "r_split": ("sqrt(2) sum |I1 - I2| / sum (I1 + I2)" + _SCALED, _HALVES, "fraction"),
    "cc_half": ("Pearson's correlation of I1 and I2" + _SCALED, _HALVES, ""),
    "cc_star": ("sqrt(2 CC1/2 / (1 + CC1/2))", _HALVES, ""),
    "n_bijvoet_pairs": ("acentric reflections of which both mates are measured", "Bijvoet mates", ""),
    "r_ano": (
        "2 sum |I+ - I-| / sum (I+ + I-)",
        "Bijvoet mates",
        "fraction",
    ),
    "r_ano_over_r_split": ("Rano / Rsplit of the same reflections", "half sets with Bijvoet mates apart", ""),
    "cc_ano": ("Pearson's correlation of I1+ - I1- and I2+ - I2-", "half sets with Bijvoet mates apart", ""),
    "crd_ano": ("sqrt(sum (d1 + d2)^2 / sum (d1 - d2)^2), d = I+ - I-", "half sets with Bijvoet mates apart", ""),
    "n_reference": ("reflections that data and reference hold", _REFERENCE, ""),
    "reference_cc": ("Pearson's correlation of I1 and I2" + _SCALED, _REFERENCE, ""),
    "reference_r1_i": ("sum |I1 - I2| / sum I1" + _SCALED, _REFERENCE, "fraction"),
    "reference_r1_f": ("sum |F1 - F2| / sum F1, F = sqrt(I), negative I taken as 0" + _SCALED, _REFERENCE, "fraction"),
    "reference_r2": ("sqrt(sum (I1 - I2)^2 / sum I1^2)" + _SCALED, _REFERENCE, "fraction"),
}

#: The same for figures of the whole only.
OVERALL_DEFINITIONS = {
    "wilson_b": (
        "minus half the slope of ln <I / (epsilon sum f)> against (sin(theta)/lambda)^2, d < 3.2 angstrom, as check_hkl --wilson",
        _DATA,
        "angstrom^2",
    ),
    "wilson_b_squared": ("the same with sum f^2, as Wilson's statistics have it", _DATA, "angstrom^2"),
    "l_test_mean_abs": ("mean |L|, L = (I1 - I2) / (I1 + I2) of neighbours; untwinned 0.5, twinned 0.375", _DATA, ""),
    "l_test_mean_square": ("mean L^2; untwinned 0.333, twinned 0.2", _DATA, ""),
    "l_test_n_pairs": ("neighbours compared; negative intensities are left out", _DATA, ""),
}
