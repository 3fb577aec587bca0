"""Programs of learning from few labeled slices (Alshenoudy et al., 2023)."""
