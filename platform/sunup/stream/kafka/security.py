"""How a Kafka broker is told who we are, and how we know that it is the broker: TLS and SASL, for every client.

The setting STREAM_SECURITY of a revision holds one `Security` as JSON. Files are read whenever a client is opened: a
password, certificate or authority that was replaced counts from the next opening on.
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sunup.errors import UsageError
from sunup.secret import Secret
from sunup.settings import STREAM_SECURITY
from sunup.stream.broker import BrokerError, Trouble

Protocol: TypeAlias = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism: TypeAlias = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class Security(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """[stream.security] of function.toml with its references resolved. `ca`, `certificate`, `key`: absolute paths of
    PEM files; without `ca` the machine's own authorities count."""

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = ""
    username: Secret = Secret()
    password: Secret = Secret()
    ca: str = ""
    certificate: str = ""
    key: str = ""
    key_password: Secret = Secret()
    check_hostname: bool = True

    @property
    def tls(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    def context(self) -> ssl.SSLContext:
        """What a TLS connection is opened with. Raises BrokerError, which names the file that is at fault."""
        at = self.ca
        try:
            made = ssl.create_default_context(cafile=self.ca or None)
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            made.check_hostname = self.check_hostname
            if self.certificate:
                at = self.certificate
                made.load_cert_chain(self.certificate, self.key or None, read(self.key_password))
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise _unreadable(at, self.key if at == self.certificate else "", error) from error
        return made


OPEN: Final = Security()  # neither TLS nor SASL


def security(settings: Mapping[str, str]) -> Security:
    """What a revision's settings say; without STREAM_SECURITY, neither TLS nor SASL."""
    given = settings.get(STREAM_SECURITY)
    return OPEN if given is None else msgspec.json.decode(given, type=Security)


def for_kafka_python(given: Security) -> dict[str, Any]:
    """kafka-python's settings. Raises BrokerError where a file cannot be read."""
    made: dict[str, Any] = {"security_protocol": given.protocol}
    if given.tls:
        # Its own context would take the password of the key from anybody who prints its settings.
        made |= {"ssl_context": given.context(), "ssl_check_hostname": given.check_hostname}
    if given.sasl:
        who = {"sasl_plain_username": read(given.username), "sasl_plain_password": read(given.password)}
        made |= {"sasl_mechanism": given.mechanism, **who}
    return made


def for_confluent(given: Security) -> dict[str, Any]:
    """confluent-kafka's settings (librdkafka's names). Raises BrokerError where a file cannot be read."""
    made: dict[str, Any] = {"security.protocol": given.protocol}
    if given.tls:
        given.context()  # its messages about files say less
        made["ssl.endpoint.identification.algorithm"] = "https" if given.check_hostname else "none"
        files = {
            "ssl.ca.location": given.ca,
            "ssl.certificate.location": given.certificate,
            "ssl.key.location": given.key,
            "ssl.key.password": read(given.key_password),
        }
        made |= {name: value for name, value in files.items() if value}
    if given.sasl:
        who = {"sasl.username": read(given.username), "sasl.password": read(given.password)}
        made |= {"sasl.mechanism": given.mechanism, **who}
    return made


def read(secret: Secret) -> str:
    """The value. Raises BrokerError: the stream's state then says which file, and goes on when it is there."""
    try:
        return secret.read()
    except UsageError as error:
        raise BrokerError(Trouble.NOT_PERMITTED, error.message) from error


def _unreadable(path: str, other: str, error: Exception) -> BrokerError:
    files = f"{path} and {other}" if other else path
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        why = error.strerror or "unreadable"
    else:
        why = "no PEM, no pair, or another password"
    return BrokerError(Trouble.NOT_PERMITTED, f"TLS: {files} cannot be used: {why}")
