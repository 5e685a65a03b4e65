"""What is said when the user's input cannot be used."""


class InputError(ValueError):
    """What the user gave cannot be used. The message says what, and the way out."""
