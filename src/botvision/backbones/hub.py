"""The Hugging Face Hub: a file of a repository, fetched once and cached, and each fault as one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from botvision.backbones.variants import HUB
from botvision.io.errors import text_of

_OFFLINE = {"ConnectError", "ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}


def download(repo: str, filename: str, revision: str | None = None) -> Path:
    """Return the local copy of a file; fetched where the cache has none.

    Args:
        repo: "OWNER/NAME", or "OWNER/NAME@REVISION"; "hf-hub:" may stand before it.
        filename: of the file in the repository.
        revision: instead of the one in `repo`.

    Raises:
        ValueError: one line: no such repository or file, or no connection.
    """
    from huggingface_hub import hf_hub_download  # takes half a second

    repo = repo.removeprefix(HUB)
    name, _, given = repo.partition("@")
    with faults_in_one_line(f"{HUB}{repo}", filename):
        return Path(hf_hub_download(name, filename, revision=revision or given or None))


@contextmanager
def faults_in_one_line(name: str, filename: str = "such file") -> Iterator[None]:
    """Turn each fault of the hub into a ValueError of one line about `name`; its retries are not told of."""
    try:
        with quiet():
            yield
    except Exception as error:  # no network, no disk, no such repository, ...: each has its own
        raise ValueError(f"{name}: {_reason(error, filename)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the hub from telling of every retry; what counts is how it ends."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        hub.setLevel(level)


def _reason(error: BaseException, filename: str) -> str:
    """What went wrong: what the server said, or what could not be reached."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # pyrefly: ignore[bad-assignment]
    names = {type(each).__name__ for each in chain}
    status = next((each.response.status_code for each in chain if hasattr(each, "response")), None)
    if "GatedRepoError" in names:
        return "is gated: accept its terms on its page, and log in (hf auth login)"
    if "RevisionNotFoundError" in names:
        return "has no such revision"
    if names & {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
        return f"holds no {filename}"
    if status in (401, 403, 404):
        said = getattr(chain[0], "server_message", None) or f"HTTP {status}"
        return f"no such repository, or no access to it ({said}); hf auth login gives access"
    if names & _OFFLINE or any(name.endswith(("Timeout", "ProxyError")) for name in names):
        cached = ", and no earlier download is there" if "LocalEntryNotFoundError" in names else ""
        return f"the Hugging Face Hub cannot be reached{cached}"
    return text_of(chain[0])
