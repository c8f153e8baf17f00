"""Images: where they lie, how they become square 8-bit grey, how they are stored, and how they are augmented."""

RESIZE_MODES = ("pad", "crop", "stretch")
"""How a picture is made square: black added, the centre cut out, or its sides scaled."""
CODECS = ("png", "jpeg", "webp")
"""How a prepared set stores its pictures."""
