"""The last pass over the observations: what the uncertainties of merged intensities are made of.

The parameters of a crystal (theta, with covariance C) are uncertain, and so is everything that this crystal adds to the merged
intensities. Merged intensities and parameters are one least-squares problem; its normal matrix, with the observations' variances
v and the sums a = sum g^2 / v, has the inverse

    1/a + (1/a) B (D - B^T (1/a) B)^-1 B^T (1/a)

for the intensities. The blocks of the matrix in the middle are those of the crystals' fits, which compare each observation with what
the others say of its reflection; what couples two crystals is left out. Hence

    var(I) = (s^2 + sum_j (w g I)^2 d^T C d / a) / a,        d = d ln g / d theta,  w = 1/v,

and the residual y - g m of an observation, m being what the others say, has the variance u (1 - t - t'), where u is the variance of
the comparison and t = (g I)^2 d^T C d / u its leverage: the fit has moved towards the observation. So have the fits of the other
crystals that saw the reflection, by the part f = g^2 / v a that the observation has in the intensity; with it m has moved as well,
and t' = f / (1 - f) times the sum over the others, sum (w g I)^2 d^T C d / a.
"""

import numpy as np
from numba import njit

from sfxflow.merging.errors import NORMAL
from sfxflow.merging.kernels import N_PARAMETERS, NUMBER_MASK, factors
from sfxflow.merging.observations import FULL_WEIGHT, MINUS
from sfxflow.merging.packing import (
    BACKGROUND,
    MEAN,
    N_PACKED,
    OBSERVED,
    PHOTON,
    UNCERTAINTY,
    VARIANCE,
    gradient,
    normal_equations,
    pack,
)
from sfxflow.small_matrices import solve_in_place

#: A residual whose variance the fit has taken away to this part tells nothing any more.
_LEAST_FREEDOM = 0.05


@njit(cache=True, nogil=True, error_model="numpy")
def _add_moments(own, sign, moments):
    """Add a reflection, of which `own` are the sums, to the moments of `cc_half`; with sign -1, take it out."""
    if own[3] > 1.5 and own[1] > 0.0:
        mean = own[0] / own[1]
        moments[0] += sign
        moments[1] += sign * mean
        moments[2] += sign * mean * mean
        moments[3] += sign * max(own[2] - own[0] * mean, 0.0) / ((own[3] - 1.0) * own[1])


@njit(cache=True, nogil=True, error_model="numpy")
def cc_half_moments(merged):
    """Of reflections measured more than once: their number, sums of I and I^2, and sum of the variances of I.

    Parameters
    ----------
    merged : float64, shape (n_reflections, 4)
        As `kernels.merge_block` fills them.

    Returns
    -------
    ndarray of float64, shape (4,)
    """
    moments = np.zeros(4)
    for h in range(len(merged)):
        _add_moments(merged[h], 1.0, moments)
    return moments


@njit(cache=True, nogil=True, error_model="numpy")
def cc_half(moments):
    """CC1/2 by the sigma-tau method, without half sets: (s^2 - e^2) / (s^2 + e^2), NaN if there are fewer than 2 reflections.

    s^2 is the variance of the merged intensities over the reflections, e^2 the mean of their own variances (Assmann, Brehm &
    Diederichs 2016, J. Appl. Cryst. 49, 1021-1028, doi:10.1107/S1600576716005471, equation 1, with the variance of a half set's
    intensity twice that of the whole).
    """
    if moments[0] < 1.5:
        return np.nan
    spread = moments[2] / moments[0] - (moments[1] / moments[0]) ** 2
    error = moments[3] / moments[0]
    return (spread - error) / (spread + error) if spread + error > 0.0 else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _cc_half_without(reflections, parts, n, left, moments):
    """CC1/2 without the observations of one crystal; `left` is the same afterwards as before."""
    changed = moments.copy()
    for i in range(n):
        own = left[reflections[i]]
        _add_moments(own, -1.0, changed)
        for k in range(4):
            own[k] -= parts[i, k]
        _add_moments(own, 1.0, changed)
    for i in range(n):
        own = left[reflections[i]]
        for k in range(4):
            own[k] += parts[i, k]
    return cc_half(changed)


