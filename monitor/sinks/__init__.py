"""Where committed messages go: ZeroMQ, Prometheus, the verdict files, overlays; always all on."""
