"""Calibration: a text and a real worker in, a profile of the pair of models out."""
