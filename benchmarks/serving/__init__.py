"""Our service beside general serving frameworks, in one interleaved run. Every answer is checked."""
