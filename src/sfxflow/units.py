"""The package's units, stated once. Other units exist only inside `sfxflow.io`, which converts.

==================  =======================================================================================
quantity            unit and convention
==================  =======================================================================================
length in a crystal angstrom; reciprocal lengths 1/angstrom, without a factor of 2 pi
photon energy       eV
laboratory          metre; +z along the beam, +y up, right-handed (x is to the left when looking along the beam)
detector            pixel along fs (fast scan) and ss (slow scan), corner-based: pixel i covers [i, i+1), its centre is i + 0.5
angle               radian; degree only in unit cells, where the field writes degrees everywhere
resolution          d in angstrom; s = 1/d in 1/angstrom
==================  =======================================================================================
"""

#: Planck's constant times the speed of light, eV angstrom (exact in the SI of 2019, here to ten digits).
HC_EV_ANGSTROM = 12398.41984


def wavelength(photon_energy):
    """Wavelength in angstrom of photons of `photon_energy` eV."""
    return HC_EV_ANGSTROM / photon_energy
