"""Files at servers, with a server on loopback that fails as servers do."""

import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

import pytest
from file_server import FileServer
from hypothesis import given
from hypothesis import strategies as st

from sfxflow.errors import InputError
from sfxflow.io import remote_files
from sfxflow.io.remote_files import cache_folder, identified, is_here, local_file
from sfxflow.io.urls import file_name, identity_of, is_remote, with_identity, without_identity

CONTENT = bytes(range(256)) * 2000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, no credentials, and no waiting between tries."""
    monkeypatch.setenv("SFXFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in [name for name in os.environ if name.startswith(("AWS_", "BEARER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(remote_files, "PAUSES", (0, 0, 0))
    return tmp_path / "cache/frames"


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    (folder / "bucket").mkdir(parents=True)
    (folder / "run1.h5").write_bytes(CONTENT)
    (folder / "bucket/run1.h5").write_bytes(CONTENT)
    with FileServer(folder) as running:
        yield running


def content(path):
    with open(path, "rb") as handle:
        return handle.read()


def left_over(cache):
    return [path.name for path in cache.glob(".*") if not path.name.endswith(".lock")]


def refused(url):
    with pytest.raises(InputError) as raised:
        local_file(url)
    return str(raised.value)


# ---- addresses


@given(st.integers(0, 10**15), st.text(max_size=20), st.none() | st.integers(0, 2**33))
def test_identity_of_an_address(size, etag, modified):
    url = with_identity("https://host/a b.h5#bytes=1", size, etag, modified)
    assert without_identity(url) == "https://host/a b.h5"
    expected = {"bytes": str(size)} | ({"etag": etag} if etag else {})
    assert identity_of(url) == expected | ({"modified": str(modified)} if not etag and modified is not None else {})


def test_names():
    assert [is_remote(name) for name in ("https://h/x", "S3://b/k", "root://h//x")] == [True, True, True]
    assert [is_remote(name) for name in ("raw/x.h5", "/https/x", "https:x", "raw/*.h5", "file:///x")] == [False] * 5
    assert without_identity("raw/a#1.h5") == "raw/a#1.h5"
    assert file_name("https://h/a/run%201.h5?version=2#bytes=3") == "run_1.h5"
    assert file_name("https://h") == "file"


# ---- what goes well


def test_a_file_is_fetched_once(server, cache):
    url = server.url("run1.h5")
    assert not is_here(url)
    path = local_file(url)
    assert content(path) == CONTENT
    assert is_here(url) and local_file(url) == path
    assert server.n_asked("run1.h5") == 1
    assert left_over(cache) == []
    # As at the server.
    assert int(os.stat(path).st_mtime) == int((server.folder / "run1.h5").stat().st_mtime)


def test_a_path_stays_as_it_is(tmp_path):
    assert local_file(str(tmp_path / "x.h5")) == str(tmp_path / "x.h5")


def _fetch_in_turn(url, pipe):
    pipe.send(local_file(url))


def test_of_several_jobs_one_fetches(server):
    server.pause = 0.02
    context = multiprocessing.get_context("fork")
    jobs = []
    for _ in range(4):
        mine, theirs = context.Pipe()
        job = context.Process(target=_fetch_in_turn, args=(server.url("run1.h5"), theirs))
        job.start()
        jobs.append((job, mine))
    paths = {mine.recv() for _, mine in jobs}
    for job, _ in jobs:
        job.join()
    assert server.n_asked("run1.h5") == 1
    assert [content(path) for path in paths] == [CONTENT]


def test_identified_address(server):
    """What it gets is in the cache under the new address; a file that was replaced is another one."""
    url = identified(server.url("run1.h5"))
    assert identity_of(url).keys() == {"bytes", "etag"}
    assert content(local_file(url)) == CONTENT
    assert server.n_asked("run1.h5") == 1
    (server.folder / "run1.h5").write_bytes(CONTENT[::-1])
    assert identified(url) != url
    assert content(local_file(identified(url))) == CONTENT[::-1]


def test_identity_without_an_etag(server, cache):
    server.etags = False
    url = identified(server.url("run1.h5"))
    assert identity_of(url).keys() == {"bytes", "modified"}
    for path in cache.glob("*run1.h5"):
        path.unlink()
    os.utime(server.folder / "run1.h5", (0, 1e9))
    assert "modified is 1000000000, not" in refused(url)


def test_folder_without_the_variable(monkeypatch, tmp_path):
    """Among the temporary files, the user's own."""
    monkeypatch.delenv("SFXFLOW_CACHE")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert cache_folder() == tmp_path / f"sfxflow-frames-{os.getuid()}"
    assert cache_folder().stat().st_mode & 0o777 == 0o700


