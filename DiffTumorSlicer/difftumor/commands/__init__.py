"""The subcommands of `difftumor`, one dataclass each: its fields are the options, `run` does the work."""
