"""Scaling, partiality and merging of still-shot intensities.

    y_j = G_c exp(-B_c q^2 / 2) P(x_j, q) I_h + noise,        x_j = |excitation error| / (w_c sigma(q))

y is the integrated intensity divided by its polarisation factor, q = 1/d; B_c q^2 / 2 is the field's 2 B s^2 with s = sin(theta)/lambda.
`observations` makes compact columns of the engines' tables; `kernels`, `fitting` and `assessment` pass over them: to merge, to fit the
crystals, and for the uncertainties; `partiality` holds the curve P, `scaling` the parameters of the crystals, `errors` the uncertainties,
`cycles` the state of a run and its passes, `tables` what comes out, `halves` half sets that are scaled apart. `merge` is where it starts.
"""
