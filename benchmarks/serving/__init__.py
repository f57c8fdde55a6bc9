"""Our service beside the general serving frameworks: one machine, one interleaved run, every answer checked."""
