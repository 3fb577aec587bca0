"""What the answers of a reader study say: pure functions of counts, scores and answer rows.

SciPy, scikit-learn and statsmodels (pip extra "study") are imported here and never inside Slicer.
"""
