"""From simulated tilts to a bundle: data set, training, evaluation, calibration, export."""
