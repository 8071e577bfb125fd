"""Where files come from: a public bucket, a web server, or a mirror on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, quote, urlsplit
from urllib.request import url2pathname

from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from berg.core import settings
from berg.core.exceptions import DownloadError, InvalidParameterError, OfflineError, listing

REGION = "us-west-2"  # of the public bucket
LOOPBACK = ("localhost", "127.0.0.1", "::1")
FORMS = "s3://bucket/prefix, https://host/prefix, file:///folder"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PATH_LETTERS = "/%:@!$&'()*+,;=~"  # what stays as it is: quoted already, or need not be
_S3_OPTIONS = {"region", "endpoint"}


@dataclass(frozen=True)
class Source:
    """A folder of files somewhere else; made by `parse_source`.

    Parameters
    ----------
    base
        Its URL, https, http or file, without a slash at the end.
    allow_http
        Plain http is taken from any host, not from this machine alone.
    redirect_hosts
        Hosts beside its own to which the server may send us.
    """

    base: str
    allow_http: bool = False
    redirect_hosts: frozenset[str] = frozenset()

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.base.startswith("file:")

    def url(self, path: str) -> str:
        """The URL of one of its files.

        >>> Source("https://example.org/berg").url("a b/c.npy")
        'https://example.org/berg/a%20b/c.npy'
        """
        return f"{self.base}/{quote(path)}"

    def file(self, path: str) -> Path:
        """The path of one of its files, if it is a folder of this machine."""
        return Path(url2pathname(urlsplit(self.base).path)) / path

    def check_redirect(self, url: str) -> None:
        """Raise DownloadError unless the server may send us to this URL."""
        parts, own = urlsplit(url), urlsplit(self.base)
        hosts = {own.hostname, *self.redirect_hosts}
        if own.scheme == "http" and own.hostname in LOOPBACK:
            hosts.update(LOOPBACK)
        if parts.hostname not in hosts or not _is_safe(parts, self.allow_http and own.scheme == "http"):
            host = f"{parts.hostname!a:.80}".strip("'")
            raise DownloadError(
                f"{self.base} sends us on to {parts.scheme}://{host}, which was not followed; it may send "
                f"us by https to {listing(sorted(str(host) for host in hosts))}. If you trust that host, name it:  "
                f'BERG().download(..., source=parse_source("{self.base}", redirect_hosts=["{host}"]))  '
                "with  from berg.transfer.source import parse_source"
            )

    def check_online(self, path: str) -> None:
        """Raise OfflineError if the file would have to come over the network and BERG_OFFLINE forbids it."""
        if not self.is_local and (setting := settings.offline()).value:
            allow = "unset BERG_OFFLINE" if os.environ.get("BERG_OFFLINE") else f"offline = false  in {setting.origin}"
            raise OfflineError(
                f"{path} is not here, and {setting.origin} forbids to fetch it from {self.base}. Allow it with:  "
                f"{allow}  , or fetch from a mirror on disk, file:///folder."
            )


def parse_source(
    text: str,
    *,
    region: str | None = None,
    endpoint: str | None = None,
    allow_http: bool = False,
    redirect_hosts: Iterable[str] = (),
) -> Source:
    """The source that a text names.

    Parameters
    ----------
    text
        ``s3://bucket/prefix`` (read without an account), ``https://host/prefix`` or ``file:///folder``.
    region, endpoint
        Of a bucket; also as ``s3://bucket?region=...&endpoint=https://...``.
    allow_http
        Take plain http from any host. From this machine it is always taken.
    redirect_hosts
        Hosts beside its own to which the server may send us.

    Raises
    ------
    InvalidParameterError
        If it is none of these, or holds a name or password.

    Examples
    --------
    >>> parse_source("s3://brain-encoding-response-generator").base
    'https://brain-encoding-response-generator.s3.us-west-2.amazonaws.com'
    """
    parts = _split(text)
    if parts.scheme == "file":
        return Source(_file_base(text, parts))
    if parts.scheme == "s3":
        text = _bucket_url(text, parts, region, endpoint)
        parts = _split(text)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise _no_source(text)
    if parts.query or parts.fragment or not _is_safe(parts, allow_http):
        raise InvalidParameterError(
            f"'{parts.scheme}://{parts.hostname}' cannot be used: a source has no name or password, no '?' and no '#' "
            f"in it, and plain http is for this machine ({listing(LOOPBACK)}) or allow_http=True. Write https://..."
        )
    base = parts._replace(path=quote(parts.path.rstrip("/"), safe=_PATH_LETTERS)).geturl()
    return Source(base, allow_http, frozenset(redirect_hosts))


def _split(text: str) -> SplitResult:
    """The parts of a URL; an error if it is none for whoever has to ask there."""
    try:
        parts = urlsplit(text.strip())
        if parts.scheme in ("http", "https"):
            parse_url(text.strip())
    except (ValueError, HTTPError) as error:
        raise _no_source(text) from error
    return parts


def _no_source(text: str) -> InvalidParameterError:
    return InvalidParameterError(f"'{settings.without_secrets(text)}' is no source of files; it is one of {FORMS}.")


def _is_safe(parts: SplitResult, allow_http: bool) -> bool:
    encrypted = parts.scheme == "https" or (parts.scheme == "http" and (allow_http or parts.hostname in LOOPBACK))
    return encrypted and "@" not in parts.netloc


def _file_base(text: str, parts: SplitResult) -> str:
    folder = Path(url2pathname(parts.path))
    if parts.netloc not in ("", "localhost") or not folder.is_dir():
        shown = settings.without_secrets(text)
        raise InvalidParameterError(f"'{shown}' is no folder of this machine; write file:///folder, three slashes.")
    return folder.absolute().as_uri()


def _bucket_url(text: str, parts: SplitResult, region: str | None, endpoint: str | None) -> str:
    """A bucket that everybody may read is a web server; asked as such, no key can be looked for or sent."""
    options = {key: values[0] for key, values in parse_qs(parts.query).items()}
    if not _BUCKET.fullmatch(parts.netloc) or not set(options) <= _S3_OPTIONS or parts.fragment:
        raise InvalidParameterError(
            f"'{settings.without_secrets(text)}' names no bucket; write s3://bucket/prefix, perhaps with "
            "?region=us-west-2 or &endpoint=https://..."
        )
    region, endpoint = region or options.get("region", REGION), endpoint or options.get("endpoint")
    if endpoint or "." in parts.netloc:  # a dot in a bucket's name would not match the certificate of *.s3
        base = f"{(endpoint or f'https://s3.{region}.amazonaws.com').rstrip('/')}/{parts.netloc}"
    else:
        base = f"https://{parts.netloc}.s3.{region}.amazonaws.com"
    return base + quote(parts.path.rstrip("/"))
