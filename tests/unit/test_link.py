"""Messages, counters and routing between processes, over real sockets and files."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from sunup.limits import FDS_PER_MESSAGE_MAX, MESSAGE_BYTES_MAX
from sunup.link import channel as link
from sunup.link.board import Board
from sunup.link.channel import Channel, Message
from sunup.link.counters import STAGE_BUCKETS, Segment, Series
from sunup.link.route import Route, route


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"POST", b"/functions/fraud", Route("fraud", True)),
        (b"POST", b"/functions/fraud?debug=1", Route("fraud", True)),
        (b"POST", b"/functions/fraud/invocations", Route("fraud", True)),
        (b"GET", b"/functions/fraud", Route("fraud", False)),
        (b"GET", b"/functions/fraud/ready", Route("fraud", False)),
        (b"POST", b"/v2/models/fraud/infer", Route("fraud", True)),
        (b"POST", b"/v2/models/fraud/versions/3/infer", Route("fraud", True)),
        (b"GET", b"/v2/models/fraud/versions/3/ready", Route("fraud", False)),
        (b"POST", b"/v1/models/fraud:predict", Route("fraud", True)),
        (b"POST", b"/v1/models/fraud%3Apredict", Route("fraud", True)),
        (b"POST", b"/v1/models/fraud:explain", Route("fraud", False)),
        (b"POST", b"/v1/models/:predict", Route(None, True)),
        (b"GET", b"/v1/models/fraud", Route("fraud", False)),
        (b"GET", b"/v2/health/live", Route(None, False)),
        (b"GET", b"/functions", Route(None, False)),
        (b"POST", b"/functions/", Route(None, False)),
        (b"GET", b"/", Route(None, False)),
        (b"POST", b"/functions/../etc", Route(None, False)),
        (b"POST", b"/functions/" + b"a" * 64, Route(None, True)),
        (b"POST", b"/functions/\xff\xfe", Route(None, True)),
    ],
)
def test_route(method: bytes, target: bytes, expected: Route) -> None:
    assert route(method, target) == expected


def test_message_carries_head_bytes_and_descriptors(tmp_path: Path) -> None:
    own = link.listen(tmp_path / "own.sock")
    there = link.connect(tmp_path / "own.sock")  # before anybody accepts
    read, write = os.pipe()
    link.send(there, {"op": "take", "slot": 3}, b"GET / HTTP/1.1\r\n", [read])
    os.close(read)
    here, _ = own.accept()
    message = link.receive(here)
    assert message is not None
    assert (message.head, message.data) == ({"op": "take", "slot": 3}, b"GET / HTTP/1.1\r\n")
    os.write(write, b"x")
    assert os.read(message.fds[0], 1) == b"x"
    there.close()
    assert link.receive(here) is None
    for fd in (write, *message.fds):
        os.close(fd)
    here.close()
    own.close()


def test_message_limits() -> None:
    with pytest.raises(ValueError, match="over"):
        link.pack({"op": "x"}, bytes(MESSAGE_BYTES_MAX))
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pytest.raises(ValueError, match="kernel"):
        link.send(a, {}, fds=[0] * (FDS_PER_MESSAGE_MAX + 1))
    link.send(a, {"op": "many"}, fds=[0] * FDS_PER_MESSAGE_MAX)
    message = link.receive(b)
    assert message is not None
    assert len(message.fds) == FDS_PER_MESSAGE_MAX
    for fd in message.fds:
        os.close(fd)
    a.close()
    b.close()


def test_a_full_channel_queues_in_order_and_loses_nothing() -> None:
    count, got = 5000, list[int]()

    async def exchange() -> None:
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        done = asyncio.Event()

        def heard(_: Channel, message: Message) -> None:
            assert len(message.fds) == 1
            os.close(message.fds[0])
            got.append(message.head["n"])
            if len(got) == count:
                done.set()

        sender = Channel(loop, a, lambda *_: None, lambda _: None)
        for n in range(count):
            assert sender.send({"n": n}, b"x" * 1000, [0])
        assert not sender.idle
        receiver = Channel(loop, b, heard, lambda _: None)
        await done.wait()
        assert sender.idle
        receiver.close()
        sender.close()

    asyncio.run(exchange())
    assert got == list(range(count))


def test_counters_survive_their_writer(tmp_path: Path) -> None:
    series = [Series("sunup_requests_total", "counter", {"code": "200"}), Series("s", "histogram", {}, STAGE_BUCKETS)]
    path = tmp_path / "fraud.0.seg"
    for _ in range(2):  # the second writer goes on where the first one ended
        segment = Segment.create(path, series)
        segment.values[segment.slot("sunup_requests_total", code="200")] += 2
        segment.observe(segment.slot("s"), STAGE_BUCKETS, 0.01)
        segment.close()
    reader = Segment.open(path)
    assert reader.series == series
    assert reader.read(0) == [4.0]
    buckets = reader.read(1)
    assert buckets[STAGE_BUCKETS.index(0.01)] == 2.0
    assert buckets[-1] == pytest.approx(0.02)
    reader.close()
    other = Segment.create(path, series[:1])  # other series: a file made anew
    assert other.read(0) == [0.0]
    other.close()


def test_damaged_segment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.seg").write_bytes(b"not a segment")
    with pytest.raises(ValueError, match="not a counter segment"):
        Segment.open(tmp_path / "x.seg")


def test_board_counts_go_on_and_gauges_do_not(tmp_path: Path) -> None:
    path = tmp_path / "door.seg"
    for expected in (1.0, 2.0):
        board = Board(path, lambda _seconds, _call: None)
        board.add("refused", function="fraud")
        board.put("depth", 7.0, function="fraud")
        board.observe("seconds", (0.1, 1.0), 0.5, function="other")
        board.flush()
        segment = Segment.open(path)
        found = {s.name: segment.read(i) for i, s in enumerate(segment.series)}
        assert found["refused"] == [expected]
        assert found["seconds"] == [0.0, expected, 0.0, 0.5 * expected]
        segment.close()
    board.forget(function="fraud")
    board.flush()
    segment = Segment.open(path)
    assert [s.name for s in segment.series] == ["seconds"]
    segment.close()


def test_a_board_makes_its_file_anew_only_for_other_series(tmp_path: Path) -> None:
    path = tmp_path / "engine.seg"
    board = Board(path, lambda _seconds, _call: None)

    def written() -> dict[str, float]:
        board.flush()
        segment = Segment.open(path)
        found = {s.labels["function"]: segment.read(i)[0] for i, s in enumerate(segment.series)}
        segment.close()
        return found

    board.put_change("workers", 0.0, function="a")
    assert written() == {}
    board.put_change("workers", 2.0, function="a")
    assert written() == {"a": 2.0}
    first = path.stat().st_ino
    board.put_change("workers", 0.0, function="a")
    assert written() == {"a": 0.0}
    board.forget(function="b")
    board.put("workers", 3.0, function="a")
    assert written() == {"a": 3.0}
    assert path.stat().st_ino == first
    board.put("workers", 1.0, function="b")
    assert written() == {"a": 3.0, "b": 1.0}
    board.forget(function="a")
    assert written() == {"b": 1.0}
