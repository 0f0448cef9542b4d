"""`POST /query`: validation and execution of statements by clients."""
