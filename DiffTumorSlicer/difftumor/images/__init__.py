"""The door to image files: NIfTI, NRRD, MHA and DICOM in, NIfTI, NRRD, MHA and pictures out."""
