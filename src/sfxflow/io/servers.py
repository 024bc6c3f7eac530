"""Reading a file at a server from its beginning to its end: HTTP with the standard library, S3 with boto3, XRootD with its Python package.

Credentials come from where the user's other programs have them, never from the config: a netrc file, BEARER_TOKEN or BEARER_TOKEN_FILE for
https; what boto3 looks for (AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws, ...) for s3; what XRootD looks for (X509_USER_PROXY,
BEARER_TOKEN_FILE, ...) for root.
"""

import base64
import contextlib
import email.utils
import http.client
import netrc
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import sfxflow
from sfxflow.errors import InputError
from sfxflow.io.urls import without_identity

#: Seconds without a byte after which a server is given up.
_PATIENCE = 60
_BLOCK = 1 << 20
_INSTALL = "python -m pip install 'sfxflow[storage]', or"


class TryAgain(Exception):
    """A server or the way to it failed, which may pass: the message says how."""


@dataclass(frozen=True)
class RemoteFile:
    """
    A file at a server.

    Attributes
    ----------
    size : int or None
        Bytes; None where the server does not say.
    etag : str
        What the server calls the present content; empty where it has no name for it.
    modified : float or None
        Seconds since 1970.
    blocks : iterator of bytes
        The content.
    """

    size: int | None
    etag: str
    modified: float | None
    blocks: Iterator[bytes]


def open_remote(url):
    """
    Begin to read a file.

    Parameters
    ----------
    url : str

    Returns
    -------
    context manager of RemoteFile

    Raises
    ------
    InputError
        There is no such file, it may not be read, or a package is missing.
    TryAgain
        The server does not answer, or answers that it can't now; also while the blocks are read.
    """
    url = without_identity(url)
    scheme = url.partition("://")[0].lower()
    return {"http": _http, "https": _http, "s3": _s3, "root": _xrootd, "roots": _xrootd}[scheme](url)


def _refused(url, status, words):
    """InputError or TryAgain for a status of HTTP, which S3 has too."""
    if status in (404, 410):
        return InputError(
            f"{url}: the server has no such file ({status} {words}); correct the address in the table of the runs"
        )
    if status in (401, 403):
        return InputError(
            f"{url}: the server does not let you read it ({status} {words}); docs/storage.md says where credentials are looked for"
        )
    if status in (408, 425, 429) or status >= 500:
        return TryAgain(f"the server answers {status} {words}")
    return InputError(f"{url}: the server answers {status} {words}")


# ---- HTTP


@contextlib.contextmanager
def _http(url):
    parts = urlsplit(url)
    # What is quoted stays as it is.
    request = urllib.request.Request(parts._replace(path=quote(parts.path, safe="/%:@!$&'()*+,;=~")).geturl())
    request.add_header("User-Agent", f"sfxflow/{sfxflow.__version__}")
    request.add_header("Accept-Encoding", "identity")
    if credentials := _http_credentials(parts):
        # Not for the servers that this one may send us to.
        request.add_unredirected_header("Authorization", credentials)
    try:
        response = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        raise _refused(url, error.code, error.reason) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise InputError(
                f"{url}: the server's certificate is not trusted ({error.reason.verify_message}); SSL_CERT_FILE names those that are"
            ) from None
        raise TryAgain(f"{_words(error.reason)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise TryAgain(_words(error)) from None
    with response:
        if response.headers.get_content_type() == "text/html":
            raise InputError(f"{url}: the server sends a web page instead of the file; does it want a login?")
        length = response.headers.get("Content-Length", "")
        modified = email.utils.parsedate_tz(response.headers.get("Last-Modified", ""))
        yield RemoteFile(
            size=int(length) if length.isdecimal() else None,
            etag=response.headers.get("ETag", "").removeprefix("W/").strip('"'),
            modified=email.utils.mktime_tz(modified) if modified else None,
            blocks=_blocks_of(response),
        )


def _blocks_of(response):
    try:
        while block := response.read(_BLOCK):
            yield block
    except http.client.IncompleteRead as error:
        # The caller counts: it says how much is missing.
        yield error.partial
    except (OSError, http.client.HTTPException) as error:
        raise TryAgain(_words(error)) from None


def _words(error):
    """An error's own words; for a time-out which one."""
    if isinstance(error, TimeoutError):
        return f"no answer for {_PATIENCE} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _http_credentials(parts):
    """Value of the header Authorization; empty where there are none for this server. A token is not sent in the open."""
    if parts.scheme.lower() == "https":
        token = os.environ.get("BEARER_TOKEN", "")
        if not token and (path := os.environ.get("BEARER_TOKEN_FILE")):
            try:
                with open(path, encoding="ascii") as handle:
                    token = handle.read()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"BEARER_TOKEN_FILE: {path} can't be read ({error})") from None
        if token.strip():
            return f"Bearer {token.strip()}"
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(parts.hostname)
    except FileNotFoundError:
        return ""
    except (OSError, netrc.NetrcParseError) as error:
        raise InputError(f"{os.environ.get('NETRC') or '~/.netrc'}: can't be read ({error})") from None
    if not known:
        return ""
    return "Basic " + base64.b64encode(f"{known[0]}:{known[2]}".encode()).decode()


