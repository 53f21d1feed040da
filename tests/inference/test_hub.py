"""Models on the Hugging Face Hub, against a stand-in on loopback: what is uploaded, and what comes back."""

import base64
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import constants

import botvision as bv
from botvision.cli import main as cli
from tests.conftest import RECIPE
from tests.terminal import complaint

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with its visibility and its files."""

    repos: dict[str, dict[str, Any]]
    token: str


class Answers(BaseHTTPRequestHandler):
    """The calls of the hub's API that a push and a load make."""

    protocol_version = "HTTP/1.1"
    server: Hub  # pyrefly: ignore[bad-override-mutable-attribute]

    def reply(self, value: Any = None, code: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for key, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.reply({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            known = name in self.server.repos
            self.server.repos.setdefault(name, {"private": private, "files": {}})
            return self.reply({"url": f"{constants.ENDPOINT}/{name}", "name": name}, 409 if known else 200)
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            paths = [each["path"] for each in json.loads(body)["files"]]
            kinds = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.reply({"files": [{"path": path, **kinds} for path in paths]})
        for row in map(json.loads, body.splitlines()):
            if row["key"] == "file":
                self.server.repos[name]["files"][row["value"]["path"]] = base64.b64decode(
                    row["value"]["content"]
                )
        return self.reply({"commitUrl": f"{constants.ENDPOINT}/{name}/commit/{SHA}", "commitOid": SHA})

    def do_GET(self) -> None:
        found = re.match(
            r"/(?:api/models/)?([\w.-]+/[\w.-]+?)(?:/(revision|tree|resolve)/(\w+)/?(.*))?$",
            self.path.partition("?")[0],
        )
        assert found, self.path
        name, kind, revision, file = found.groups()
        repo = self.server.repos.get(name)
        if repo is None or (repo["private"] and "Authorization" not in self.headers):
            return self.reply({"error": "not found"}, 401, X_Error_Code="RepoNotFound")
        if revision not in (None, "main", SHA):
            return self.reply({"error": "no revision"}, 404, X_Error_Code="RevisionNotFound")
        files = repo["files"]
        if kind == "resolve" and file not in files:
            return self.reply({"error": "no file"}, 404, X_Error_Code="EntryNotFound")
        if kind == "resolve":
            digest = hashlib.sha1(files[file]).hexdigest()
            return self.reply(files[file], X_Repo_Commit=SHA, ETag=f'"{digest}"')
        if kind == "tree":
            rows = [
                {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()}
                for k, v in files.items()
            ]
            return self.reply(rows)
        siblings = [{"rfilename": path} for path in files]
        return self.reply(
            {"id": name, "modelId": name, "sha": SHA, "private": repo["private"], "siblings": siblings}
        )

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of its own, an empty cache and a token."""
    server = Hub(("127.0.0.1", 0), Answers)
    server.repos, server.token = {}, "hf_test"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


DETECTOR = """
model:
  name: botnet14_tiny
  detector: {heads: light, channels: 16, box_channels: 16, mask_convs: 1, norm: group, frozen_stages: 0}
data: {source: generated, image_size: 32, num_images: 8, num_val_images: 4, num_classes: 2, max_objects: 2}
train: {epochs: 1, batch_size: 4}
task: detect
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each task, by its name."""
    folder = tmp_path_factory.mktemp("trained")
    for task, text in {"classify": RECIPE, "detect": DETECTOR}.items():
        (folder / f"{task}.yaml").write_text(text)
        assert cli.main(["train", str(folder / f"{task}.yaml"), "--out", str(folder / task)]) == 0
    return folder


@pytest.fixture(params=["classify", "detect"])
def run(
    request: pytest.FixtureRequest, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Path:
    """A copy of one of them."""
    capsys.readouterr()
    return Path(shutil.copytree(trained / request.param, tmp_path / "mine"))


def card_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_round_trip(hub: Hub, run: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is loaded by name predicts the same; nothing with photos or with paths of this machine goes up."""
    assert cli.main(["push", str(run), "ada/birds"]) == 0
    assert 'bv.load("hf-hub:ada/birds")' in capsys.readouterr().out
    repo = hub.repos["ada/birds"]
    assert repo["private"] is True
    pictures = {"curves.png", "confusion.png", "precision_recall.png"}
    assert set(repo["files"]) - pictures == {"README.md", "eval.json", "model.json", "model.safetensors"}
    for name in ("README.md", "eval.json", "model.json"):
        text = repo["files"][name].decode()
        assert str(run.parent) not in text
        assert str(trained) not in text
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    (ours, theirs) = (bv.load(place, device="cpu").predict(image) for place in (run, "hf-hub:ada/birds"))
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert ours.names == theirs.names
    cached = {path.name for path in run.parent.glob("cache/models--ada--birds/snapshots/*/*")}
    assert cached == {"model.json", "model.safetensors"}


@pytest.mark.parametrize("run", ["classify"], indirect=True)
def test_faults_of_the_hub(
    hub: Hub, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is one line; nothing goes to a public repository unless --public says so."""
    hub.repos["ada/open"] = {"private": False, "files": {}}
    assert "ada/open: is public already" in complaint(capsys, "push", str(run), "ada/open")
    assert hub.repos["ada/open"]["files"] == {}
    assert cli.main(["push", str(run), "ada/open", "--public", "--license", "mit"]) == 0
    assert card_of(hub.repos["ada/open"]["files"]["README.md"].decode())["license"] == "mit"
    hub.repos["ada/empty"] = {"private": False, "files": {"README.md": b""}}
    for name, message in {
        "ada/none": "ada/none: no such repository, or no access to it",
        "ada/open@old": "ada/open@old: has no such revision",
        "ada/empty": "ada/empty: holds no model.json",
        "ada": "ada: expected OWNER/NAME",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            bv.load(f"hf-hub:{name}")
    hub.repos["ada/evil"] = {"private": False, "files": {"model.json": b'{"name": 3, "kwargs": {}}'}}
    hub.repos["ada/evil"]["files"]["model.safetensors"] = b"cos\nsystem"
    with pytest.raises(ValueError, match=r"model\.json: name: expected a model's name, got 3"):
        bv.load("hf-hub:ada/evil")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    capsys.readouterr()
    assert "ada/new: no such repository, or no access to it (Invalid" in complaint(
        capsys, "push", str(run), "ada/new"
    )
    monkeypatch.delenv("HF_TOKEN")
    assert "no token for the Hugging Face Hub" in complaint(capsys, "push", str(run), "ada/new")


@pytest.mark.parametrize("run", ["classify"], indirect=True)
def test_without_a_network(
    hub: Hub, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched once is used; the rest is one line. `predict` takes such names, too."""
    assert cli.main(["push", str(run), "ada/birds"]) == 0
    bv.load("hf-hub:ada/birds@main", device="cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    capsys.readouterr()
    out = run.parent / "out"
    (run.parent / "a.png").write_bytes((run / "curves.png").read_bytes())
    assert cli.main(["predict", "hf-hub:ada/birds", str(run.parent / "a.png"), "--out", str(out)]) == 0
    assert json.loads((out / "predictions.json").read_text())
    capsys.readouterr()
    for words in (
        ["predict", "hf-hub:ada/other", str(run.parent / "a.png")],
        ["push", str(run), "ada/birds"],
    ):
        assert "the Hugging Face Hub cannot be reached" in complaint(capsys, *words)


def test_dry_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The card has the run's own numbers, and a header that the hub reads; nothing is asked of a network."""
    assert cli.main(["push", str(run / "model"), "hf-hub:ada/birds", "--dry-run"]) == 0
    assert f"written: {run}/hub/; nothing was uploaded" in capsys.readouterr().out
    text = (run / "hub" / "README.md").read_text()
    header, summary = card_of(text), json.loads((run / "summary.json").read_text())
    kinds = {"classify": ("image-classification", "top1"), "detect": ("image-segmentation", "box_ap")}
    tag, score = kinds[summary["task"]]
    assert (header["library_name"], header["pipeline_tag"], header["license"]) == (
        "botvision",
        tag,
        "unknown",
    )
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(summary[score], 4)
    assert f"(%) | {100 * summary[score]:.2f} |" in re.sub(" +", " ", text)
    assert f"Measured on {summary['val_images']} validation images; one run with one seed (0)." in text
    assert f"{summary['train_images']} training images" in text
    assert "random weights" in text
    assert 'bv.load("hf-hub:ada/birds")' in text
    assert (
        bv.load(run / "hub", device="cpu").classes
        == json.loads((run / "hub/model.json").read_text())["classes"]
    )


@pytest.mark.parametrize("run", ["classify"], indirect=True)
def test_what_cannot_be_pushed(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = str(run)
    assert "expected OWNER/NAME" in complaint(capsys, "push", mine, "birds")
    assert "--license apache-2.0" in complaint(capsys, "push", mine, "ada/birds", "--public")
    assert "got 'My Licence'" in complaint(capsys, "push", mine, "a/b", "--license", "My Licence")
    assert "nowhere: no such run folder" in complaint(capsys, "push", str(tmp_path / "nowhere"), "a/b")
    own = tmp_path / "hub" / "mine.txt"
    own.parent.mkdir()
    own.touch()
    assert "summary.json: missing" in complaint(capsys, "push", str(tmp_path), "a/b", "--dry-run")
    (run / "hub").mkdir()
    (run / "hub" / "mine.txt").touch()
    assert "holds other files than a dry run writes (mine.txt)" in complaint(
        capsys, "push", mine, "a/b", "--dry-run"
    )
    assert own.is_file()
    (run / "hub" / "mine.txt").unlink()
    (run / "hub").rmdir()
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors has 1,000" in complaint(capsys, "push", mine, "a/b", "--dry-run")
    assert not (run / "hub").exists()
    (run / "summary.json").unlink()
    assert f"botvision train --out {mine} --resume" in complaint(capsys, "push", mine, "a/b")
    (run / "config.yaml").unlink()
    assert "summary.json: missing; is this a run folder" in complaint(capsys, "push", mine, "a/b")
    for words in (["eval", "hf-hub:a/b"], ["push", "hf-hub:a/b", "a/b"], ["check", "hf-hub:a/b"]):
        assert "hf-hub:a/b: no such" in complaint(capsys, *words)
    assert "a b: expected OWNER/NAME" in complaint(capsys, "predict", "hf-hub:a b", str(run / "curves.png"))
