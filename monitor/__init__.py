"""The daemon: finds tilts as they land, reads their ice, publishes readings and verdicts."""
