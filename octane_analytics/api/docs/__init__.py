"""The API's description for programs and for people."""
