"""Readers: from a file on disk to the pixels of one exposure."""