@njit(cache=True, nogil=True, error_model="numpy")
def assess_block(
    offsets, reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
    state, shape, active, slot, q, current, intensities, total, prior, curve, slope, spread, numbers,
    precision, fitted, levels, known, added, merged, common, squares, gained,
):  # fmt: skip
    """Add what the crystals' parameters do to the variances, and the squares of the residuals. See `fitting.fit_block`.

    Parameters
    ----------
    slot : uint16, shape (n_crystals,)
        As for `kernels.merge_block`.
    intensities : float64, shape (n_reflections,)
        The merged ones.
    levels : float64, shape (n_bins - 1,)
        Upper limits of the intensities of the rows of `squares` but the last.
    known : float64, shape (n_reflections,)
        Sums of g^2 / var of all data, not 0.
    added : float64, shape (n_reflections,)
        `common` of all data, divided by `known`, from a pass before, or zeros where `squares` are of no interest.
    merged : float64, shape (n_reflections, 4)
        The sums of `kernels.merge_block`, of all data together; none, shape (0, 4), where `gained` is of no interest.
    common : float64, shape (n_reflections, n_slots)
        Out, added: sum of (w g I)^2 d^T C d of each part of the data and, in the second half of the slots, of the Friedel mates.
    squares : float64, shape (n_bins, 4)
        Out, added: sums for `errors.scatter` of 1, s, s^2 r^2 and s (2 s - 1), where r^2 is residual^2 / (u (1 - t)) and s the
        observation's robust weight, each counting as far as it tells of its own variance.
    gained : float64, shape (n_crystals,)
        Out: CC1/2 of all data less that without the crystal; NaN for crystals that are not merged.
    """
    mates = common.shape[1] // 2
    longest = 0
    for c in range(len(offsets) - 1):
        longest = max(longest, offsets[c + 1] - offsets[c])
    packed = np.empty((N_PACKED, longest))
    # arrays of their own and no literal flag below: what is called is then compiled for one kind of arguments
    matrix, covariance = np.empty((N_PARAMETERS, N_PARAMETERS)), np.empty((N_PARAMETERS, N_PARAMETERS))
    vector, derivative = np.empty(N_PARAMETERS), np.empty(N_PARAMETERS)
    left = merged.copy()
    parts = np.empty((longest, 4))
    numbers_of = np.empty(longest, np.int64)
    moments = cc_half_moments(merged)
    with_all = cc_half(moments)
    gained[:] = np.nan
    for c in range(len(offsets) - 1):
        if active[c] != 1:
            continue
        n_merged = 0
        own_state, own_shape = state[c], shape[c]
        # where groups are merged apart but compared with the whole, there are more slots than parts
        part_of = min(slot[c] // 2, len(total) - 1)
        n = offsets[c + 1] - offsets[c]
        pack(
            offsets[c], offsets[c + 1], reflection, excitation, intensity, sigma, polarisation, azimuth, weight,
            own_state, own_shape, active[c] == 1, q, current, total[part_of], prior, curve, spread, numbers, packed,
        )  # fmt: skip
        normal_equations(packed, n, own_state, own_shape, curve, slope, numbers, precision, fitted, matrix, vector)
        covariance[:] = 0.0
        for a in range(N_PARAMETERS):
            covariance[a, a] = 1.0
        solve_in_place(matrix, covariance)
        for a in range(N_PARAMETERS):
            if not fitted[a]:
                covariance[a, a] = 0.0
        narrowing, scale = factors(own_state, numbers)
        for i in range(n):
            j = offsets[c] + i
            base, height = gradient(
                packed, i, own_state, own_shape, curve, slope, numbers, narrowing, scale, derivative
            )
            h = reflection[j] & NUMBER_MASK
            row = min(int(q[h] * q[h] * numbers[1]), curve.shape[0] - 1)
            g = base * height
            mean, uncertainty = packed[MEAN, i], packed[UNCERTAINTY, i]
            uncertain = packed[VARIANCE, i] - packed[BACKGROUND, i] - packed[PHOTON, i] * g * mean - g * g * uncertainty
            uncertain /= mean * mean + uncertainty
            if height <= numbers[3] * curve[row, 0] or weight[j] == 0 or uncertain >= numbers[5] * g * g:
                continue
            spreading = 0.0
            for a in range(N_PARAMETERS):
                across = 0.5 * covariance[a, a] * derivative[a]
                for b in range(a):
                    across += covariance[a, b] * derivative[b]
                spreading += 2.0 * derivative[a] * across
            spreading *= intensities[h] * intensities[h]
            # the variance with which it was merged
            level = max(current[h], 0.0)
            variance = packed[BACKGROUND, i] + packed[PHOTON, i] * g * level + uncertain * level * level
            share = weight[j] / FULL_WEIGHT
            w = share / variance
            mate = int(reflection[j] >= MINUS)
            numbers_of[n_merged] = h
            parts[n_merged, 0], parts[n_merged, 1] = w * g * packed[OBSERVED, i], w * g * g
            parts[n_merged, 2], parts[n_merged, 3] = w * packed[OBSERVED, i] ** 2, 1.0
            n_merged += 1
            adds = w * w * g * g * spreading
            common[h, slot[c] + mates * mate] += adds
            # the others without Wilson's distribution, which would take a part of the residual away
            others = total[part_of, h, mate, 1] - w * g * g
            if others <= _LEAST_FREEDOM * w * g * g:
                continue
            residual = packed[OBSERVED, i] - g * (total[part_of, h, mate, 0] - w * g * packed[OBSERVED, i]) / others
            # the others' sums hold robust weights: normal errors have a smaller variance than their inverse
            comparison = variance + NORMAL * g * g / others
            through = w * g * g / others * max(added[h] - adds / known[h], 0.0)
            square = residual * residual / (comparison * max(1.0 - spreading / comparison - through, _LEAST_FREEDOM))
            # as far as the residual tells of the observation's own variance, and by what the observation adds to the intensity (but for
            # its robust weight: by that outliers would count less than they do there)
            telling = others * variance / (g * g + others * variance) * g * g / (variance * known[h])
            own = squares[np.searchsorted(levels, intensities[h])]
            own[0] += telling
            own[1] += telling * share
            own[2] += telling * share * share * square
            own[3] += telling * share * (2.0 * share - 1.0)
        if len(merged):
            gained[c] = with_all - _cc_half_without(numbers_of, parts, n_merged, left, moments)
