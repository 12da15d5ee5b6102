"""TLS keys: which lines count, which a set of connections gets, and those that stand in captures."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from capture_files import COMPRESSIONS, block, interface, section
from test_split_capture import BROKER, split

from brokerlens.capture.reader import Capture
from brokerlens.capture.secrets import read_secrets
from brokerlens.capture.working import read_facts
from brokerlens.errors import UserError
from brokerlens.tls.keys import LABELS, KeyLog, read_key_log
from brokerlens.tls.outcomes import OUTCOMES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tls.md").read_text(encoding="utf-8")
ONE, OTHER = bytes(range(32)), bytes(range(1, 33))
OF_ONE = [
    f"CLIENT_RANDOM {ONE.hex()} {'cd' * 48}".encode(),
    f"CLIENT_TRAFFIC_SECRET_0 {ONE.hex().upper()} {'ef' * 32}".encode(),
]
OF_SESSION = b"RSA Session-ID:" + b"ab" * 32 + b" Master-Key:" + b"cd" * 48
TLS, SSH = 0x544C534B, 0x5353484B


def secrets(text: bytes, kind: int = TLS, big: bool = False) -> bytes:
    """A block of decryption secrets."""
    return block(10, struct.pack((">" if big else "<") + "II", kind, len(text)) + text, big)


def seen(path: Path) -> list[bytes]:
    """What `read_secrets` gives of a capture, asked for as many blocks as the reader counted."""
    capture = Capture(str(path))
    for _ in capture.chunks():
        pass
    return list(read_secrets(str(path), capture.secrets))


def test_a_connection_gets_its_own_lines_and_those_of_sessions() -> None:
    keys = KeyLog()
    keys.add([*OF_ONE, OF_ONE[0] + b"\r\n", b"# CLIENT_RANDOM", b"CLIENT_RANDOM short", b""])
    assert keys.may_open(ONE)
    assert not keys.may_open(OTHER)
    assert keys.lines([OTHER]) == []
    assert keys.lines([ONE, OTHER, ONE]) == sorted(OF_ONE)
    keys.add([OF_SESSION])
    assert keys.may_open(OTHER)
    assert keys.lines([OTHER]) == [OF_SESSION]


def test_nothing_shows_a_key(tmp_path: Path) -> None:
    keys = KeyLog()
    keys.add(OF_ONE)
    assert "cdcd" not in f"{keys} {keys!r}"
    (tmp_path / "keys").write_bytes(OF_ONE[0][:-2] + b"xx" + b"a" * (1 << 17))
    with pytest.raises(UserError, match="holds no TLS key") as error:
        read_key_log(str(tmp_path / "keys"))
    assert "cdcd" not in str(error.value)


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_secrets_of_all_sections_whatever_the_compression(kind: str, tmp_path: Path) -> None:
    """Of both byte orders, before and behind packets; those of other protocols are none."""
    data = b"".join(
        [
            *(section(), secrets(b"one"), interface(), secrets(b"ssh", SSH), block(5, bytes(12)), secrets(b"")),
            *(section(big=True), interface(big=True), secrets(b"two\nthree", big=True)),
        ]
    )
    path = tmp_path / "capture"
    path.write_bytes(COMPRESSIONS[kind](data))
    assert seen(path) == [b"one", b"", b"two\nthree"]


def test_secrets_longer_than_blocks_of_packets_may_be(tmp_path: Path) -> None:
    (tmp_path / "capture").write_bytes(section() + secrets(bytes(3 << 20)) + secrets(b"more") + interface())
    assert [len(one) for one in seen(tmp_path / "capture")] == [3 << 20, 4]


def test_secrets_that_claim_more_than_their_block_or_are_cut(tmp_path: Path) -> None:
    lying = block(10, struct.pack("<II", TLS, 500) + b"short")
    (tmp_path / "capture").write_bytes(section() + lying + secrets(b"good") + secrets(b"x" * 100)[:60])
    assert list(read_secrets(str(tmp_path / "capture"), 3)) == [b"good"]


def test_the_page_has_every_label_and_every_outcome() -> None:
    labels = re.search(r"Known are lines with the labels (.*), and", PAGE)
    assert labels and re.findall(r"`(\w+)`", labels[1]) == [label.decode() for label in LABELS]
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == sorted(OUTCOMES[1:])


def test_a_capture_whose_keys_nobody_uses_says_so(tmp_path: Path) -> None:
    data = section() + secrets(b"one") + interface()
    notices = [
        read_facts(split(tmp_path / str(keep_tls), data, [BROKER], keeper=None, keep_tls=keep_tls))["notices"] for keep_tls in (False, True)
    ]
    assert notices == [["the capture holds TLS keys that are not used: set the site's `tls_keylog` to `captures`"], []]
