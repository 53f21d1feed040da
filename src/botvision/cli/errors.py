"""What the command says of errors that libraries and the system raise: one line each."""


def one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}"
    if lacks_memory(error):
        return "out of memory; try a smaller batch (train: --train.batch_size) or smaller images"
    return str(error) or type(error).__name__


def lacks_memory(error: Exception) -> bool:
    """Whether memory ran out: numpy's and Python's way to say so, CUDA's, or that of torch on a CPU."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    )
