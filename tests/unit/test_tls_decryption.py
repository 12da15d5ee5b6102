"""What tshark says of records that Python's own TLS made: their plaintext, whatever it looks like, or that there is none."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from brokerlens.tls.keys import KeyLog
from brokerlens.wireshark.decryption import Record, decrypt

pytestmark = pytest.mark.skipif(
    shutil.which("tshark") is None or shutil.which("openssl") is None, reason="tshark, or openssl for a certificate, is not installed"
)
LOOKALIKES = {
    "http": b"\0\0\0\x35\0\0\0\3\0\0\0\1\0\4test GET / HTTP/1.1\r\n" + bytes(20),
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "fix": b"8=FIX.4.2\x019=5\x0135=0\x01",
    "mq": b"TSH " + bytes(40),
}
"""First plaintext that tshark would take for another protocol's."""
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key."""
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=broker.example")
    subprocess.run(["openssl", "req", "-x509", *kind, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


class Conversation:
    """A TLS connection in memory: ``records`` as they were sent, with the application's ``plaintext`` of each."""

    def __init__(self, certificate: Path, keys: Path, version: ssl.TLSVersion, protocol: str | None = None) -> None:
        client, broker = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        client.keylog_filename = str(keys)
        broker.load_cert_chain(certificate)
        for context in (client, broker):
            context.minimum_version = context.maximum_version = version
            if protocol is not None:
                context.set_alpn_protocols([protocol])
        self.records: list[Record] = []
        self.plaintext: list[bytes] = []
        self._keys = keys
        self._sent, self._received = ([ssl.MemoryBIO(), ssl.MemoryBIO()] for _ in range(2))
        self._ends = [context.wrap_bio(self._received[side], self._sent[side], bool(side)) for side, context in enumerate((client, broker))]
        waiting = {0, 1}
        while waiting:
            for side in (0, 1):
                try:
                    self._ends[side].do_handshake()
                    waiting.discard(side)
                except ssl.SSLWantReadError:
                    pass
                self._take(side, b"")

    def send(self, side: int, text: bytes) -> None:
        """One record, from the client where ``side`` is 0."""
        self._ends[side].write(text)
        self._take(side, text)

    def _take(self, side: int, text: bytes) -> None:
        """Note the records that one side has written, and hand them on."""
        data = self._sent[side].read()
        self._received[1 - side].write(data)
        while data:
            size = 5 + int.from_bytes(data[3:5], "big")
            self.records.append(Record(0, side, data[:size]))
            self.plaintext.append(text)
            data = data[size:]
        if text:
            assert self._ends[1 - side].read(len(text)) == text

    def decrypted(self) -> list[bytes | None]:
        """What tshark opens of it."""
        keys = KeyLog()
        keys.add(self._keys.read_bytes().splitlines())
        return list(decrypt(keys.lines([self.records[0].data[11:43]]), self.records))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", LOOKALIKES.values(), ids=LOOKALIKES)
def test_plaintext_that_looks_like_another_protocol(certificate: Path, tmp_path: Path, first: bytes, version: ssl.TLSVersion) -> None:
    talk = Conversation(certificate, tmp_path / "keys", version)
    for side, text in ((0, first), (1, first), (0, b"plain"), (1, bytes(16_000)), (0, first)):
        talk.send(side, text)
    assert talk.decrypted() == talk.plaintext


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_protocol_named_in_the_handshake_is_not_taken_for_nothing(
    certificate: Path, tmp_path: Path, protocol: str, version: ssl.TLSVersion
) -> None:
    """Bytes that tshark keeps to itself are bytes that were not decrypted."""
    talk = Conversation(certificate, tmp_path / "keys", version, protocol)
    talk.send(0, b"\0\0\0\x08plain123")
    talk.send(1, b"12" * 50)
    assert talk.decrypted()[-2:] == [None, None]
