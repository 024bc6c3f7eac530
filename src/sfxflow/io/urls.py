"""Addresses of files at a server, and what they say of the file's identity: https://host/run1.h5#bytes=12345&etag=abc.

The part after # is never sent. It makes a file that was replaced another input: the address in the table of the runs changes, and with it
the parameters of the rules that read it, so that nothing has to be asked at a server to know what is to be computed again.
"""

import re
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

#: Kinds of servers: HTTP, S3, XRootD.
SCHEMES = ("http", "https", "s3", "root", "roots")


def is_remote(name):
    """Whether a name of a file is an address at a server."""
    return str(name).partition("://")[0].lower() in SCHEMES and "://" in str(name)


def without_identity(url):
    """An address without what stands after #; any other name as it is."""
    return url.partition("#")[0] if is_remote(url) else url


def identity_of(url):
    """
    What an address says of its file.

    Parameters
    ----------
    url : str

    Returns
    -------
    dict of str to str
        Of `bytes`, `etag`, `modified` (seconds since 1970) those that it has.
    """
    values = parse_qs(url.partition("#")[2])
    return {name: values[name][-1] for name in ("bytes", "etag", "modified") if name in values}


def with_identity(url, size, etag, modified):
    """
    An address that says which file is meant.

    Parameters
    ----------
    url : str
    size : int or None
        Bytes.
    etag : str
        What the server calls the present content; empty where it has no name for it: then the time of its making stands for it.
    modified : float or None
        Seconds since 1970.
    """
    known = {"bytes": size, "etag": etag or None}
    known["modified"] = None if etag or modified is None else int(modified)
    text = urlencode({name: value for name, value in known.items() if value is not None})
    return without_identity(url) + (f"#{text}" if text else "")


def file_name(url):
    """Last part of an address, with nothing in it that would be a nuisance in a path; 'file' where there is none."""
    name = PurePosixPath(unquote(urlsplit(without_identity(url)).path)).name
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", name).strip(".") or "file"
