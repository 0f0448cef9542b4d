"""What operators look at and mend: lag, offsets, dead letters, and whether all is ready to start."""
