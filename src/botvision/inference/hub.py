"""Finished models on the Hugging Face Hub: fetched by name, and uploaded."""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from botvision.io.errors import text_of

PREFIX = "hf-hub:"
FILES = ("model.json", "model.safetensors")
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_on_hub(run: str | Path) -> bool:
    """Return whether a run is named as one of the hub's: hf-hub:OWNER/NAME."""
    return str(run).startswith(PREFIX)


def check_name(repo: str) -> str:
    """Return OWNER/NAME without the prefix that `load` wants.

    Raises:
        ValueError: it is not of that form.
    """
    name = repo.removeprefix(PREFIX)
    if _NAME.fullmatch(name) is None or ".." in name or "--" in name:
        raise ValueError(f"{repo}: expected OWNER/NAME on the Hugging Face Hub, such as ada/birds")
    return name


def fetch(run: str) -> Path:
    """Return a local folder with the model of hf-hub:OWNER/NAME, or hf-hub:OWNER/NAME@REVISION.

    Only the two files of the model are downloaded, once; without a network the copy of last time is taken.

    Raises:
        ValueError: one line: no such repository, no model in it, no network.
    """
    name, _, revision = run.removeprefix(PREFIX).partition("@")
    check_name(name)
    from huggingface_hub import hf_hub_download  # takes half a second

    with _quiet(run):
        folder = Path(hf_hub_download(name, FILES[0], revision=revision or None)).parent
        hf_hub_download(name, FILES[1], revision=folder.name)  # of the same commit
    return folder


def upload(folder: Path, repo: str, *, public: bool) -> str:
    """Upload a folder's files as one commit and return the page's address; the repository is made if need be.

    Args:
        folder: the files.
        repo: OWNER/NAME.
        public: make a new repository public, or accept that it is.

    Raises:
        ValueError: one line: no token, a token that may not write there, no network; or it is public and
            `public` is False.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ValueError(
            "no token for the Hugging Face Hub: run hf auth login or set HF_TOKEN; push --dry-run needs none"
        )
    api = HfApi()
    with _quiet(repo):
        address = api.create_repo(repo, private=not public, exist_ok=True)
        private = api.model_info(repo).private
    if not public and not private:
        raise ValueError(f"{repo}: is public already; push with --public, or to another name")
    with _quiet(repo):
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="botvision push")
    return str(address)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Turn each fault of the hub into one line about `name`, without its warnings of retries."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # no network, no disk, no such repository, ...: each has its own
        raise ValueError(f"{name}: {_reason(error)}") from error
    finally:
        hub.setLevel(level)


def _reason(error: BaseException) -> str:
    """What went wrong, in one line: what the server said, or what could not be reached."""
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
        return f"holds no {' and '.join(FILES)}; was it uploaded by botvision push?"
    if status in (401, 403, 404):
        said = getattr(chain[0], "server_message", None) or f"HTTP {status}"
        return f"no such repository, or no access to it ({said}); hf auth login gives access"
    offline = {"ConnectError", "ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}
    if names & offline or any(name.endswith(("Timeout", "ProxyError")) for name in names):
        cached = ", and no earlier download is there" if "LocalEntryNotFoundError" in names else ""
        return f"the Hugging Face Hub cannot be reached{cached}"
    return text_of(chain[0])
