"""Finished models on the Hugging Face Hub: fetched by name, and uploaded."""

from pathlib import Path

from botvision.backbones.hub import download, faults_in_one_line
from botvision.backbones.variants import HUB, repository

FILES = ("model.json", "model.safetensors")


def is_on_hub(run: str | Path) -> bool:
    """Return whether a run is named as one of the hub's: hf-hub:OWNER/NAME."""
    return str(run).startswith(HUB)


def fetch(run: str) -> Path:
    """Return a local folder with the model of hf-hub:OWNER/NAME, or hf-hub:OWNER/NAME@REVISION.

    Only the two files of the model are downloaded, once; without a network the copy of last time is taken.

    Raises:
        ValueError: one line: no such repository, no model in it, no network.
    """
    repository(run.partition("@")[0])
    folder = download(run, FILES[0]).parent
    download(run, FILES[1], folder.name)  # of the same commit
    return folder


def upload(folder: Path, repo: str, *, public: bool) -> tuple[str, bool]:
    """Upload a folder's files as one commit; the repository is made if need be.

    Args:
        folder: the files.
        repo: OWNER/NAME.
        public: make a new repository public, or accept that it is.

    Returns:
        The page's address, and whether it is private: an existing one stays as it is.

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
    with faults_in_one_line(repo):
        address = api.create_repo(repo, private=not public, exist_ok=True)
        private = api.model_info(repo).private
    if not public and not private:
        raise ValueError(f"{repo}: is public already; push with --public, or to another name")
    with faults_in_one_line(repo):
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="botvision push")
    return str(address), bool(private)
