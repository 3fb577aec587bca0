"""MRML nodes as arrays in the patient, and results as nodes. No Qt, no worker."""
