"""Who may call: keys and their file, hosts, and the guard that every request of a connection passes."""

import json
import multiprocessing
from pathlib import Path

import pytest
from tests.unit.serving import HEAD, Echo, Loop, Passed, post

from sunup.access import keys
from sunup.access.guard import LOOPBACK, Guard, given_in
from sunup.access.keys import Key
from sunup.engine.access import Rules, remember, remembered
from sunup.errors import CommandError, EngineError, Forbidden, Misdirected, Unauthorized, UsageError
from sunup.limits import KEYS_BYTES_MAX
from sunup.settings import Project

WEB, WEB_KEY = keys.make(name="web", functions=["echo"])
ANY, ANY_KEY = keys.make(name="any", functions=None)
OTHER, OTHER_KEY = keys.make(name="other", functions=["other"])


def guard(*known: Key, hosts: tuple[str, ...] | None = None) -> Guard:
    return Guard(known or (WEB_KEY, ANY_KEY, OTHER_KEY), hosts)


def check(guarding: Guard, key: str | None, function: str | None = "echo", target: bytes = b"/x") -> None:
    guarding.check(host=None, given=None if key is None else key.encode(), function=function, target=target)


# --- keys and their file ----------------------------------------------------------------------------------------------


def test_a_key_is_random_and_kept_as_its_digest() -> None:
    text, key = keys.make(name="", functions=None)
    assert text != keys.make(name="", functions=None)[0]
    assert len(text) == 49
    assert text not in repr(key)
    assert bytes.fromhex(key.sha256) == keys.digest_of(text.encode())


def test_the_file_takes_and_drops_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    for key in (WEB_KEY, ANY_KEY, OTHER_KEY):
        keys.add(path, key)
    assert keys.read(path) == [WEB_KEY, ANY_KEY, OTHER_KEY]
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.revoke(path, WEB_KEY.id) == [WEB_KEY]
    assert keys.revoke(path, "other") == [OTHER_KEY]
    assert keys.read(path) == [ANY_KEY]
    with pytest.raises(UsageError, match="no key web"):
        keys.revoke(path, "web")
    assert [p.name for p in tmp_path.iterdir()] == ["keys.jsonl"]


def test_keys_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(keys.add, [(path, keys.make(name=str(n), functions=None)[1]) for n in range(20)])
    assert sorted(int(key.name) for key in keys.read(path)) == list(range(20))


def test_a_file_people_write_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    record = {"id": "mine", "sha256": keys.digest_of(b"a key of my own").hex()}
    path.write_text(f"# ours\n\n{json.dumps(record)}\n")
    assert guard(*keys.read(path)).find(b"a key of my own") is not None


LINES = [WEB, '{"id": "x"}', '{"id": "x", "sha256": "abc"}', '{"id": 1, "sha256": "00"}']


