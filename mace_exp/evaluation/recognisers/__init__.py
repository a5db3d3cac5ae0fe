"""Networks behind the judges: detectors, encoders, and an external process."""