# ---- S3


@contextlib.contextmanager
def _s3(url):
    try:
        import boto3
        import botocore
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    except ImportError:
        raise InputError(f"{url}: reading from S3 needs boto3: {_INSTALL} boto3") from None
    parts = urlsplit(url)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    if not bucket or not key:
        raise InputError(f"{url}: s3://BUCKET/KEY is expected")
    patience = {"connect_timeout": _PATIENCE, "read_timeout": _PATIENCE, "retries": {"total_max_attempts": 1}}
    try:
        try:
            found = boto3.Session().client("s3", config=Config(**patience)).get_object(Bucket=bucket, Key=key)
        except NoCredentialsError:
            # A public bucket needs none.
            unsigned = Config(signature_version=botocore.UNSIGNED, **patience)
            found = boto3.Session().client("s3", config=unsigned).get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = error.response.get("Error", {})
        raise _refused(url, status, said.get("Message") or said.get("Code", "")) from None
    except (BotoCoreError, ValueError) as error:
        raise _of_boto3(url, error) from None
    with contextlib.closing(found["Body"]) as body:
        yield RemoteFile(
            size=found.get("ContentLength"),
            etag=found.get("ETag", "").strip('"'),
            modified=found["LastModified"].timestamp() if "LastModified" in found else None,
            blocks=_blocks_of_s3(body),
        )


def _blocks_of_s3(body):
    from botocore.exceptions import BotoCoreError, IncompleteReadError

    try:
        while block := body.read(_BLOCK):
            yield block
    except IncompleteReadError:
        return
    except (BotoCoreError, OSError) as error:
        raise TryAgain(_words(error)) from None
    except Exception as error:
        # boto3 lets errors of urllib3 through, which it may bring along itself.
        if type(error).__module__.partition(".")[0] in ("urllib3", "botocore"):
            raise TryAgain(str(error)) from None
        raise


def _of_boto3(url, error):
    name = type(error).__name__
    if name in (
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
        "HTTPClientError",
    ):
        return TryAgain(str(error))
    return InputError(f"{url}: boto3 says: {error}; docs/storage.md says where credentials are looked for")


# ---- XRootD


@contextlib.contextmanager
def _xrootd(url):
    try:
        from XRootD import client
    except ImportError:
        raise InputError(f"{url}: reading from XRootD needs its Python package: {_INSTALL} xrootd") from None
    file = client.File()
    _require_ok(url, file.open(url, timeout=_PATIENCE)[0])
    try:
        status, about = file.stat(timeout=_PATIENCE)
        _require_ok(url, status)
        yield RemoteFile(
            size=about.size, etag="", modified=float(about.modtime), blocks=_blocks_of_xrootd(url, file, about.size)
        )
    finally:
        file.close()


def _blocks_of_xrootd(url, file, size):
    for start in range(0, size, 4 * _BLOCK):
        status, block = file.read(start, min(4 * _BLOCK, size - start), timeout=_PATIENCE)
        _require_ok(url, status)
        yield block


#: kXR_NotAuthorized, kXR_NotFound, kXR_isDirectory, kXR_AuthFailed (XRootD protocol, XErrorCode) as statuses of HTTP.
_OF_XROOTD = {3010: 403, 3011: 404, 3016: 404, 3030: 401}


def _require_ok(url, status):
    """InputError or TryAgain for what XRootD says unless it is well."""
    if not status.ok:
        said = status.message.strip()
        raise _refused(url, _OF_XROOTD[status.errno], said) if status.errno in _OF_XROOTD else TryAgain(said)
