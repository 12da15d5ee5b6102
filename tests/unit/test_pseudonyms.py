"""What stands for addresses and names: the published values of Crypto-PAn, prefixes, labels, and the secret behind them."""

from __future__ import annotations

import ipaddress
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yacryptopan import CryptoPAn

from brokerlens.errors import UserError
from brokerlens.pseudonyms import AS_THEY_ARE, Pseudonyms, of_job, read_secret

HIDE = Pseudonyms(bytes(range(32)))
PUBLISHED_KEY = bytes.fromhex("15 22 17 8d 33 a4 cf 80 13 0a 5b 16 49 90 7d 10 d8 98 8f 83 79 79 65 27 62 57 4c 2d 2a 84 22 02")
PUBLISHED = {
    "128.11.68.132": "135.242.180.132",
    "129.118.74.4": "134.136.186.123",
    "130.132.252.244": "133.68.164.234",
    "24.5.0.80": "100.9.15.210",
}
"""The sample trace of the authors' Crypto-PAn 1.0 distribution (sample_trace_raw.dat, sample_trace_sanitized.dat)."""
V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@pytest.mark.parametrize("real", PUBLISHED)
def test_the_library_gives_the_published_values(real: str) -> None:
    assert CryptoPAn(PUBLISHED_KEY).anonymize(real) == PUBLISHED[real]


def common(a: Address, b: Address) -> int:
    """Bits that two addresses begin with alike."""
    return a.max_prefixlen - (int(a) ^ int(b)).bit_length()


@given(st.one_of(st.tuples(V4, V4), st.tuples(V6, V6)), st.data())
def test_prefixes_are_preserved(pair: tuple[Address, Address], data: st.DataObject) -> None:
    a, b = pair
    shared = data.draw(st.integers(0, a.max_prefixlen), "bits that both begin with, at least")
    mask = (1 << (a.max_prefixlen - shared)) - 1
    b = type(a)(int(a) & ~mask | int(b) & mask)
    shown = [ipaddress.ip_address(HIDE.address(str(address))) for address in (a, b)]
    assert {address.version for address in shown} == {a.version}
    assert common(*shown) == common(a, b)


def test_addresses_of_an_end_keep_their_port() -> None:
    v4, v6 = HIDE.endpoint("192.0.2.10:9092"), HIDE.endpoint("[2001:db8::10]:9092")
    assert v4 == f"{HIDE.address('192.0.2.10')}:9092"
    assert v6 == f"[{HIDE.address('2001:db8::10')}]:9092"
    assert str(ipaddress.ip_address(v6[1:-6])) == v6[1:-6]


def test_a_label_says_what_it_stands_for_and_is_the_same_for_the_same_secret() -> None:
    label = HIDE.name("topic", "sensors")
    assert label.startswith("topic-")
    assert label == Pseudonyms(bytes(range(32))).name("topic", "sensors")
    others = [HIDE.name("client", "sensors"), HIDE.name("topic", "sensor"), Pseudonyms(bytes(32)).name("topic", "sensors")]
    assert label.partition("-")[2] not in {other.partition("-")[2] for other in others}
    assert HIDE.name("topic", "") == ""


@pytest.mark.parametrize("name", ["'\"><script>", "\n\r\x00", "x" * 10_000, "\udcff", "\N{BUTTERFLY}"])
def test_a_label_is_plain_whatever_the_name(name: str) -> None:
    assert HIDE.name("client", name).removeprefix("client-").isalnum()


@pytest.mark.parametrize(
    ("name", "ending"),
    [("plant 7.pcap", ".pcap"), ("a/plant.PCAPNG.gz", ".pcapng.gz"), ("plant.pcap12", ".pcap12"), ("plant.acme", ""), ("plant", "")],
)
def test_a_capture_keeps_the_ending_that_says_what_it_is(name: str, ending: str) -> None:
    label = HIDE.capture(name)
    assert label.startswith("capture-") and label.endswith(ending)
    assert len(label) == len("capture-") + 12 + len(ending)


@pytest.mark.parametrize(
    "text", ["librdkafka", "apache-kafka-java", "3.7.0", "2.16.1-rdkafka-2.16.0", "4.0.0-rc1", "2.3.0rc2", "v1.2", "7.6.1-ccs"]
)
def test_well_known_software_stays(text: str) -> None:
    assert HIDE.software(text) == text


@pytest.mark.parametrize("text", ["acme-agent", "3.7.0-acme", "plant7", "librdkafka-acme", "192.0.2.10", "4915112345678"])
def test_other_software_is_hidden(text: str) -> None:
    assert HIDE.software(text) == HIDE.name("software", text)


def test_messages_keep_neither_names_nor_addresses_nor_paths() -> None:
    text = (
        'tshark: The file "/data/acme plant/plant-7.pcap" is cut; 192.0.2.10:9092, [2001:db8::10]:9092 and ::ffff:192.0.2.10 in acme/x.pcap; '
        "plant-7.pcap: at 12:30:00 of 1.5 s"
    )
    shown = HIDE.sentence(text, {"/data/acme plant/plant-7.pcap": "capture-1.pcap", "plant-7.pcap": "capture-1.pcap"})
    assert not [name for name in ("acme", "plant", "192.0.2.10", "2001:db8") if name in shown]
    assert f"{HIDE.address('192.0.2.10')}:9092, [{HIDE.address('2001:db8::10')}]:9092" in shown
    assert "capture-1.pcap: at 12:30:00 of 1.5 s" in shown


def test_a_short_name_does_not_spoil_other_words() -> None:
    assert HIDE.sentence("used are a few of a", {"a": "capture-1"}) == "used are capture-1 few of capture-1"


def test_without_a_secret_everything_stays() -> None:
    assert not AS_THEY_ARE
    shown = [
        AS_THEY_ARE.address("192.0.2.1"),
        AS_THEY_ARE.endpoint("[::1]:1"),
        AS_THEY_ARE.name("client", "a"),
        AS_THEY_ARE.capture("a.pcap"),
    ]
    assert shown == ["192.0.2.1", "[::1]:1", "a", "a.pcap"]
    assert AS_THEY_ARE.sentence("/a/b 192.0.2.1", {"a": "b"}) == "/a/b 192.0.2.1"
    assert of_job(None) is AS_THEY_ARE


def test_a_secret_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = read_secret(path)
    assert len(secret) == 32
    assert read_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert read_secret(tmp_path / "other") != secret


def test_who_makes_it_at_the_same_moment_gets_the_same(tmp_path: Path) -> None:
    found: list[bytes] = []
    starting = threading.Barrier(8)

    def make() -> None:
        starting.wait()
        found.append(read_secret(tmp_path / "secret"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("content", ["", "hidden", "abcd", "zz" * 32])
def test_what_is_no_secret_is_refused_without_being_shown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    with pytest.raises(UserError, match=r"secret_file: found no secret in .*expected 64 hexadecimal digits") as fault:
        read_secret(path)
    assert not content or content not in str(fault.value)


def test_a_secret_that_cannot_be_made_says_how_to(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"secret_file: found that .* cannot be read or made .* openssl rand -hex 32"):
        read_secret(tmp_path / "nowhere" / "secret")


def test_a_secret_that_changes_while_jobs_run_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    settings = {"secret_file": str(path), "digest": Pseudonyms(read_secret(path)).digest}
    assert of_job(settings).digest == settings["digest"]
    path.write_text("ab" * 32)
    with pytest.raises(UserError, match="another secret than at the start"):
        of_job(settings)
