"""Errors of the recognition side; light, so that the command line can name them without torch."""


class InputError(ValueError):
    """The user's data, file or option is wrong; the text says what is wrong and what to do."""
