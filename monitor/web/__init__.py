"""The status page's server."""
