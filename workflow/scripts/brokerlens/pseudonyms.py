"""What outputs show instead of addresses and names where the configuration says `anonymize: true`: the same for the same secret, in every study.

Addresses keep their common prefixes (Crypto-PAn: Xu, Fan, Ammar, Moon, "Prefix-Preserving IP Address Anonymization", ICNP 2002), names get labels that say what
they stand for. Both are functions of the name and the secret alone, so that what belongs together is still found to do so, over captures, sites and runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from brokerlens.errors import UserError

if TYPE_CHECKING:
    from yacryptopan import CryptoPAn

SECRET_BYTES: Final = 32
LABEL_DIGITS: Final = 12
"""48 bits: among ten thousand names two share a label in one of five million studies."""
ENDING: Final = re.compile(r"\.(pcap|pcapng|cap|dmp|pcap[0-9]+)(\.(gz|zst|xz|bz2))?$", re.IGNORECASE)
SOFTWARE: Final = frozenset(
    (
        "apache-kafka-java", "librdkafka", "confluent-kafka-python", "confluent-kafka-go", "confluent-kafka-dotnet", "confluent-kafka-javascript",
        "confluent-kafka-rust", "rdkafka-ruby", "rust-rdkafka", "kafka-python", "aiokafka", "sarama", "kgo", "franz-go", "kafka-go", "kafkajs", "node-rdkafka",
        "rskafka", "brod", "kcat", "vertx-kafka-client", "akka-kafka", "strimzi-kafka", "dotkafka",
    )
)  # fmt: skip
"""Names that client libraries give themselves: shared by so many that they tell of nobody. Any other is hidden."""
VERSION: Final = re.compile(
    r"v?[0-9]{1,5}(\.[0-9]{1,5}){0,2}([.+-]?(rc|alpha|beta|dev|post|snapshot|ccs|ce)[0-9]{0,5})?(-(lib)?rdkafka-[0-9]{1,5}(\.[0-9]{1,5}){0,2})?",
    re.IGNORECASE | re.ASCII,
)
"""Short enough to hold no address and no other number that tells of somebody."""
_IPV4: Final = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_ADDRESS: Final = re.compile(
    rf"(?<![\w:.])(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}(?:{_IPV4}|[0-9A-Fa-f]{{0,4}})(?![\w:])|(?<![\w.]){_IPV4}(?!\w|\.[0-9])", re.ASCII
)
_PATH: Final = re.compile(r"(?<![\w<])(?:~|\.{1,2})?/?(?:[^\s/'\"“”,;:]+/)+[^\s/'\"“”,;:]*|(?<!\w)/[^\s/'\"“”,;:]+")


class Pseudonyms:
    """Maps names and addresses; without a secret every one to itself."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret
        self._addresses: dict[str, str] = {}

    def __bool__(self) -> bool:
        """Whether anything is hidden."""
        return self._secret is not None

    @property
    def digest(self) -> str:
        """Tells secrets apart and tells nothing of them; "" without one."""
        return self._keyed("digest", "").hex()[:16] if self else ""

    def address(self, text: str) -> str:
        """An IP address. Two with a common prefix have pseudonyms with one of the same length."""
        if not self:
            return text
        if text not in self._addresses:
            real = ipaddress.ip_address(text)
            self._addresses[text] = str(type(real)(self._prefixes.anonymize_bin(int(real), real.version)))
        return self._addresses[text]

    def endpoint(self, text: str) -> str:
        """``ip:port`` or ``[ipv6]:port``; ports stay."""
        host, _, port = text.rpartition(":")
        shown = self.address(host.strip("[]"))
        return f"[{shown}]:{port}" if host.startswith("[") else f"{shown}:{port}"

    def name(self, kind: str, text: str) -> str:
        """A label for a name of this kind (client, topic, cluster, …); no name has none."""
        return f"{kind}-{self._keyed(kind, text).hex()[:LABEL_DIGITS]}" if self and text else text

    def capture(self, name: str) -> str:
        """A label for a capture, with the ending that says what file it is."""
        ending = ENDING.search(name)
        return self.name("capture", name) + (ending[0].lower() if self and ending else "")

    def software(self, text: str) -> str:
        """The name or the version of a client's software: those of well-known libraries stay, since they tell of nobody."""
        return text if text in SOFTWARE or VERSION.fullmatch(text) else self.name("software", text)

    def sentence(self, text: str, known: Mapping[str, str]) -> str:
        """A message of ours or of another program: ``known`` names by what stands for them, then every path, and every address."""
        if not self:
            return text
        for name in sorted(filter(None, known), key=len, reverse=True):
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", known[name], text)
        return _ADDRESS.sub(self._address_in_text, _PATH.sub("(a path)", text))

    def _address_in_text(self, found: re.Match[str]) -> str:
        try:
            return self.address(found[0])
        except ValueError:
            return found[0]

    @cached_property
    def _prefixes(self) -> CryptoPAn:
        from yacryptopan import CryptoPAn

        return CryptoPAn(self._keyed("address", ""))

    def _keyed(self, kind: str, text: str) -> bytes:
        """32 bytes that only who has the secret can tell from others."""
        assert self._secret is not None
        return hmac.digest(self._secret, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256)


AS_THEY_ARE: Final = Pseudonyms()


def of_job(settings: Mapping[str, Any] | None) -> Pseudonyms:
    """The pseudonyms of a job: ``secret_file`` and the ``digest`` that the secret had when the run began; None: nothing is hidden.

    Raises UserError where the file has another secret by now.
    """
    if settings is None:
        return AS_THEY_ARE
    found = Pseudonyms(read_secret(settings["secret_file"]))
    if found.digest != settings["digest"]:
        raise UserError(
            f"{settings['secret_file']}: found another secret than at the start of the run; expected the same. Run the same command again."
        )
    return found


def read_secret(path: str | Path) -> bytes:
    """The secret in a file; made where there is none. Raises UserError where the file cannot be read or made, or holds no secret."""
    try:
        if not os.path.lexists(path):
            _make_secret(Path(path))
        text = Path(path).read_text(encoding="ascii").strip()
        secret = bytes.fromhex(text)
    except OSError as error:
        raise UserError(
            f"secret_file: found that {path} cannot be read or made ({error.strerror}), expected a file that only you can read. "
            f"Make it yourself: umask 077; openssl rand -hex {SECRET_BYTES} > FILE"
        ) from error
    except ValueError:
        secret = b""
    if len(secret) < SECRET_BYTES:
        raise UserError(
            f"secret_file: found no secret in {path}, expected {2 * SECRET_BYTES} hexadecimal digits. Restore the file, or remove it: a new secret gives new pseudonyms."
        )
    return secret


def _make_secret(path: Path) -> None:
    """Once, whoever else does so at this moment: the file appears with its content, for the owner only."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(file, "w", encoding="ascii") as opened:
            opened.write(secrets.token_hex(SECRET_BYTES) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
