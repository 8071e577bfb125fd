"""Numbers of bytes in words."""

from __future__ import annotations


def size_words(n_bytes: float) -> str:
    """Bytes as people write them.

    >>> size_words(2_340_000_000), size_words(51_200), size_words(12)
    ('2.3 GB', '51.2 kB', '12 B')
    """
    size, unit = float(n_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.95 or unit == "TB":  # above it would be written as 1000.0
            break
        size /= 1000
    return f"{size:,.0f} B" if unit == "B" else f"{size:,.1f} {unit}"
