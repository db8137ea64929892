"""`icewatch annotate`: which tilts to draw on, out to CVAT and back."""
