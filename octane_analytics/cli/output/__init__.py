"""Tables, times and progress bars on a terminal."""
