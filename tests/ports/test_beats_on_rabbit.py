# SPDX-License-Identifier: Apache-2.0
"""Both ends of the beats on a real broker: an agent's voice and an engine's ear, while it is away, hangs, is back."""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import amqp
import pytest

from tests.broker import Broker, free_port
from vmhad.agent.voice import SAY_WITHIN_S, Unsaid, Voice
from vmhad.bus.codec import encode
from vmhad.bus.names import EXCHANGE, EXPIRES_S, topic
from vmhad.bus.signature import HostKey, derive, sign
from vmhad.bus.transport_url import Broker as Bus
from vmhad.bus.transport_url import read_url
from vmhad.drivers.beats.agent_beats import AgentBeats
from vmhad.drivers.beats.complaints import Complaints
from vmhad.drivers.beats.listener import PREFETCH, Listener
from vmhad.drivers.clock import SystemClock
from vmhad.kernel.beat import Beat, HeardBeat

MASTER = bytes(range(32))


@dataclass
class Ends:
    """Ends what a test started, and makes beats of h1."""

    beat: Beat = field(default_factory=lambda: Beat("h1", "boot-1", "run-1", 0, 1.0, time.time()))
    closing: list[Callable[[], object]] = field(default_factory=list)

    def ear(self, *buses: Bus) -> AgentBeats:
        beats = AgentBeats(buses, ["s1"], ["h1"], {"k1": MASTER}, SystemClock())
        beats.start()
        self.closing.append(beats.stop)
        return beats

    def voice(self, *buses: Bus) -> Voice:
        voice = Voice(buses, "s1", derive("k1", MASTER, "h1"))
        voice.start()
        self.closing.append(voice.stop)
        return voice

    def next(self) -> Beat:
        self.beat = replace(self.beat, count=self.beat.count + 1, uptime_s=time.monotonic(), sent_at=time.time())
        return self.beat


@pytest.fixture
def ends() -> Iterator[Ends]:
    begun = Ends()
    yield begun
    for end in reversed(begun.closing):
        end()


@pytest.fixture
def silent_place() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def eventually(what: str, holds: Callable[[], object], limit_s: float = 30.0) -> None:
    until = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < until, f"in vain waited for: {what}"
        time.sleep(0.02)


def said_and_heard(voice: Voice, ear: AgentBeats, ends: Ends) -> HeardBeat | None:
    """The newest beat that is heard after another one was said."""
    try:
        voice.say(ends.next())
    except Unsaid:
        return None
    time.sleep(0.1)
    heard = list(ear.read())
    return heard[-1] if heard else None


def was_said(voice: Voice, ends: Ends) -> bool:
    try:
        voice.say(ends.next())
    except Unsaid:
        return False
    return True


def with_first(place: str, url: str) -> Bus:
    """The broker, and before it another way to it."""
    login, _, rest = url.removeprefix("rabbit://").rpartition("@")
    return read_url(f"rabbit://{login}@{place},{login}@{rest}")


def test_the_last_beat_is_taken_before_the_voice_ends(rabbit: Broker, ends: Ends) -> None:
    ear = ends.ear(read_url(rabbit.url))
    eventually("an ear", ear.is_listening)
    for _ in range(5):
        voice = ends.voice(read_url(rabbit.url))
        last = replace(ends.next(), leaving=True, run=f"run-{ends.beat.count}")
        voice.say(last)
        voice.stop()
        eventually("the last word", lambda last=last: [one.beat for one in ear.read()] == [last])


def test_a_way_that_leads_nowhere_and_one_that_hangs(rabbit: Broker, ends: Ends, silent_place: str) -> None:
    """The driver and the voice find the broker behind them; neither start() nor read() waits for that."""
    for first in (f"127.0.0.1:{free_port()}", silent_place):
        began = time.monotonic()
        bus = with_first(first, rabbit.url)
        ear, voice = ends.ear(bus), ends.voice(bus)
        assert list(ear.read()) == [] and time.monotonic() - began < 1.0
        eventually("a beat by the other way", lambda ear=ear, voice=voice: said_and_heard(voice, ear, ends))


def test_no_broker_at_the_start(ends: Ends) -> None:
    nowhere = read_url(f"rabbit://u:p@127.0.0.1:{free_port()}/")
    ear, voice = ends.ear(nowhere), ends.voice(nowhere)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Unsaid):
            voice.say(ends.next())
        assert time.monotonic() - began < SAY_WITHIN_S + 0.5
    assert list(ear.read()) == [] and not ear.is_listening()
    began = time.monotonic()
    voice.stop()
    ear.stop()
    assert time.monotonic() - began < 7.0


