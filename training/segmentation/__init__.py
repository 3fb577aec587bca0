"""Programs of DiffTumor, stage 3: segmenters (Chen et al., CVPR 2024)."""
