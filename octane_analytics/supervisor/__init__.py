"""Keeps a fixed set of child processes alive: no clients, no threads, one loop."""