@pytest.mark.parametrize("line", LINES, ids=["a key itself", "no digest", "a short digest", "an id that is none"])
def test_a_broken_line_is_named_but_not_repeated(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(f"# ours\n{line}\n")
    with pytest.raises(CommandError, match="Line 2 of the key file") as refused:
        keys.read(path)
    assert line not in refused.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        keys.read(tmp_path / "absent")
    (tmp_path / "large").write_bytes(b"#" * (KEYS_BYTES_MAX + 1))
    with pytest.raises(CommandError, match="the most that is read"):
        keys.read(tmp_path / "large")


def test_a_full_file_is_not_made_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    keys.add(path, WEB_KEY)
    with pytest.raises(CommandError, match="Revoke some"):
        keys.add(path, keys.make(name="x" * KEYS_BYTES_MAX, functions=None)[1])
    assert keys.read(path) == [WEB_KEY]


# --- the guard --------------------------------------------------------------------------------------------------------


def test_a_key_passes_for_what_it_covers() -> None:
    check(guard(), WEB)
    check(guard(), ANY)
    check(guard(), WEB, function=None)
    for key in (None, "", "x", WEB[:-1], WEB + "x", WEB.upper(), "x" * 10_000):
        with pytest.raises(Unauthorized):
            check(guard(), key)
    for function in ("echo", "absent"):  # the same, whether there is such a function or not
        with pytest.raises(Forbidden, match=r"^The key does not cover this function\.$"):
            check(guard(), OTHER, function)


def test_no_keys_let_nobody_in_but_whether_the_server_lives_is_told() -> None:
    empty = Guard([], None)
    with pytest.raises(Unauthorized):
        check(empty, ANY)
    for target in (b"/v2/health/live", b"/v2/health/ready"):
        check(empty, None, None, target)
    for target in (b"/v2/health/live/", b"/v2/health/live?x", b"/v2/health/%6cive", b"/v2", b"/"):
        with pytest.raises(Unauthorized):
            check(empty, None, None, target)


def test_headers_present_a_key() -> None:
    assert given_in([(b"host", b"a"), (b"authorization", b"Bearer k")]) == b"k"
    assert given_in([(b"authorization", b"bearer  k ")]) == b"k"
    assert given_in([(b"x-api-key", b"k")]) == b"k"
    assert given_in([(b"authorization", b"Basic eDp5"), (b"x-api-key", b"k")]) == b"k"
    assert given_in([(b"authorization", b"Bearer k"), (b"x-api-key", b"k")]) == b"k"
    assert given_in([(b"authorization", b"Basic eDp5")]) is None
    two = given_in([(b"x-api-key", WEB.encode()), (b"x-api-key", ANY.encode()), (b"x-api-key", ANY.encode())])
    with pytest.raises(Unauthorized):
        guard().check(host=None, given=two, function="echo", target=b"/")


def test_hosts_of_this_machine_pass_with_any_port() -> None:
    ours = Guard(None, (*LOOPBACK, "Example.test"))
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000", "example.test:"):
        ours.check(host=host.encode(), given=None, function=None, target=b"/")
    ours.check(host=None, given=None, function=None, target=b"/")  # HTTP/1.0
    evil = [
        "evil.test",
        "localhost.evil.test",
        "localhost:8000:1",
        "127.0.0.1.evil.test",
        "[::1",
        "::1",
        "",
        "127.0.0.2",
    ]
    for host in (*evil, "@localhost", "localhost@evil.test", "localhost:x", "localhost/", "localhost\xff"):
        with pytest.raises(Misdirected, match="--allow-host"):
            ours.check(host=host.encode("latin-1"), given=None, function=None, target=b"/")


def test_hosts_seen_do_not_pile_up() -> None:
    ours = Guard(None, LOOPBACK)
    for port in range(10_000):
        ours.check(host=b"localhost:%d" % port, given=None, function=None, target=b"/")
    assert len(ours._seen) < 100


def test_a_guard_is_told_and_heard() -> None:
    heard = Guard.heard(guard(hosts=("a",)).told())
    assert heard is not None
    check(heard, WEB)
    with pytest.raises(Forbidden):
        check(heard, OTHER)
    assert heard.hosts == frozenset({"a"})
    assert Guard.heard({"keys": None, "hosts": None}) is None
    assert WEB not in repr(heard)
    assert WEB not in json.dumps(heard.told())


# --- on a connection --------------------------------------------------------------------------------------------------


def guarded(echo: Echo, *, hosts: tuple[str, ...] | None = None) -> Echo:
    echo.guard = guard(hosts=hosts)
    return echo


def test_every_request_of_a_connection_needs_its_key(loop: Loop, echo: Echo) -> None:
    for name in (b"Authorization: Bearer ", b"X-API-Key: "):
        with Passed(loop, guarded(echo)) as passed:
            for _ in range(3):
                assert passed.ask(post(b"abc", name + WEB.encode()))[0] == 200
            status, headers, body = passed.ask(post(b"abc"))
            assert (status, headers[b"www-authenticate"]) == (401, b'Bearer realm="sunup"')
            assert b'"unauthorized"' in body
            assert passed.ended()


def test_a_pipelined_request_needs_its_own(loop: Loop, echo: Echo) -> None:
    with Passed(loop, guarded(echo)) as passed:
        passed.client.sendall(
            post(b"a", b"X-API-Key: " + WEB.encode()) + post(b"b") + post(b"c", b"X-API-Key: " + WEB.encode())
        )
        assert passed.answer()[0] == 200
        assert passed.answer()[0] == 401
        assert passed.ended()
    assert len(echo.order) == 1


def test_another_functions_key_is_403(loop: Loop, echo: Echo) -> None:
    with Passed(loop, guarded(echo)) as passed:
        assert passed.ask(post(b"a", b"X-API-Key: " + WEB.encode()))[0] == 200
        assert passed.ask(post(b"a", b"X-API-Key: " + OTHER.encode()))[0] == 403
        assert passed.ended()
    assert len(echo.order) == 1


def test_a_strangers_body_is_not_asked_for(loop: Loop, echo: Echo) -> None:
    with Passed(loop, guarded(echo)) as passed:
        status, _, _ = passed.ask(HEAD + b"Expect: 100-continue\r\nContent-Length: 900\r\n\r\n")
        assert status == 401


def test_a_new_guard_holds_from_the_next_request_on(loop: Loop, echo: Echo) -> None:
    with Passed(loop, guarded(echo)) as passed:
        assert passed.ask(post(b"a", b"X-API-Key: " + WEB.encode()))[0] == 200
        loop.call(lambda: setattr(echo, "guard", guard(ANY_KEY)))
        assert passed.ask(post(b"a", b"X-API-Key: " + WEB.encode()))[0] == 401


def test_a_host_that_is_not_ours_is_421(loop: Loop, echo: Echo) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: %b\r\nX-API-Key: %b\r\n\r\n"
    for target, host, expected in (
        (b"/functions/echo", b"localhost", 200),
        (b"/functions/echo", b"evil.test", 421),
        (b"http://localhost/functions/echo", b"evil.test", 200),  # an absolute target overrules Host (RFC 9112, 3.2.2)
        (b"http://evil.test/functions/echo", b"localhost", 421),
    ):
        with Passed(loop, guarded(echo, hosts=LOOPBACK)) as passed:
            assert passed.ask(request % (target, host, WEB.encode()))[0] == expected
    with Passed(loop, guarded(echo, hosts=LOOPBACK)) as passed:  # each request for itself
        assert passed.ask(request % (b"http://localhost/functions/echo", b"evil.test", WEB.encode()))[0] == 200
        assert passed.ask(request % (b"/functions/echo", b"evil.test", WEB.encode()))[0] == 421


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_needs_no_keys(host: str) -> None:
    Rules().check(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.test"])
def test_beyond_it_who_may_call_must_be_said(host: str) -> None:
    with pytest.raises(UsageError, match="--api-keys FILE"):
        Rules().check(host)
    Rules(is_open=True).check(host)
    Rules(api_keys="keys").check(host)
    with pytest.raises(UsageError, match="Give one of them"):
        Rules(api_keys="keys", is_open=True).check(host)


def test_rules_are_remembered(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert remembered(project) == Rules()
    remember(project, rules := Rules("keys", hosts=("a", "b")))
    assert remembered(project) == rules
    assert rules.flags() == ["--api-keys", "keys", "--allow-host", "a", "--allow-host", "b"]
    project.rules.write_text("{")
    with pytest.raises(EngineError, match="cannot be read"):
        remembered(project)


def test_a_user_must_exist_and_not_be_root() -> None:
    with pytest.raises(UsageError):
        Rules(user="no-such-user").check("localhost")
    with pytest.raises(UsageError):
        Rules(user="root").check("localhost")
