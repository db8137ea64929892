"""`icewatch simulate` and `icewatch replay`: a pretend microscope that lets sessions land."""
