"""Connections to a server, straight or through the proxy of this machine's settings."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import make_headers, parse_url

from berg.core.exceptions import InvalidParameterError, MissingExtraError
from berg.core.settings import without_query, without_secrets
from berg.transfer.bounded_calls import THREADS, uses_socket
from berg.transfer.source import LOOPBACK

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_SOCKS = ("socks5", "socks5h", "socks4", "socks4a")


def connection_pool(base: str, n_connections: int) -> urllib3.PoolManager:
    """Connections to the server of a URL; through a proxy if this machine's settings name one.

    Raises
    ------
    InvalidParameterError
        If the setting of the proxy is no address.
    MissingExtraError
        If it speaks SOCKS, and PySocks is not installed.
    """
    scheme, host = urlsplit(base).scheme, urlsplit(base).hostname or ""
    options: dict[str, Any] = {"maxsize": n_connections}
    if scheme == "http" and host in LOOPBACK:
        return _watched(urllib3.PoolManager(**options))
    context = ssl.create_default_context()  # what the system trusts, and SSL_CERT_FILE
    context.load_verify_locations(certifi.where())  # for systems without certificates
    proxy = None if host in LOOPBACK or proxy_bypass(host) else _proxy_setting(scheme, getproxies())
    if proxy is None:
        return _watched(urllib3.PoolManager(ssl_context=context, **options))
    return _watched(_through(*proxy, ssl_context=context, **options))


def _proxy_setting(scheme: str, settings: Mapping[str, str]) -> tuple[str, str] | None:
    """The name of the setting, and the proxy; None if there is none for this scheme."""
    found = ((f"{kind}_proxy".upper(), settings.get(kind, "").strip()) for kind in (scheme, "all"))
    return next((pair for pair in found if pair[1]), None)


def _through(setting: str, proxy: str, **options: Any) -> urllib3.PoolManager:
    """Connections through a proxy, written as curl, pip and git take it: http:// may be left out."""
    url = proxy if _SCHEME.match(proxy) else f"http://{proxy}"
    try:
        parts = parse_url(url)
        if parts.scheme not in ("http", "https", *_SOCKS) or not parts.host:
            raise LocationParseError(url)
        if parts.scheme in _SOCKS:
            return _through_socks(setting, url, **options)
        headers = make_headers(proxy_basic_auth=unquote(parts.auth)) if parts.auth else None
        return urllib3.ProxyManager(parts._replace(auth=None).url, proxy_headers=headers, **options)
    except (HTTPError, ValueError) as error:
        raise InvalidParameterError(
            f"{setting} is '{without_secrets(proxy)}', which is no address of a proxy. Write http://HOST:PORT, "
            f"https://HOST:PORT or socks5h://HOST:PORT, or use none with:  unset {setting} {setting.lower()}"
        ) from error


def _through_socks(setting: str, url: str, **options: Any) -> urllib3.PoolManager:
    if find_spec("socks") is None:
        raise MissingExtraError(
            f"{setting} names a SOCKS proxy, {without_secrets(url)}, which needs PySocks:  pip install pysocks"
        )
    from urllib3.contrib.socks import SOCKSProxyManager

    return SOCKSProxyManager(url, **options)


def _watched(pool: urllib3.PoolManager) -> urllib3.PoolManager:
    """The same, with connections that tell which socket they wait for."""
    for name in ("urllib3.connection", "urllib3.connectionpool"):
        logging.getLogger(name).addFilter(_discreet)
    kinds: dict[str, Any] = pool.pool_classes_by_scheme
    pool.pool_classes_by_scheme = {scheme: _watched_class(kind) for scheme, kind in kinds.items()}
    return pool


def _watched_class(kind: Any) -> Any:
    connection = type(f"Watched{kind.ConnectionCls.__name__}", (_Watched, kind.ConnectionCls), {})
    return type(f"Watched{kind.__name__}", (kind,), {"ConnectionCls": connection})


def _discreet(record: logging.LogRecord) -> bool:
    """Keep tracebacks (of any odd header) and keys in addresses out of what urllib3 logs of our connections."""
    if record.threadName != THREADS:
        return True
    if isinstance(record.args, tuple):
        record.args = tuple(without_query(text) if isinstance(text, str) else text for text in record.args)
    return record.exc_info is None


class _Watched:
    """Beside a connection of urllib3: tells `berg.transfer.bounded_calls` the socket, when it is made and when used."""

    def _new_conn(self) -> Any:
        opened = super()._new_conn()  # type: ignore[misc]
        uses_socket(opened)
        return opened

    def getresponse(self) -> Any:
        uses_socket(self.sock)  # type: ignore[attr-defined]
        return super().getresponse()  # type: ignore[misc]