# ---- servers that fail


@pytest.mark.parametrize("failure", [503, 429, "truncated", "dropped"])
def test_what_passes_is_tried_again(server, cache, failure, capsys):
    server.failures = [failure, failure]
    assert content(local_file(server.url("run1.h5"))) == CONTENT
    assert server.n_asked("run1.h5") == 3
    assert capsys.readouterr().err.count("; next try in 0 s") == 2
    assert left_over(cache) == []


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("truncated", f"only {len(CONTENT) // 2} of {len(CONTENT)} bytes came (4 tries"),
        (503, "can't be fetched: the server answers 503 Service Unavailable"),
        ("dropped", "can't be fetched: Remote end closed connection"),
    ],
)
def test_what_does_not_pass(server, cache, failure, said):
    server.failures = [failure] * 4
    assert said in refused(server.url("run1.h5"))
    assert list(cache.glob("*.h5")) == left_over(cache) == []


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (404, "the server has no such file (404 Not Found); correct the address"),
        (403, "does not let you read it (403 Forbidden); docs/storage.md says where credentials"),
        (400, "the server answers 400 Bad Request"),
        ("page", "sends a web page instead of the file; does it want a login?"),
    ],
)
def test_what_is_not_tried_again(server, failure, said):
    server.failures = [failure]
    assert said in refused(server.url("run1.h5"))
    assert server.n_asked("run1.h5") == 1


def test_server_that_is_gone(server):
    with FileServer(server.folder) as other:
        url = other.url("run1.h5")
    assert "can't be fetched: Connection refused (4 tries" in refused(url)


def test_another_file_than_was_meant(server):
    """Before a byte of it is fetched."""
    said = refused(server.url("run1.h5") + "#bytes=7")
    assert f"bytes is {len(CONTENT)}, not 7" in said
    assert "`sfxflow runs refresh`" in said


# ---- the cache


def test_room_is_made_of_what_is_not_used(server, cache, monkeypatch):
    old = local_file(server.url("run1.h5"))
    used = local_file(server.url("bucket/run1.h5"))
    os.utime(old, (time.time() - 1000, 0))
    free = {True: 0, False: 1 << 40}
    monkeypatch.setattr(remote_files.shutil, "disk_usage", lambda folder: _Usage(free[os.path.exists(old)]))
    (server.folder / "run2.h5").write_bytes(b"2")
    assert content(local_file(server.url("run2.h5"))) == b"2"
    assert os.path.exists(used)


class _Usage:
    def __init__(self, free):
        self.free = free


def test_no_room(server, cache, monkeypatch):
    monkeypatch.setattr(remote_files.shutil, "disk_usage", lambda folder: _Usage(10**6))
    said = refused(server.url("run1.h5"))
    assert f"{cache}: No space left on device: run1.h5 has 1 MB, 1 MB are free" in said
    assert "export SFXFLOW_CACHE=FOLDER" in said


def test_folder_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SFXFLOW_CACHE", str(tmp_path / "file"))
    assert "the folder for fetched files can't be made (" in refused("https://host/x.h5")


# ---- credentials


