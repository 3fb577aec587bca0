"""Programs of learning from few labelled slices (Alshenoudy et al., 2023)."""
