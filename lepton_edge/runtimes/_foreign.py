"""What the adapters share where they meet foreign code."""


def first_line(error: BaseException) -> str:
    """The first line of a foreign error, short enough for one line of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
