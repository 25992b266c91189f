"""Weights from the Hub, by `huggingface_hub` itself against a server of this test."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_small import ARCHITECTURES

from mlc_jax.errors import WeightsError
from mlc_jax.models import hub
from mlc_jax.models.backbones import NETWORKS, load_backbone
from mlc_jax.models.download import at_hand, cache_state, cached_path, published_weights
from mlc_jax.models.hub_files import HUB_FILES
from mlc_jax.models.published import PUBLISHED

NAME = "dinov2_s14_registers"  # its commit is pinned, its digest is not
COMMIT, LATER = "1" * 40, "2" * 40
CONTENT = bytes(range(256)) * 64


@dataclass
class Hub:
    """What the server has: the file at each commit, and what it answers instead."""

    files: dict[str, bytes] = field(default_factory=lambda: {COMMIT: CONTENT})
    head: str = COMMIT
    gated: bool = False
    stated: str | None = None  # the digest it names, if not the true one
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub on this machine, with empty caches of ours and of `huggingface_hub`."""
    hub_of_test = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing on the screen."""

        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def _answer(self, body: bool) -> None:
            hub_of_test.asked.append(f"{self.command} {self.path}")
            revision = self.path.split("/resolve/")[1].split("/")[0]
            commit = hub_of_test.head if revision == "main" else revision
            content = hub_of_test.files.get(commit)
            if hub_of_test.gated or content is None:
                self.send_response(401 if hub_of_test.gated else 404)
                code = "GatedRepo" if hub_of_test.gated else "EntryNotFound"
                self.send_header("X-Error-Code", code)
                self.send_header("X-Repo-Commit", commit)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            digest = hub_of_test.stated or hashlib.sha256(content).hexdigest()
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{digest}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listening.server_port}"
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        monkeypatch.setenv("MLC_JAX_CACHE", str(tmp_path / "cache"))
        monkeypatch.setitem(HUB_FILES, NAME, replace(HUB_FILES[NAME], revision=None))
        yield hub_of_test
        listening.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_its_commit_recorded(
    server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cache_state(NAME) == "absent"
    path = published_weights(NAME)
    assert path.read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert "licence Apache-2.0" in said
    assert COMMIT in said
    assert "0 MB" in said
    server.head, server.files[LATER] = LATER, b"another"
    asked = len(server.asked)
    assert published_weights(NAME) == path, "what the head became later is not looked at"
    assert len(server.asked) == asked
    assert cache_state(NAME) == "intact"
    assert NAME in at_hand()


def test_a_pinned_commit_is_the_one_that_is_fetched(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HUB_FILES, NAME, replace(HUB_FILES[NAME], revision=COMMIT))
    server.head, server.files[LATER] = LATER, b"another"
    assert published_weights(NAME).read_bytes() == CONTENT
    assert not any("/main/" in line for line in server.asked)


def test_a_wrong_byte_is_refused(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HUB_FILES, NAME, replace(HUB_FILES[NAME], digest="0" * 64))
    with pytest.raises(WeightsError, match=r"pinned or recorded 0000"):
        published_weights(NAME)


def test_what_differs_from_the_hub_s_own_digest_is_refused(server: Hub) -> None:
    server.stated = "f" * 64
    with pytest.raises(WeightsError, match=r"named by the Hub ffff"):
        published_weights(NAME)
    assert not (hub.hand_placed(NAME).with_suffix(".json")).exists()


def test_a_file_that_changed_after_it_was_recorded_is_refused(server: Hub) -> None:
    path = published_weights(NAME)
    path.resolve().write_bytes(b"spoilt")
    assert cache_state(NAME) == "damaged"
    assert NAME not in at_hand()
    with pytest.raises(WeightsError, match=r"damaged or another file .*put https://huggingface.co"):
        published_weights(NAME)


def test_a_gated_repository_says_how(server: Hub) -> None:
    server.gated = True
    with pytest.raises(WeightsError) as caught:
        published_weights("dinov3_b16")
    message = str(caught.value)
    assert "https://huggingface.co/facebook/dinov3-vitb16-pretrain-lvd1689m, accept it" in message
    assert "hf auth login" in message
    assert str(cached_path("dinov3_b16")) in message


def test_a_repository_without_the_file_says_so(server: Hub) -> None:
    server.files.clear()
    with pytest.raises(WeightsError, match=r"holds no model.safetensors at its head"):
        published_weights(NAME)


def test_offline_the_message_names_file_and_place(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        published_weights("dinov2_s14")
    assert HUB_FILES["dinov2_s14"].url in str(caught.value)
    assert str(cached_path("dinov2_s14")) in str(caught.value)
    assert not server.asked


def test_a_file_put_by_hand_needs_no_network(server: Hub) -> None:
    path = cached_path(NAME)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert cache_state(NAME) == "present, unchecked"
    assert published_weights(NAME) == path
    assert not server.asked
    path.write_bytes(b"spoilt")
    with pytest.raises(WeightsError, match="recorded"):
        published_weights(NAME)


def test_a_backbone_comes_from_the_hub(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from hub_comparison import small_network

    name = "dinov3_s16"
    golden = Path(__file__).parent / "golden" / f"{name}.safetensors"
    server.files = {COMMIT: golden.read_bytes()}
    free = replace(HUB_FILES[name], revision=None, digest=None)
    monkeypatch.setitem(HUB_FILES, name, free)
    monkeypatch.setitem(NETWORKS, name, lambda: small_network(name))
    backbone = load_backbone(name, "imagenet")
    assert backbone.origin == "facebook/dinov3-vits16-pretrain-lvd1689m"
    assert backbone.digest == hashlib.sha256(golden.read_bytes()).hexdigest()


def test_every_network_has_published_weights_in_one_place() -> None:
    assert list(NETWORKS) == [*PUBLISHED, *HUB_FILES]
    assert set(ARCHITECTURES) <= set(HUB_FILES)
    for published in HUB_FILES.values():
        assert published.licence
        assert published.gated == published.licence.startswith("DINOv3")
        for pinned, length in ((published.revision, 40), (published.digest, 64)):
            assert pinned is None or (len(pinned) == length and int(pinned, 16))
