"""Is this the way in? One connection that goes as far as a client's first request, and says where it failed.

kafka-python tries again until its time is up and then says that it could not bootstrap, whatever the reason was;
librdkafka names reasons in words of its own. So a broker is knocked at before a client with TLS or SASL is opened, and
behind one without that failed. Requests after the Kafka protocol's guide: SaslHandshake 1, SaslAuthenticate 0; SCRAM
after RFC 5802.
"""

import hashlib
import hmac
import secrets
import socket
import ssl
import struct
import time
from base64 import b64decode, b64encode
from typing import Final, NamedTuple

from sunup.limits import STREAM_BROKER_SECONDS_MAX
from sunup.stream.broker import BrokerError, Trouble
from sunup.stream.kafka.security import Security, read

_SECONDS: Final = STREAM_BROKER_SECONDS_MAX / 4
_REPLY_BYTES_MAX: Final = 64 * 1024  # far more than a broker answers; what is no answer looks like a large one
_HANDSHAKE: Final = (17, 1)  # key and version of a request
_AUTHENTICATE: Final = (36, 0)
_UNSUPPORTED: Final = 33  # error codes
_NO_SASL: Final = 34
_OTHER_HOST: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_WHERE: Final = "of [stream.security]"


def knock(servers: str, given: Security) -> None:
    """Raises BrokerError where the first server that can be reached does not let us in, or we do not trust it.

    Servers that cannot be reached, and one that is slow, are the client's affair: it tries them again.
    """
    until = time.monotonic() + _SECONDS
    for at in servers.split(","):
        host, _, port = at.rpartition(":")
        try:
            reached = socket.create_connection((host.strip("[]"), int(port)), max(0.1, until - time.monotonic()))
        except OSError:
            continue
        with reached:
            reached.settimeout(max(0.1, until - time.monotonic()))
            _Visit(at, host.strip("[]"), given).enter(reached)
        return


class _Reply(NamedTuple):
    code: int
    rest: bytes


class _Visit(NamedTuple):
    """At one server, "host:port"."""

    at: str
    host: str
    given: Security

    def enter(self, reached: socket.socket) -> None:
        try:
            with self._secured(reached) as line:
                self._introduced(line)
        except TimeoutError:
            return  # it is slow, which says nothing of whether it lets us in
        except ssl.SSLCertVerificationError as error:
            raise self._untrusted(error) from error
        except ssl.SSLError as error:
            raise self._no_tls(error) from error
        except (OSError, EOFError, ValueError, LookupError, struct.error) as error:  # also what is no broker's answer
            raise self._hung_up() from error

    def _secured(self, reached: socket.socket) -> socket.socket:
        if not self.given.tls:
            return reached
        return self.given.context().wrap_socket(reached, server_hostname=self.host)

    def _introduced(self, line: socket.socket) -> None:
        """Say who we are, or that we are nobody."""
        given = self.given
        name = (given.mechanism if given.sasl else "PLAIN").encode()
        try:
            code, rest = _ask(line, _HANDSHAKE, struct.pack(">h", len(name)) + name)
        except (ConnectionError, EOFError):
            if given.tls and not given.sasl:
                return  # TLS is what was to be seen; a broker other than Kafka's need not know the question
            raise
        if code == _NO_SASL:
            if given.sasl:
                raise _refused(f"the broker at {self.at} takes no SASL: check protocol {_WHERE}, {given.protocol}")
        elif not given.sasl:
            raise _refused(f"the broker at {self.at} wants SASL: check protocol {_WHERE}, {given.protocol}")
        elif code == _UNSUPPORTED:
            offered = ", ".join(_strings(rest))
            raise _refused(f"the broker at {self.at} takes {offered}: check mechanism {_WHERE}, {given.mechanism}")
        else:
            self._authenticated(line, read(given.username), read(given.password))

    def _authenticated(self, line: socket.socket, user: str, password: str) -> None:
        if self.given.mechanism == "PLAIN":
            code, _ = _say(line, f"\0{user}\0{password}")
        else:
            name = "sha256" if self.given.mechanism == "SCRAM-SHA-256" else "sha512"
            mine = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={secrets.token_hex(16)}"
            code, rest = _say(line, f"n,,{mine}")
            if not code:
                code, _ = _say(line, _proof(name, password, mine, _message(rest)))
        if code:
            what = f"refused the user {user!r}: check username, password and mechanism {_WHERE}, {self.given.mechanism}"
            raise _refused(f"the broker at {self.at} {what}")

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> BrokerError:
        why = f"TLS: the certificate of {self.at} is not trusted: {error.verify_message}"
        if error.verify_code in _OTHER_HOST:
            return _refused(
                f"{why.rstrip('.')}; name the broker as its certificate does, or see check_hostname {_WHERE}"
            )
        return _refused(f"{why}; check ca {_WHERE}")

    def _no_tls(self, error: ssl.SSLError) -> BrokerError:
        reason = (error.reason or "").lower().replace("_", " ")
        if "certificate" in reason or "unknown ca" in reason:  # the other side's alert
            what = f"TLS: the broker at {self.at} wants another client certificate ({reason})"
            return _refused(f"{what}: check certificate and key {_WHERE}")
        what = f"TLS: the broker at {self.at} does not speak it there ({reason}): check port and protocol {_WHERE}"
        return BrokerError(Trouble.UNREACHABLE, what)

    def _hung_up(self) -> BrokerError:
        if self.given.tls:
            what = "ended the connection in the TLS handshake: check port, protocol, and whether it wants a certificate"
        else:
            what = "ended the connection: it may want TLS; check port and protocol"
        return BrokerError(Trouble.UNREACHABLE, f"the broker at {self.at} {what} {_WHERE}")  # it may also be at its end


def _refused(message: str) -> BrokerError:
    return BrokerError(Trouble.NOT_PERMITTED, message)


# --- The protocol -----------------------------------------------------------------------------------------------------


def _ask(line: socket.socket, what: tuple[int, int], body: bytes) -> _Reply:
    request = struct.pack(">hhih", *what, 1, -1) + body
    line.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(line, 4))
    if not 6 <= size <= _REPLY_BYTES_MAX:
        raise EOFError
    reply = _exactly(line, size)
    return _Reply(struct.unpack_from(">h", reply, 4)[0], reply[6:])


def _say(line: socket.socket, message: str) -> _Reply:
    said = message.encode()
    return _ask(line, _AUTHENTICATE, struct.pack(">i", len(said)) + said)


def _exactly(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = line.recv(size - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def _strings(array: bytes) -> list[str]:
    found, at = [], 4
    for _ in range(struct.unpack_from(">i", array)[0]):
        (size,) = struct.unpack_from(">h", array, at)
        found.append(array[at + 2 : at + 2 + size].decode())
        at += 2 + size
    return found


def _message(rest: bytes) -> str:
    """What the broker's side of the mechanism said: bytes behind an error message, which there is none of."""
    (size,) = struct.unpack_from(">h", rest)
    return rest[2 + max(0, size) + 4 :].decode()


def _proof(name: str, password: str, mine: str, theirs: str) -> str:
    said = dict(part.split("=", 1) for part in theirs.split(","))
    salted = hashlib.pbkdf2_hmac(name, password.encode(), b64decode(said["s"]), int(said["i"]))
    key = hmac.digest(salted, b"Client Key", name)
    final = f"c=biws,r={said['r']}"
    signature = hmac.digest(hashlib.new(name, key).digest(), f"{mine},{theirs},{final}".encode(), name)
    return f"{final},p={b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()}"
