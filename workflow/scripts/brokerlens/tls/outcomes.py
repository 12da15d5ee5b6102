"""What became of a connection of a site with TLS keys."""

from __future__ import annotations

from typing import Final

OUTCOMES: Final = ("", "decrypted", "in_part", "no_key", "hole", "cut_by_snaplen", "began_before_capture", "not_tls")
"""The first one is that there was nothing to decrypt. `hole` and `cut_by_snaplen` may be decrypted up to there, one direction or both."""
UNOPENED: Final = ("no_key", "began_before_capture")
"""Those of TLS connections of which no key opened anything."""
NOTHING, DECRYPTED, IN_PART, NO_KEY, HOLE, CUT, BEGAN_BEFORE, NOT_TLS = range(len(OUTCOMES))
