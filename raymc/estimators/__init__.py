"""Models for Python: what a training left, as an object that labels new samples."""
