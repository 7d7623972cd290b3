"""parity.json: what the proof of a bundle found, for programs and in words."""

from pathlib import Path
from typing import Final

import msgspec

PARITY: Final = "parity.json"


class Proof(msgspec.Struct, frozen=True):
    """The contents of parity.json. `real_rows` came from people, `threshold_rows` were made to lie at the model's
    splits; the rest are mixtures and rows with odd values.

    `max_difference`: the largest difference as the tolerance judges it, absolute up to 1 and relative beyond; for a
    label, how far apart the original's two likeliest classes were (1 where nothing says). `label_agreement`: share of
    rows with the same label, 1.0 without labels; `label_differences`: how many rows have another one. `accepted`: the
    --accept-difference that was needed, 0 where the tolerance was kept. `refused`: kinds of values the original refuses
    to answer; the converted model answers them, with what nobody knows. `types`: those a
    skops file named beyond skops' own list of what is harmless.
    """

    rows: int
    real_rows: int
    threshold_rows: int
    max_abs: float
    max_rel: float
    label_agreement: float
    tolerance: float
    how: str
    refused: tuple[str, ...] = ()
    max_difference: float = 0.0
    label_differences: int = 0
    accepted: float = 0.0
    types: tuple[str, ...] = ()

    def sentence(self) -> str:
        """One line: rows compared, largest difference, labels, tolerance."""
        accepted = f", accepted up to {self.accepted:g}" if self.accepted else ""
        return (
            f"{self.rows} rows compared, largest difference {self.max_difference:.2g} (tolerance {self.tolerance:g}"
            f"{accepted}), {self._labels()}"
        )

    def table(self) -> list[list[str]]:
        """The same in full: pairs of what and how much."""
        rows = [
            ["rows compared", f"{self.rows}"],
            ["of them real", f"{self.real_rows}"],
            ["on both sides of splits", f"{self.threshold_rows}"],
            ["largest difference", f"{self.max_difference:.3g}"],
            ["largest absolute difference", f"{self.max_abs:.3g}"],
            ["largest relative difference", f"{self.max_rel:.3g}"],
            ["tolerance", f"{self.tolerance:g}"],
        ]
        rows += [["difference accepted", f"up to {self.accepted:g}"]] if self.accepted else []
        rows += [["labels", self._labels()], ["rows were", self.how]]
        rows += [["the original refuses", ", ".join(self.refused)]] if self.refused else []
        return rows + ([["types trusted", ", ".join(self.types)]] if self.types else [])

    def _labels(self) -> str:
        if not self.label_differences:
            return "labels agree on all of them"
        return f"another label on {self.label_differences} of them"


def read_proof(folder: Path) -> Proof | None:
    """The proof of a bundle whose files were checked; None when it holds none (a bundle made by hand)."""
    try:
        return msgspec.json.decode((folder / PARITY).read_bytes(), type=Proof)
    except (OSError, msgspec.ValidationError):
        return None
