"""Keeps a fixed set of child processes running: one loop, no threads, no clients."""
