"""The one error that bad data raise, and what any error says in one line."""

_WORKER_TRACE = "Original Traceback"


class DataError(ValueError):
    """Data that cannot be used; the message is one line naming what is at fault and what was expected."""

    def __init__(self, message: str) -> None:
        # A loader's worker process hands an error on as the text of its whole traceback, wrapped in a new
        # error of the same type; its last line is the sentence that was raised.
        if _WORKER_TRACE in message:
            message = message.rstrip().rsplit("DataError: ", 1)[-1]
        super().__init__(" ".join(message.split()))


def lacks_memory(error: BaseException) -> bool:
    """Return whether memory ran out: as numpy and Python say it, a GPU, or torch on a CPU."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    )


def text_of(error: BaseException) -> str:
    """Return what an error says, on one line; the name of its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
