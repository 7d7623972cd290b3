"""Requests to a registry: connections, TLS, proxies, logins, and attempts within bounds."""

import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import urllib3
from urllib3 import exceptions

from sunup import __version__
from sunup.engine.kubernetes.image.registry.login import Login, find_login
from sunup.engine.kubernetes.image.registry.reference import Address, is_loopback
from sunup.engine.kubernetes.image.registry.refusal import Answer, unreached
from sunup.engine.kubernetes.image.registry.token import Keyring
from sunup.errors import ImageError
from sunup.limits import (
    IMAGE_ANSWER_SECONDS_MAX,
    IMAGE_BLOCK_BYTES,
    IMAGE_CONNECT_SECONDS_MAX,
    IMAGE_PAUSE_SECONDS,
    IMAGE_PAUSE_SECONDS_MAX,
    IMAGE_REDIRECTS_MAX,
    IMAGE_TEXT_BYTES_MAX,
    IMAGE_TRIES_MAX,
)

PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})  # what may be otherwise next time
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_FINAL: Final = (exceptions.NameResolutionError, exceptions.SSLError, exceptions.LocationValueError)
CERTIFICATES: Final = Path("/etc/docker/certs.d")  # HOST/ca.crt, HOST/client.cert and .key: as Docker has it


class Body(NamedTuple):
    """What is sent: `open` is called for every attempt, and `size` bytes of it are sent."""

    open: Callable[[], BinaryIO]
    size: int


class _Request(NamedTuple):
    method: str
    where: str
    headers: Mapping[str, str] = {}
    body: Body | None = None
    seconds_max: float = IMAGE_ANSWER_SECONDS_MAX


