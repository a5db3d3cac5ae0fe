"""Networks behind the judges: detectors, encoders, and a process of its own."""
