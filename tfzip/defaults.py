"""Numbers that hold unless asked otherwise, and that --help tells: so nothing is imported here."""

MAX_PIXELS = 180_000_000
"""What an image may claim to hold unless more is asked for: what TensorFlow's decoder of JPEG makes in colour at most
(2**29 bytes) and at which Pillow sees a bomb; more than any camera takes in one shot, phones that make 200 million of
fewer aside."""

MIN_CONFIDENCE = 0.9
"""Where the slider of a report stands at first."""

SAMPLE = 100
"""Images that are run through a model again when an export is verified."""
