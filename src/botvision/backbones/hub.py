"""One file of a repository on the Hugging Face Hub, fetched once and kept in its cache."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from botvision.backbones.variants import HUB
from botvision.io.errors import text_of


def download(repo: str, filename: str) -> Path:
    """Return the local copy of a file; fetched where the cache has none.

    Args:
        repo: "ORG/NAME", or "ORG/NAME@REVISION"; "hf-hub:" may stand before it.
        filename: of the file in the repository.

    Raises:
        ValueError: one line: no such repository or file, or no connection.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError as NoSuchFile
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    name, _, revision = repo.removeprefix(HUB).partition("@")
    try:
        with quiet():
            return Path(hf_hub_download(name, filename, revision=revision or None))
    except GatedRepoError:
        reason = "it asks for a licence to be accepted, and for a login"
    except RepositoryNotFoundError:
        reason = "no such repository, or a private one"
    except LocalEntryNotFoundError as error:
        reason = text_of(error.__cause__ or error)
    except NoSuchFile:
        reason = f"it has no {filename}"
    except Exception as error:  # no disk, a name that is none, ...: each has its own
        reason = text_of(error).rstrip(".")
    raise ValueError(f"{HUB}{name}: cannot be fetched ({reason})") from None


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
