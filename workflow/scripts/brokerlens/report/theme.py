"""Colours of the page and its charts, as CSS variables: the charts use ``var(--x)`` and follow the theme without a redraw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

# role: light, dark. Contrasts on the card: lines at least 3, text at least 4.5; the six sites stay apart for the colour-blind.
PALETTE: Final[Mapping[str, tuple[str, str]]] = {
    "s1": ("#2749b0", "#3883d9"),
    "s2": ("#a64605", "#c47a10"),
    "s3": ("#00a3a7", "#98e2d5"),
    "s4": ("#836bdf", "#b7a8fd"),
    "s5": ("#a98e32", "#e6b835"),
    "s6": ("#7b2963", "#f07b91"),
    "t1": ("#2749b0", "#6aa8ee"),
    "t2": ("#a64605", "#dd9a3e"),
    "t3": ("#0b756e", "#98e2d5"),
    "t4": ("#6c50c8", "#b7a8fd"),
    "t5": ("#776410", "#e6b835"),
    "t6": ("#7b2963", "#f07b91"),
    "page": ("#f6f7f9", "#101318"),
    "card": ("#ffffff", "#171b21"),
    "line": ("#dfe3e8", "#2a3038"),
    "grid": ("#e8ebef", "#242a32"),
    "axis": ("#b9c0ca", "#4a5361"),
    "ink": ("#1b1f24", "#e9ecf1"),
    "second": ("#4a5260", "#b4bcc8"),
    "third": ("#5f6875", "#98a2b0"),
    "warning": ("#8a5a00", "#f2b84b"),
    "shade": ("#fdf3dc", "#33290f"),
    "bad": ("#b3261e", "#ff8a80"),
    "good": ("#1b6e3c", "#7fd49a"),
    "network": ("#66738a", "#5d6a7c"),
    "broker": ("#1d2b45", "#c9d6ee"),
    "queue": ("#9a6414", "#8a611d"),
    "transfer": ("#c9d0da", "#39424f"),
    "unknown": ("#e8ebef", "#242a32"),
    "on-network": ("#ffffff", "#ffffff"),
    "on-broker": ("#ffffff", "#101318"),
    "on-queue": ("#ffffff", "#ffffff"),
    "on-transfer": ("#1b1f24", "#e9ecf1"),
    "grey": ("#8b94a1", "#7a8492"),
    "h0": ("#e9effa", "#1b2738"),
    "h1": ("#c3d3f2", "#1f3a5f"),
    "h2": ("#96b1e8", "#27548c"),
    "h3": ("#6388d8", "#3877bd"),
    "h4": ("#3a60c0", "#66a3e6"),
    "h5": ("#17307e", "#b9d9ff"),
}
COLOURED_SITES: Final = 6
FONT: Final = (
    '"Segoe UI Variable Text","Segoe UI",-apple-system,BlinkMacSystemFont,Inter,"Noto Sans","Liberation Sans",system-ui,sans-serif'
)


def css_variables() -> str:
    """The palette as CSS: light by default, dark by the system's wish or the reader's choice."""
    light, dark = (";".join(f"--{role}:{colours[i]}" for role, colours in PALETTE.items()) for i in (0, 1))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
    )


def light_palette() -> dict[str, str]:
    """``var(--x)`` → colour, for figures that are saved to files, where CSS variables mean nothing."""
    return {f"var(--{role})": colours[0] for role, colours in PALETTE.items()}


def resolved(spec: Any, palette: Mapping[str, str]) -> Any:
    """The specification with every string that is exactly a variable replaced by its colour."""
    if isinstance(spec, Mapping):
        return {key: resolved(value, palette) for key, value in spec.items()}
    if isinstance(spec, list):
        return [resolved(value, palette) for value in spec]
    return palette.get(spec, spec) if isinstance(spec, str) else spec


class SiteColours:
    """The colour of each site: one of six by the order of the configuration, grey for all where there are more."""

    def __init__(self, sites: Sequence[str]) -> None:
        unique = list(dict.fromkeys(sites))
        self.many = len(unique) > COLOURED_SITES
        self._number = {site: i + 1 for i, site in enumerate(unique)}

    def mark(self, site: str) -> str:
        """Colour of lines and dots."""
        return "var(--grey)" if self.many else f"var(--s{self._number[site]})"

    def text(self, site: str) -> str:
        """Colour of the site's name in charts."""
        return "var(--second)" if self.many else f"var(--t{self._number[site]})"
