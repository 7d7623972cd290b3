"""A Kafka broker that lets only those in who say who they are: over TLS, with passwords, with client certificates."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion
from tests.kafka_fixture import BACKOFF, LOOPBACK, KafkaServer
from tests.ports import free_port

USER: Final = "scorer"
PASSWORD: Final = "s3cret, \"quoted\" 'and' \\ long"  # what settings files and shells like least
KEY_PASSWORD: Final = "of the key"
SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")


class Certificates:
    """An authority, a broker's certificate for `host`, a client's whose key has a password; another authority."""

    def __init__(self, folder: Path, host: str = LOOPBACK) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.ca, self.stranger = folder / "ca.pem", folder / "stranger.pem"
        for authority in (self.ca, self.stranger):
            self._openssl(
                *("req", "-x509", *self._new_key(authority.with_suffix(".key")), "-nodes", "-days", "2"),
                *("-subj", f"/CN={authority.stem}", "-addext", "keyUsage=keyCertSign", "-out", authority),
            )
        self.server, self.server_key = self._signed("server", f"IP:{host}")
        self.elsewhere, self.elsewhere_key = self._signed("elsewhere", "DNS:kafka.example")
        self.client, plain = self._signed("client", "DNS:client")
        self.client_key = folder / "client-secret.key"
        self._openssl(
            *("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", f"pass:{KEY_PASSWORD}"),
            *("-in", plain, "-out", self.client_key),
        )

    def keystore(self, certificate: Path, key: Path) -> Path:
        """Both in one file, as Kafka reads PEM."""
        both = self._folder / f"{certificate.stem}-both.pem"
        both.write_bytes(key.read_bytes() + certificate.read_bytes() + self.ca.read_bytes())
        return both

    def _signed(self, name: str, subject: str) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        self._openssl(
            *("req", "-x509", *self._new_key(key), "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName={subject}", "-addext", "basicConstraints=critical,CA:FALSE"),
            *("-CA", self.ca, "-CAkey", self.ca.with_suffix(".key"), "-out", certificate),
        )
        return certificate, key

    def _new_key(self, path: Path) -> tuple[str, ...]:
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(path)

    def _openssl(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class SecuredKafka(KafkaServer):
    """One broker with a listener for each way in. `ways`: protocol -> "host:port"; `servers` is the open one."""

    def __init__(self, folder: Path, host: str = LOOPBACK) -> None:
        self.certificates = Certificates(folder / "certificates", host)
        self.ways = {name: f"{host}:{free_port()}" for name in ("SASL_SSL", "SASL_PLAINTEXT", "SSL", "ELSEWHERE")}
        super().__init__(folder, host)
        listeners = {"PLAINTEXT": self.servers, **self.ways}
        shown = ",".join(f"{name}://{at}" for name, at in listeners.items())
        self._properties += [f"{name}={value}" for name, value in self._settings().items()]
        self._properties += [f"advertised.listeners={shown}"]
        self._properties += [f"listeners={shown},CONTROLLER://127.0.0.2:{self.port - 1}"]

    def start(self) -> None:
        super().start()
        with KafkaAdminClient(bootstrap_servers=self.servers, **BACKOFF) as admin:
            for mechanism in SCRAM:
                refused = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, mechanism, PASSWORD)])
                assert refused == {USER: None}, refused

    def _settings(self) -> dict[str, Any]:
        made = self.certificates
        protocols = ("CONTROLLER:PLAINTEXT", "PLAINTEXT:PLAINTEXT", "SASL_SSL:SASL_SSL", "SSL:SSL", "ELSEWHERE:SSL")
        settings: dict[str, Any] = {
            "listener.security.protocol.map": ",".join((*protocols, "SASL_PLAINTEXT:SASL_PLAINTEXT")),
            "sasl.enabled.mechanisms": ",".join(("PLAIN", *SCRAM)),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": made.keystore(made.server, made.server_key),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": made.ca,
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.elsewhere.ssl.keystore.type": "PEM",
            "listener.name.elsewhere.ssl.keystore.location": made.keystore(made.elsewhere, made.elsewhere_key),
        }
        escaped = json.dumps(PASSWORD)  # as JAAS quotes it
        # A properties file takes a backslash away once more.
        plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}={escaped};"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        for listener in ("sasl_ssl", "sasl_plaintext"):
            at = f"listener.name.{listener}"
            settings[f"{at}.plain.sasl.jaas.config"] = plain.replace("\\", "\\\\")
            settings |= {f"{at}.{one.lower()}.sasl.jaas.config": scram for one in SCRAM}
        return settings


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """Shared by the session: use topic and group names of your own."""
    server = SecuredKafka(tmp_path_factory.mktemp("secured-kafka"))
    server.start()
    yield server
    server.kill()
