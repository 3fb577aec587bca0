"""Everything of DiffTumorSlicer that knows a MRML scene; `panels` also knows Qt. Never imports torch."""
