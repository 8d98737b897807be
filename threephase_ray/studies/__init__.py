"""Studies: arms x axes x seeds, each phase trained once, and what the comparison shows."""
