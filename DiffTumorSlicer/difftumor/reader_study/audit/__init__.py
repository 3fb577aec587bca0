"""Whether anything but the lesion gives the truth of a study away; run by the coordinator before release.

Needs the key, scikit-learn and statsmodels (pip extra "study"); never imported inside Slicer.
"""
