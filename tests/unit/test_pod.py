"""What a pod's environment says, how long one that is told to end stays, and its last words."""

import json
import socket
import time
from pathlib import Path

import pytest

from sunup.access.rights import _may_trace
from sunup.errors import BundleDamaged, CommandError, EngineError, ProofFailed, UsageError
from sunup.limits import POD_GRACE_SECONDS, POD_INTAKE_SECONDS_MAX, POD_QUIET_SECONDS, TERMINATION_BYTES_MAX
from sunup.link.process import started
from sunup.serve.pod.ending import Exit, exit_of, last_words
from sunup.serve.pod.environment import read
from sunup.serve.pod.life import Leaving
from sunup.serve.pod.listening import bind


def test_without_variables_a_pod_serves_calls() -> None:
    found = read({})
    assert (found.role, str(found.bundle), found.digest, found.revision) == ("calls", "/bundle", "", 1)
    assert (found.settings, str(found.state), found.api_keys) == ({}, "/tmp/sunup", None)
    assert (found.port, found.metrics_port) == (8080, 9464)


def test_an_empty_variable_counts_as_absent() -> None:
    own = [f"SUNUP_{name}" for name in ("ROLE", "BUNDLE", "DIGEST", "SETTINGS", "REVISION", "STATE", "API_KEYS")]
    assert read(dict.fromkeys([*own, "PORT", "METRICS_PORT", "K_REVISION"], "")) == read({})


@pytest.mark.parametrize(
    ("variables", "revision"),
    [
        ({"K_REVISION": "fraud-00003"}, 3),
        ({"K_REVISION": "fraud-v2-00041"}, 41),
        ({"K_REVISION": "fraud"}, 1),
        ({"K_REVISION": "fraud-00000"}, 1),
        ({"K_REVISION": "fraud-00003", "SUNUP_REVISION": "12"}, 12),
    ],
)
def test_the_revision(variables: dict[str, str], revision: int) -> None:
    assert read(variables).revision == revision


@pytest.mark.parametrize("said", ["0", "-1", "1.5", "three", "1" * 10])
def test_a_revision_is_a_whole_number_from_1_on(said: str) -> None:
    with pytest.raises(UsageError, match="SUNUP_REVISION"):
        read({"SUNUP_REVISION": said})


def test_settings_are_read_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"features_url": "redis://user:hunter2@host/0"}')
    found = read({"SUNUP_SETTINGS": str(path)})
    assert found.settings == {"features_url": "redis://user:hunter2@host/0"}
    assert "hunter2" not in repr(found)


def test_a_settings_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read({"SUNUP_SETTINGS": str(path)})


# --- Leaving ----------------------------------------------------------------------------------------------------------


def test_who_is_quiet_takes_none_any_more() -> None:
    leaving = Leaving(100.0)
    quiet = 100.0 + POD_QUIET_SECONDS
    assert not leaving.takes_none(100.5, last_call=0.0, inflight=0), "routers do not know yet"
    assert leaving.takes_none(quiet, last_call=0.0, inflight=0)
    assert not leaving.takes_none(quiet, last_call=100.8, inflight=0), "calls come still"
    assert not leaving.takes_none(quiet, last_call=0.0, inflight=1)


def test_calls_are_not_taken_for_ever() -> None:
    leaving = Leaving(100.0)
    late = 100.0 + POD_INTAKE_SECONDS_MAX
    assert not leaving.takes_none(late - 0.1, last_call=late - 0.2, inflight=200)
    assert leaving.takes_none(late, last_call=late, inflight=200)
    assert not leaving.gives_up(late)
    assert leaving.gives_up(100.0 + POD_GRACE_SECONDS)


# --- Ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), Exit.CONFIGURATION),
        (BundleDamaged("x"), Exit.BUNDLE),
        (ProofFailed("x"), Exit.PROOF),
        (EngineError("x"), Exit.FAILED),
        (CommandError("x"), Exit.FAILED),
        (KeyError("x"), Exit.FAILED),
        (KeyboardInterrupt(), Exit.FAILED),
    ],
)
def test_exit_codes(error: BaseException, code: Exit) -> None:
    assert exit_of(error) is code


def test_last_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    log.write_text("of the start before, which was longer than what is said now: " * 10)
    last_words(ProofFailed("Größer als erlaubt."), log=log)
    said = capfd.readouterr().err
    assert said == log.read_text() == '{"code": "proof_failed", "message": "Größer als erlaubt."}\n'


def test_last_words_fit_what_kubernetes_keeps(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    last_words(UsageError('ü"' * 4000), log=log)
    data = log.read_bytes()
    assert len(data) <= TERMINATION_BYTES_MAX
    assert json.loads(data)["message"].startswith('ü"ü')
    assert capfd.readouterr().err.encode() == data


def test_last_words_make_no_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    last_words(KeyError("x"), log=tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []
    assert json.loads(capfd.readouterr().err) == {"code": "internal", "message": "KeyError('x'); the log says more."}


# --- Small facts ------------------------------------------------------------------------------------------------------


def test_a_process_knows_when_it_was_started() -> None:
    assert 0 < time.clock_gettime(time.CLOCK_BOOTTIME) - started() < 24 * 3600


def test_the_first_process_of_a_container_has_no_parent_that_traces_it() -> None:
    assert not _may_trace(0)


def test_a_port_is_bound_on_every_address_and_does_not_listen_yet() -> None:
    with bind(0, "PORT") as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        sock.listen()
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(UsageError, match=rf"METRICS_PORT {port} cannot be listened on"):
            bind(port, "METRICS_PORT")
