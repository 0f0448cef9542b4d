"""What every process of the service needs of the operating system: exit codes, time, signals."""
