"""How much a request may hold, and for how long a client may take; checked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from berg.core.exceptions import TooLargeError
from berg.system.byte_words import size_words

HIGHEST_RATE = 192_000  # samples per second of a sound that is as long as it may be


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and what a server keeps waiting.

    Attributes
    ----------
    body_bytes
        Of a request, as it comes.
    decoded_bytes
        Of its stimuli, decoded and at their final size.
    stimuli
        Of one request to encode; more than that is a job.
    job_bytes, job_stimuli
        Of one job.
    jobs
        That are kept at a time.
    pixels
        Of one picture, or one frame.
    frames, seconds
        Of one video; seconds of one sound, too.
    values
        Numbers in one answer; `listed_values`, if it is JSON with lists.
    waiting, waiting_of_one
        Requests that are decoded or wait for a model: of all clients, and of one.
    idle_seconds, body_seconds
        How long a client may send nothing, and how long the body of a request may take.
    requests_per_second
        Of one client, on average; twice as many at once.
    """

    body_bytes: int = 64_000_000
    decoded_bytes: int = 512_000_000
    stimuli: int = 256
    job_bytes: int = 2_000_000_000
    job_stimuli: int = 100_000
    jobs: int = 16
    pixels: int = 40_000_000
    frames: int = 20_000
    seconds: float = 120.0
    values: int = 16_000_000
    listed_values: int = 2_000_000
    waiting: int = 256
    waiting_of_one: int = 64
    idle_seconds: float = 20.0
    body_seconds: float = 120.0
    requests_per_second: float = 200.0

    def check_pixels(self, width: int, height: int, name: str) -> None:
        """Raise TooLargeError for a picture or a video of too many pixels."""
        if width * height > self.pixels:
            raise TooLargeError(
                f"{name} has {width:,} x {height:,} pixels; this server takes {self.pixels:,} of one picture. Make it "
                "smaller first."
            )

    def check_seconds(self, seconds: float, name: str) -> None:
        """Raise TooLargeError for a sound or a video that lasts too long."""
        if not seconds <= self.seconds:
            raise TooLargeError(
                f"{name} lasts {seconds:,.6g} s; this server takes {self.seconds:g} s at once. Cut it into parts."
            )

    def check_samples(self, n_samples: int, name: str) -> None:
        """Raise TooLargeError for a sound of so many samples, of all channels, that it would fill the memory."""
        most = int(self.seconds * HIGHEST_RATE)
        if n_samples > most:
            raise TooLargeError(f"{name} has {n_samples:,} samples; this server takes {most:,}. Cut it into parts.")

    def check_frames(self, n_frames: int, name: str) -> None:
        """Raise TooLargeError for a video of too many frames."""
        if n_frames > self.frames:
            raise TooLargeError(
                f"{name} has {n_frames:,} frames; this server takes {self.frames:,} at once. Cut it into parts."
            )

    def check_decoded(self, n_bytes: int) -> None:
        """Raise TooLargeError for stimuli that would take too much memory."""
        if n_bytes > self.decoded_bytes:
            raise TooLargeError(
                f"The stimuli take {size_words(n_bytes)} when they are decoded; this server takes "
                f"{size_words(self.decoded_bytes)} in one request. Give fewer, or bring them to a size (size=224)."
            )

    def check_number(self, n_stimuli: int) -> None:
        """Raise TooLargeError for too many stimuli at once."""
        if n_stimuli > self.stimuli:
            raise TooLargeError(
                f"{n_stimuli:,} stimuli were given; this server takes {self.stimuli:,} in one request. Give fewer, or "
                "make it a job (/api/jobs)."
            )

    def check_values(self, n_values: int, listed: bool) -> None:
        """Raise TooLargeError for an answer of too many numbers."""
        most = self.listed_values if listed else self.values
        if n_values > most:
            instead = ' ask for "numbers": "base64" or "format": "npz",' if listed and n_values <= self.values else ""
            raise TooLargeError(
                f"The responses are {n_values:,} numbers; this server sends {most:,} in such an answer. Give fewer "
                f"stimuli,{instead} or select fewer units."
            )


def too_large_body(most: int) -> TooLargeError:
    """The error for a request of too many bytes."""
    return TooLargeError(f"The request is larger than {size_words(most)}, which this server takes. Give fewer stimuli.")


def n_bytes_of(array: Any) -> int:
    """Bytes of an array that may not be in memory."""
    n_values = 1
    for length in array.shape:
        n_values *= int(length)
    return n_values * int(array.dtype.itemsize)
