"""`icewatch demo`: a pretend microscope, the real daemon, and a summary against the truth."""
