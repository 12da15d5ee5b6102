"""Wireshark's own programs, started the one way that makes what they say repeatable: no profile of the user's, no names looked up, no state between packets."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from brokerlens.capture.layers import LEADS_TO, UDP_PORTS, VXLAN
from brokerlens.capture.streams import PIECE, open_stream
from brokerlens.errors import UserError
from brokerlens.wireshark.packets import FIELDS, Packet, read_packet

DAMAGED_FILE: Final = 2  # exit code behind good rows
VXLAN_PORTS: Final = [port for kind, ports, header in LEADS_TO if (kind, header) == (UDP_PORTS, VXLAN) for port in ports]
OFF: Final = (
    "tcp.desegment_tcp_streams",
    "tcp.analyze_sequence_numbers",
    "tcp.relative_sequence_numbers",
    "ip.defragment",
    "ipv6.defragment",
)
ON: Final = ("ipv6.tso_support",)  # else no TCP is found where offload left the length 0
OPTIONS: Final = [
    option
    for preferences, value in ((OFF, "FALSE"), (ON, "TRUE"))
    for preference in preferences
    for option in ("-o", f"{preference}:{value}")
]
INSTALL: Final = "`sudo apt-get install tshark` (Debian, Ubuntu) or `conda install -c conda-forge wireshark`"
GUESSES: Final = ("http_tls", "http2_tls", "mq_tls", "fix_tls", "rdpmt_tls", "credssp_tls", "5gli_tls", "li5g_tls", "aim_tls")
"""What tshark, of one version or another, would look for in the first plaintext of a TLS connection, whatever it was told of the port."""
CUT_SHORT: Final = "cut short"  # what tshark says of a capture that ends within a packet


def installed() -> bool:
    """Whether tshark is there."""
    return shutil.which("tshark") is not None


def find(tool: str) -> str:
    """The path of one of Wireshark's programs.

    Raises UserError with the command that installs it.
    """
    path = shutil.which(tool)
    if path is None:
        raise UserError(
            f"{tool}, which is part of Wireshark, was not found; expected on the PATH. Install it and run the same command again: {INSTALL}."
        )
    return path


@contextlib.contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """The environment of Wireshark's programs: a user's profile may disable protocols or decode ports otherwise, and plugins are looked for at home.

    Ours says only what plaintext must not be taken for.
    """
    with tempfile.TemporaryDirectory(prefix="brokerlens-wireshark-") as empty:
        Path(empty, "heuristic_protos").write_text("".join(f"{name},0\n" for name in GUESSES), encoding="ascii")
        yield os.environ | {"HOME": empty, "WIRESHARK_CONFIG_DIR": empty, "XDG_CONFIG_HOME": empty, "LC_ALL": "C"}


class _Feeder(threading.Thread):
    """Writes pieces of a capture to a program."""

    def __init__(self, pieces: Iterable[bytes | memoryview], sink: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._pieces = pieces
        self._sink = sink

    def run(self) -> None:
        # A program that has seen enough closes its end.
        with contextlib.suppress(BrokenPipeError), self._sink:
            for piece in self._pieces:
                self._sink.write(piece)


def _decompressed(path: str) -> Iterator[memoryview]:
    """A capture's bytes, a piece at a time, each valid until the next one is asked for."""
    stream, _ = open_stream(path)
    piece = memoryview(bytearray(PIECE))
    with contextlib.closing(stream):
        while count := stream.readinto(piece):
            yield piece[:count]


@contextlib.contextmanager
def running(command: Sequence[str], pieces: Iterable[bytes | memoryview], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that gets these pieces on its standard input where ``-`` stands in the command; ended with the block."""
    with (
        _environment() as environment,
        subprocess.Popen(command, stdin=subprocess.PIPE if "-" in command else subprocess.DEVNULL, env=environment, **streams) as process,
    ):
        try:
            if process.stdin is not None:
                feeder = _Feeder(pieces, process.stdin)
                process.stdin = None  # the feeder's from here on
                feeder.start()
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _source(path: str) -> str:
    """What a program is given to read: the file, or ``-`` where it is compressed, because which compressions it knows depends on how it was built."""
    stream, compression = open_stream(path)
    stream.close()
    return "-" if compression else os.path.abspath(path)


class Dissection:
    """A capture's packets as tshark's dissectors see them; ``damage`` is what it complained about behind the last one."""

    def __init__(self, path: str, ports: Sequence[int] = ()) -> None:
        """``ports`` are the brokers': what TCP carries there is not dissected."""
        self.damage: str | None = None
        self._path = path
        decode = [f"tcp.port=={port},data" for port in sorted(set(ports))] + [f"udp.port=={port},vxlan" for port in VXLAN_PORTS]
        self._command = [find("tshark"), "-n", "-r", _source(path), *OPTIONS]
        self._command += [option for rule in decode for option in ("-d", rule)]
        self._command += ["-T", "fields", "-E", "occurrence=a", "-E", "separator=/t", "-E", "aggregator=,"]
        self._command += [option for field in FIELDS for option in ("-e", field)]

    def packets(self) -> Iterator[Packet]:
        """The packets, in the order of the file.

        Raises UserError where tshark fails for another reason than a damaged capture.
        """
        with tempfile.TemporaryFile() as complaints:
            with running(self._command, _decompressed(self._path), stdout=subprocess.PIPE, stderr=complaints) as process:
                assert process.stdout is not None
                seen = 0
                for line in process.stdout:
                    if not line.endswith(b"\n"):
                        break  # ended by something else
                    packet = read_packet(line.decode("utf-8", "replace"), seen + 1)
                    if packet is not None:
                        seen += 1
                        yield packet
                code = process.wait()
            complaints.seek(0)
            said = last_line(complaints.read().decode("utf-8", "replace"))
        if code == DAMAGED_FILE and (seen or CUT_SHORT in said):
            self.damage = said
        elif code:
            raise UserError(
                f"{self._path}: tshark ended with {said!r} (exit code {code}); expected rows. Look whether Wireshark opens the capture."
            )


def cut(path: str, ranges: Sequence[tuple[int, int]], output: str) -> bool:
    """Copy records, by Wireshark's numbers from 1 (both ends included), to another capture.

    False where editcap cannot: of captures that hold secrets, or sections with interfaces of their own. One damaged behind the records is none of these.
    """
    command = [find("editcap"), "-r", _source(path), output, *(f"{first}-{last}" for first, last in ranges)]
    with running(command, _decompressed(path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        return process.wait() == 0


def last_line(said: str) -> str:
    """What a program said last."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and "could be dangerous" not in line]
    return lines[-1] if lines else "no message"
