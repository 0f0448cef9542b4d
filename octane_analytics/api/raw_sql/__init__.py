"""`POST /query`: which statements are allowed, and how they are run."""