def test_a_broker_that_hangs_loses_no_more_than_its_time(rabbit: Broker, ends: Ends) -> None:
    """Both ends notice, come back by themselves, and what is heard then is young: nothing was kept."""
    bus = read_url(rabbit.url)
    ear, voice = ends.ear(bus), ends.voice(bus)
    eventually("a beat", lambda: said_and_heard(voice, ear, ends))
    rabbit.pause()
    try:
        for _ in range(14):
            began = time.monotonic()
            try:
                voice.say(ends.next())
            except Unsaid:
                pass
            assert time.monotonic() - began < SAY_WITHIN_S + 0.5
            time.sleep(0.9)
        assert not ear.is_listening(), "an ear that hears nothing must know it"
    finally:
        rabbit.resume()
    eventually("a beat after it hung", lambda: said_and_heard(voice, ear, ends))
    heard = said_and_heard(voice, ear, ends)
    assert heard is not None and heard.beat == ends.beat


def test_a_broker_without_memory_is_given_nothing_that_it_would_pass_on_later(rabbit: Broker, ends: Ends) -> None:
    bus = read_url(rabbit.url)
    ear, voice = ends.ear(bus), ends.voice(bus)
    eventually("a beat", lambda: said_and_heard(voice, ear, ends))
    rabbit.control("set_vm_memory_high_watermark", "0.0000001")
    try:
        eventually("a voice that is told to wait", lambda: not was_said(voice, ends))
        for _ in range(3):
            assert not was_said(voice, ends)
    finally:
        rabbit.control("set_vm_memory_high_watermark", "0.4")
    newest = ends.beat.count
    eventually("a beat when there is memory again", lambda: said_and_heard(voice, ear, ends))
    assert ends.beat.count - newest <= 3


def test_an_exchange_that_somebody_made_durable_serves_as_well(rabbit: Broker, ends: Ends) -> None:
    bus = read_url(rabbit.url)
    connection = amqp.Connection(**bus.arguments(bus.places[0]))
    connection.connect()
    channel = connection.channel()
    channel.exchange_delete(EXCHANGE)
    channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
    try:
        ear, voice = ends.ear(bus), ends.voice(bus)
        eventually("a beat by that exchange", lambda: said_and_heard(voice, ear, ends))
    finally:
        channel.exchange_delete(EXCHANGE)
        connection.close()


def test_what_nobody_takes_expires_and_is_bounded(rabbit: Broker) -> None:
    """What the broker holds of a queue when its engine stands still, from the arguments it was declared with."""
    bus = read_url(rabbit.url)
    heard: list[bytes] = []
    going = threading.Event()
    listener = Listener(bus, ["s1"], lambda message: (going.wait(), heard.append(message)))
    listener.start()
    try:
        eventually("a listener", lambda: listener.is_listening)
        connection = amqp.Connection(**bus.arguments(bus.places[0]))
        connection.connect()
        channel = connection.channel()
        for number in range(1000):
            channel.basic_publish(amqp.Message(f"{number}"), EXCHANGE, topic("s1"))
        time.sleep(EXPIRES_S + 1.0)
        channel.basic_publish(amqp.Message("newest"), EXCHANGE, topic("s1"))
        going.set()
        eventually("the newest", lambda: heard[-1:] == [b"newest"])
        connection.close()
    finally:
        going.set()
        listener.stop()
    assert len(heard) <= PREFETCH + 1