class Wire:
    """Speaks to one registry. `login`: whom it was told we are, once it asked; `pause` waits between attempts."""

    def __init__(
        self,
        address: Address,
        *,
        environment: Mapping[str, str] = os.environ,
        certificates: Path = CERTIFICATES,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.address = address
        self._environment = environment
        self._pause = pause
        self._certificates = certificates / address.host
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._keys: Keyring | None = None
        self.login = Login()

    def __repr__(self) -> str:
        return f"Wire({self.address.url})"

    def send(
        self,
        method: str,
        where: str,
        *,
        scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        tries: int = IMAGE_TRIES_MAX,
        seconds_max: float = IMAGE_ANSWER_SECONDS_MAX,
    ) -> Answer:
        """The answer to a request, whatever its status. `where`: a path of the registry, or a URL it named; `scopes`:
        what a token for it must cover. Raises ImageError when the registry cannot be reached in `tries` attempts."""

        def once() -> Answer:
            return _whole(self._authorized(_Request(method, where, headers or {}, body, seconds_max), scopes))

        return self._tried(once, tries)

    def receive(self, where: str, *, scopes: tuple[str, ...], into: Callable[[], BinaryIO]) -> Answer:
        """GET a blob, written to what `into` gives for each attempt; the answer has no body then, unless it is an
        error's."""

        def once() -> Answer:
            response = self._authorized(_Request("GET", where), scopes)
            if response.status != 200:
                return _whole(response)
            target = into()
            for block in response.stream(IMAGE_BLOCK_BYTES, decode_content=False):
                target.write(block)
            response.release_conn()
            return Answer(200, response.headers, b"")

        return self._tried(once, IMAGE_TRIES_MAX)

    def rest(self, attempt: int, answer: Answer | None) -> None:
        """Wait before attempt number `attempt`, counted from 0: twice as long each time, or as the registry says."""
        usual = IMAGE_PAUSE_SECONDS * 2.0 ** (attempt - 1)
        text = answer.headers.get("Retry-After", "") if answer is not None else ""
        self._pause(min(float(text) if text.isdecimal() else usual, IMAGE_PAUSE_SECONDS_MAX))

    def _tried(self, once: Callable[[], Answer], tries: int) -> Answer:
        """What `once` gives, tried again while it may pass."""
        answer: Answer | None = None
        for attempt in range(tries):
            if attempt:
                self.rest(attempt, answer)
            try:
                answer = once()
            except (exceptions.HTTPError, ConnectionError, TimeoutError) as error:
                if attempt + 1 == tries or isinstance(error, _FINAL):
                    hint = f"Put the certificate it was signed with into {self._certificates}/ca.crt."
                    raise unreached(error, host=self.address.host, plain=self.address.plain, hint=hint) from error
                answer = None
            else:
                if answer.status not in PASSING:
                    break
        assert answer is not None  # the last attempt raises
        return answer

    def _authorized(self, request: "_Request", scopes: tuple[str, ...]) -> urllib3.BaseHTTPResponse:
        """One request, and again with a login when one is wanted."""
        url = self.resolve(request.where)
        known = self._keys.header(scopes) if self._keys is not None else ""
        response = self._sent(request, url, known)
        if response.status != 401 or not self._own(url):
            return response
        if self._keys is None:
            self.login = find_login(self.address.host, self._environment)
            self._keys = Keyring(self.login, self._ask, plain=self.address.plain)
        header = self._keys.open(response.headers.getlist("WWW-Authenticate"), scopes)
        if not header:
            return response
        response.drain_conn()
        return self._sent(request, url, header)

    def resolve(self, where: str) -> str:
        """The URL of a path, or of a place the registry named. Raises ImageError where it is less safe."""
        url = urljoin(self.address.url, where)
        if url.startswith("http://") and not self.address.plain:
            raise ImageError(
                f"{self.address.host} speaks TLS and sends us on to {url.partition('?')[0]}, in plain. Behind a "
                "proxy it must be told so: X-Forwarded-Proto, or `relativeurls: true` in its configuration."
            )
        return url

    def _own(self, url: str) -> bool:
        return urlsplit(url).netloc == urlsplit(self.address.url).netloc

    def _ask(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        """A request to whoever makes tokens."""
        request = _Request(method, url, headers)
        return self._tried(lambda: _whole(self._exchange(request, url, headers, body)), IMAGE_TRIES_MAX)

    def _sent(self, request: "_Request", url: str, authorization: str) -> urllib3.BaseHTTPResponse:
        """One request, followed to where the registry keeps things; the login stays with the registry."""
        for _ in range(IMAGE_REDIRECTS_MAX):
            headers = dict(request.headers)
            if authorization and self._own(url):
                headers["Authorization"] = authorization
            if request.body is None:
                response = self._exchange(request, url, headers, None)
            else:
                with request.body.open() as data:
                    headers["Content-Length"] = str(request.body.size)
                    response = self._exchange(request, url, headers, data)
            moved = response.status in _MOVED and "Location" in response.headers
            if not moved or request.method not in ("GET", "HEAD"):
                return response
            response.drain_conn()
            url = self.resolve(urljoin(url, response.headers["Location"]))
        raise ImageError(f"{self.address.host} sends us from one place on to the next, {IMAGE_REDIRECTS_MAX} times.")

    def _exchange(
        self, request: "_Request", url: str, headers: Mapping[str, str], body: BinaryIO | bytes | None
    ) -> urllib3.BaseHTTPResponse:
        return self._pool(url).request(
            request.method,
            url,
            body=body,
            headers={"User-Agent": f"sunup/{__version__}", **headers},
            timeout=urllib3.Timeout(connect=IMAGE_CONNECT_SECONDS_MAX, read=request.seconds_max),
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections for a URL: through the proxy that the environment names, or straight."""
        parts = urlsplit(url)
        straight = is_loopback(parts.netloc) or bool(proxy_bypass(parts.hostname or ""))
        proxy = "" if straight else getproxies_environment().get(parts.scheme, "")
        if proxy not in self._pools:
            shared: dict[str, Any] = {"ssl_context": self._tls(), "blocksize": IMAGE_BLOCK_BYTES}
            self._pools[proxy] = _through(proxy, shared) if proxy else urllib3.PoolManager(**shared)
        return self._pools[proxy]

    def _tls(self) -> ssl.SSLContext:
        """The system's certificates (SSL_CERT_FILE names others), and what Docker has been given for this host."""
        context = ssl.create_default_context()
        try:
            for ca in sorted(self._certificates.glob("*.crt")):
                context.load_verify_locations(ca)
            for certificate in sorted(self._certificates.glob("*.cert")):
                context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise ImageError(f"A certificate in {self._certificates} cannot be used: {error}.") from error
        return context


def _whole(response: urllib3.BaseHTTPResponse) -> Answer:
    """An answer with its body, which is short."""
    body = response.read(IMAGE_TEXT_BYTES_MAX + 1, decode_content=True) or b""
    if len(body) > IMAGE_TEXT_BYTES_MAX:
        response.close()
        raise ImageError(f"A registry answers with more than {IMAGE_TEXT_BYTES_MAX:,} bytes where a text is expected.")
    response.release_conn()
    return Answer(response.status, urllib3.HTTPHeaderDict(response.headers), body)


def _through(proxy: str, shared: dict[str, Any]) -> urllib3.ProxyManager:
    """The connections through a proxy, whose URL may hold a user and a password."""
    login = urllib3.util.parse_url(proxy).auth
    headers = urllib3.util.make_headers(proxy_basic_auth=unquote(login)) if login else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **shared)
