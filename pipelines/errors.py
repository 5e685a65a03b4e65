"""What is said when the user's input cannot be used."""


class InputError(ValueError):
    """What the user gave cannot be used. The message says what, and the way out."""


def one_line(what: object) -> str:
    """Another library's error, or anything else, in words on one line."""
    return " ".join(str(what).split())
