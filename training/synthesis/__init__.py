"""Programs of DiffTumor, stages 1 and 2 (Chen et al., CVPR 2024)."""