def test_netrc(server, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    local_file(server.url("run1.h5"))
    assert server.asked[0][1]["authorization"] == "Basic bWU6c2VjcmV0"


def test_credentials_stay_at_their_server(server, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    with FileServer(server.folder) as other:
        server.failures = [other.url("run1.h5")]
        assert content(local_file(server.url("run1.h5"))) == CONTENT
        assert "authorization" in server.asked[0][1]
        assert "authorization" not in other.asked[0][1]


def test_token_is_not_sent_in_the_open(server, monkeypatch):
    monkeypatch.setenv("BEARER_TOKEN", "secret")
    local_file(server.url("run1.h5"))
    assert "authorization" not in server.asked[0][1]


def test_token_that_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "gone"))
    assert "BEARER_TOKEN_FILE: " in refused("https://127.0.0.1:1/x.h5")


# ---- S3


@pytest.fixture
def s3(server, monkeypatch):
    """boto3 that takes the server for S3."""
    pytest.importorskip("boto3", reason="boto3 is not installed")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "here")
    return server


def test_s3_with_credentials(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = identified("s3://bucket/run1.h5")
    assert content(local_file(url)) == CONTENT
    assert identity_of(url).keys() == {"bytes", "etag"}
    (path, headers) = s3.asked[0]
    assert path == "/bucket/run1.h5"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=me/")


def test_s3_public_bucket(s3):
    assert content(local_file("s3://bucket/run1.h5")) == CONTENT
    assert "authorization" not in s3.asked[0][1]


@pytest.mark.parametrize("failure", [503, "truncated", "dropped"])
def test_s3_what_passes_is_tried_again(s3, failure):
    s3.failures = [failure]
    assert content(local_file("s3://bucket/run1.h5")) == CONTENT


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/gone.h5", "the server has no such file (404"),
        ("s3://bucket", "s3://BUCKET/KEY is expected"),
    ],
)
def test_s3_bad_input(s3, url, said):
    assert said in refused(url)


def test_s3_refused(s3):
    s3.failures = [403]
    assert "does not let you read it (403" in refused("s3://bucket/run1.h5")


# ---- XRootD: a stand-in for its package, with the numbers that a real server answers


class Status:
    def __init__(self, errno=0, message=""):
        self.ok, self.errno, self.message = errno == 0, errno, message


class XRootDFile:
    """`client.File` of a server that has one file; `broken` reads fail first."""

    broken = 0

    def open(self, url, timeout):
        errors = {"gone.h5": (3011, "no such file"), "secret.h5": (3010, "disallowed"), "away.h5": (204, "expired")}
        return Status(*errors.get(url.rpartition("/")[2], (0, ""))), None

    def stat(self, timeout):
        return Status(), SimpleNamespace(size=len(CONTENT), modtime=10**9)

    def read(self, start, size, timeout):
        if XRootDFile.broken:
            XRootDFile.broken -= 1
            return Status(204, "connection lost"), None
        return Status(), CONTENT[start : start + size]

    def close(self):
        pass


@pytest.fixture
def xrootd(monkeypatch):
    monkeypatch.setitem(sys.modules, "XRootD", SimpleNamespace(client=SimpleNamespace(File=XRootDFile)))


def test_xrootd(xrootd, monkeypatch):
    monkeypatch.setattr(XRootDFile, "broken", 1)
    url = identified("root://host//run1.h5")
    assert url == f"root://host//run1.h5#bytes={len(CONTENT)}&modified=1000000000"
    assert content(local_file(url)) == CONTENT


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.h5", "the server has no such file (404 no such file)"),
        ("secret.h5", "does not let you read it (403 disallowed)"),
        ("away.h5", "can't be fetched: expired (4 tries"),
    ],
)
def test_xrootd_refuses(xrootd, name, said):
    assert said in refused(f"root://host//{name}")


@pytest.mark.parametrize(
    ("url", "module", "said"),
    [
        ("s3://b/x", "boto3", "needs boto3: python -m pip install"),
        ("root://h//x", "XRootD", "needs its Python package"),
    ],
)
def test_package_that_is_missing(monkeypatch, url, module, said):
    monkeypatch.setitem(sys.modules, module, None)
    assert said in refused(url)