def test_two_brokers_say_everything_once(rabbit: Broker, ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    """Here both URLs lead to one broker, so that each beat comes four times; it is heard once, and nobody complains."""
    buses = [read_url(rabbit.url), read_url(rabbit.url)]
    ear, voice = ends.ear(*buses), ends.voice(*buses)
    eventually("two ears", ear.is_listening)
    counts: list[int] = []
    for _ in range(15):
        voice.say(ends.next())
        time.sleep(0.1)
        counts += [heard.beat.count for heard in ear.read()]
    assert counts == sorted(set(counts)) and len(counts) >= 14
    assert not [record for record in caplog.records if "dropped" in record.getMessage()]


def test_one_dead_broker_of_two_takes_no_beat_away(rabbit: Broker, ends: Ends) -> None:
    dead = read_url(f"rabbit://u:p@127.0.0.1:{free_port()}/")
    ear, voice = ends.ear(dead, read_url(rabbit.url)), ends.voice(dead, read_url(rabbit.url))
    eventually("a beat by the other broker", lambda: said_and_heard(voice, ear, ends))
    began = time.monotonic()
    voice.say(ends.next())
    assert time.monotonic() - began < 1.0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_by_tls(rabbit: Broker, ends: Ends) -> None:
    bus = read_url(rabbit.tls_url, str(rabbit.certificate))
    ear, voice = ends.ear(bus), ends.voice(bus)
    eventually("a beat by TLS", lambda: said_and_heard(voice, ear, ends))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_broker_that_cannot_prove_its_name_is_not_spoken_to(rabbit: Broker, ends: Ends) -> None:
    by_another_name = read_url(rabbit.tls_url.replace("127.0.0.1", "localhost"), str(rabbit.certificate))
    plain = read_url(rabbit.url, str(rabbit.certificate))
    for bus in (by_another_name, plain):
        ear, voice = ends.ear(bus), ends.voice(bus)
        with pytest.raises(Unsaid):
            voice.say(ends.next())
        assert not ear.is_listening()


def test_no_password_in_the_log(ends: Ends, rabbit: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = read_url(rabbit.url.replace("of-the-tests", "pw-that-is-wrong"))
    ends.ear(wrong), ends.voice(wrong)
    eventually("two refusals", lambda: len([one for one in caplog.messages if "Trying on" in one]) >= 2)
    assert "pw-that-is-wrong" not in caplog.text and "pw-that-is-wrong" not in repr(wrong)


def test_the_voice_signs_for_its_own_host_only(ends: Ends) -> None:
    with pytest.raises(ValueError, match="the key is that of h1, and the beat that of h2"):
        ends.voice().say(replace(ends.next(), host="h2"))


def test_complaints_come_once_a_minute_and_without_content(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(["h1", "h2"])
    for second in range(130):
        for _ in range(10):
            complaints.add("h1", "its signature is wrong.")
        complaints.add(f"made up {second}", "its signature is wrong.")
        complaints.tell(1000.0 + second)
    told = [message for message in caplog.messages if "host h1" in message]
    assert told == [
        f"{count} beats in the name of host h1 were dropped: its signature is wrong." for count in (10, 600, 600)
    ]
    assert len([message for message in caplog.messages if "a host of no segment here" in message]) == 3
    assert "made up" not in caplog.text


def test_what_is_dropped_is_told(caplog: pytest.LogCaptureFixture, ends: Ends) -> None:
    """Without a broker: what each kind of message is called."""
    ear = AgentBeats([], ["s1"], ["h1"], {"k1": MASTER}, SystemClock())
    own, beat = derive("k1", MASTER, "h1"), ends.next()
    other = replace(own, host="SECRET")
    ear.take(sign(own, encode(beat)))
    later = replace(ends.next(), boot="boot-2")
    ear.take(sign(own, encode(later)))
    for message in (
        sign(HostKey("h1", "k1", bytes(32)), b"SECRET"),
        sign(HostKey("h1", "k9", bytes(32)), b"SECRET"),
        sign(own, b"SECRET"),
        sign(own, encode(replace(beat, host="SECRET"))),
        sign(own, encode(beat)),
        sign(other, b"SECRET"),
        sign(derive("k1", MASTER, "SECRET"), b"SECRET"),
        b"SECRET",
    ):
        ear.take(message)
    ear._idle()
    told = [message.partition(" were dropped: ")[2] for message in caplog.messages if "h1" in message]
    assert told == [
        "it is older than what was heard before.",
        "it is signed with a key that is not among ours.",
        "its signature is wrong.",
        "they are signed by one host and speak of another.",
        "they cannot be read: it is not a beat: Expected `array`, got `int`.",
    ]
    assert len(caplog.messages) == 8 and "SECRET" not in caplog.text
    assert [heard.beat for heard in ear.read()] == [later]


def test_read_waits_for_no_message(ends: Ends) -> None:
    """While another thread takes in as fast as it can."""
    ear = AgentBeats([], ["s1"], ["h1"], {"k1": MASTER}, SystemClock())
    own, ending, longest = derive("k1", MASTER, "h1"), threading.Event(), 0.0

    def pour() -> None:
        while not ending.is_set():
            ear.take(sign(own, encode(ends.next())))

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        for _ in range(200):
            began = time.monotonic()
            ear.read()
            longest = max(longest, time.monotonic() - began)
    finally:
        ending.set()
        thread.join()
    assert longest < 0.5
