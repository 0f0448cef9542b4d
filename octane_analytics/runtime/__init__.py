"""Operating system services that every process uses: exit codes, clock, signals, scheduling."""
