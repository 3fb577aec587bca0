"""Programs of guided anomaly detection (Babaei et al., 2024; Wolleb et al., MICCAI 2022)."""
