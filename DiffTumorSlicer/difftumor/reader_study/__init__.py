"""Reader studies: blinded, timed reading of real and synthetic tumors, and what comes of it.

`sources`, `choosing`, `neutral` and `packages` make a study, `session` reads one package, `merging` collects the
answers. No Slicer and no torch; what Slicer needs (`study`, `journal`, `locking`, `reading`, `session`) is standard
library only.
"""
