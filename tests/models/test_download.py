"""The cache of published weights: what is in it is intact, what is not is said in one line."""

import hashlib
import inspect
import io
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from keras_files import MODELS

from mlc_jax.errors import WeightsError
from mlc_jax.models.backbones import NETWORKS
from mlc_jax.models.download import at_hand, cache_state, cached_path, published_weights
from mlc_jax.models.published import PUBLISHED

CONTENT = bytes(range(256)) * 4096


class Server:
    """Stands where pooch meets the network: answers `requests.get`."""

    def __init__(self) -> None:
        self.content, self.status = CONTENT, 200
        self.error: Exception | None = None
        self.calls: list[str] = []
        self.served = io.BytesIO()

    def get(self, url: str, **options: object) -> requests.Response:
        assert options["timeout"] == (3.0, 30.0)
        assert options["allow_redirects"] is False
        self.calls.append(url)
        if self.error:
            raise self.error
        response = requests.Response()
        response.status_code, response.url = self.status, url
        response.headers["content-length"] = str(len(self.content))
        response.raw = self.served = io.BytesIO(self.content)
        return response


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """An empty cache, and a published VGG19 file whose content is `CONTENT`."""
    server = Server()
    digest = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    small = replace(PUBLISHED["vgg19"], digest=digest, size=len(CONTENT))
    monkeypatch.setitem(PUBLISHED, "vgg19", small)
    monkeypatch.setattr(requests, "get", server.get)
    monkeypatch.setenv("MLC_JAX_CACHE", str(tmp_path / "cache"))
    return server


def put_by_hand(name: str, content: bytes) -> Path:
    path = cached_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    path = published_weights("vgg19")
    assert path.read_bytes() == CONTENT
    assert path.parent == tmp_path / "cache" / "weights"
    assert list(path.parent.iterdir()) == [path]
    assert published_weights("vgg19") == path
    assert server.calls == [PUBLISHED["vgg19"].url]


@pytest.mark.parametrize("fault", ["byte", "truncated", "longer", "redirect", "absent"])
def test_anything_but_the_published_file_leaves_nothing(server: Server, fault: str) -> None:
    if fault == "byte":
        server.content = CONTENT[:-1] + b"x"
    elif fault == "truncated":
        server.content = CONTENT[:-1]
    elif fault == "longer":
        server.content = CONTENT * 50
    else:
        server.status = {"redirect": 302, "absent": 404}[fault]
        server.content = b"moved"
    with pytest.raises(WeightsError) as refusal:
        published_weights("vgg19")
    assert "\n" not in str(refusal.value)
    assert list(cached_path("vgg19").parent.iterdir()) == []
    assert server.served.tell() <= len(CONTENT) + 8192


def test_offline_says_the_address_and_the_place(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.error = requests.ConnectionError("Max retries exceeded\nNameResolutionError")
    with pytest.raises(WeightsError) as refusal:
        published_weights("vgg19")
    message = str(refusal.value)
    assert "\n" not in message
    assert PUBLISHED["vgg19"].url in message
    assert str(cached_path("vgg19")) in message
    assert capfd.readouterr() == ("", "")


def test_a_file_put_there_by_hand_is_used_if_intact(server: Server) -> None:
    path = put_by_hand("vgg19", CONTENT)
    assert published_weights("vgg19") == path
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(WeightsError, match=f"{path}: damaged or another file"):
        published_weights("vgg19")
    assert server.calls == []


def test_without_a_digest_only_a_file_put_there_by_hand_is_used(server: Server) -> None:
    with pytest.raises(WeightsError, match="Keras pins no digest") as refusal:
        published_weights("mobilenet_v2")
    assert PUBLISHED["mobilenet_v2"].url in str(refusal.value)
    assert str(cached_path("mobilenet_v2")) in str(refusal.value)
    path = put_by_hand("mobilenet_v2", CONTENT)
    assert published_weights("mobilenet_v2") == path
    assert server.calls == []


def test_the_cache_is_in_the_home_folder_unless_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLC_JAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cached_path("vgg19").parent == tmp_path / ".cache" / "mlc_jax" / "weights"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_digests_are_those_that_keras_pins(name: str) -> None:
    """Names and addresses are compared where Keras builds the model, in test_parity."""
    published = PUBLISHED[name]
    source = Path(inspect.getfile(MODELS[name]))
    assert published.url.startswith("https://")
    if published.digest is None:
        assert "file_hash" not in source.read_text()
    else:
        algorithm, digest = published.digest.split(":")
        assert algorithm == {32: "md5", 64: "sha256"}[len(digest)]
        # The second version of ResNet has its digests in the module of the first.
        assert any(f'"{digest}"' in file.read_text() for file in source.parent.glob("*.py"))


def test_every_backbone_is_published_and_no_other() -> None:
    assert list(PUBLISHED) == [name for name in NETWORKS if name in MODELS]
    assert len({published.file for published in PUBLISHED.values()}) == len(PUBLISHED)
    digests = [published.digest for published in PUBLISHED.values() if published.digest]
    assert len(set(digests)) == len(digests)


def test_backbones_at_hand_are_those_whose_file_is_there_and_intact(server: Server) -> None:
    assert at_hand() == ()
    put_by_hand("vgg19", CONTENT)
    put_by_hand("mobilenet_v2", CONTENT)
    put_by_hand("resnet50", CONTENT)
    assert at_hand() == ("vgg19", "mobilenet_v2")
    assert cache_state("resnet50") == "damaged"
    assert cache_state("mobilenet_v2") == "present, unchecked"
