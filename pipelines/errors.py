"""What is said when the user's input cannot be used."""


class InputError(ValueError):
    """What the user gave cannot be used. The message says what, and the way out."""


def one_line(what: object) -> str:
    """Another library's error, or anything else, in words on one line."""
    return " ".join(str(what).split())


def brief(what: object, most: int = 120) -> str:
    """Anything in printable words on one line, without its middle where it is long."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in one_line(what))
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} ... {text[-(most // 2) :]}"
