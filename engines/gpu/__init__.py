"""What runs on an NVIDIA GPU: its memory, and compiled plans; nothing here needs torch."""
