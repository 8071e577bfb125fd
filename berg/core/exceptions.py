"""Every error that this package raises on purpose.

Each is a ``BERGError`` and also the builtin error that fits, so that an ``except ValueError`` or
``except FileNotFoundError`` written before BERG was in use goes on working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class BERGError(Exception):
    """The parent of all errors of this package."""

    def __str__(self) -> str:
        # KeyError and OSError would wrap or reorder the sentence.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        # The errors with two builtin parents cannot be sent between processes otherwise, once dask is imported.
        return type(self), self.args, self.__dict__ or None


class ModelNotFoundError(BERGError, KeyError):
    """No model with that id is registered."""


class RegistrationError(BERGError, ValueError):
    """A model cannot be registered: its id is taken, or its class cannot be imported."""


class ModelCardError(BERGError, ValueError):
    """A model card cannot be read, or says something that cannot be true."""


class InvalidParameterError(BERGError, ValueError):
    """A parameter or a selection that the model does not take."""


class StimulusError(BERGError, ValueError):
    """A stimulus that the model cannot take."""


class ModelLoadError(BERGError, RuntimeError):
    """A model cannot be made ready: its weights do not fit, or its device is not there."""


class ModelNotLoadedError(ModelLoadError):
    """The model has no weights in memory, because it was not loaded yet or was cleaned up."""


class DeviceError(ModelLoadError, InvalidParameterError):
    """The device asked for does not exist on this machine."""


class ResourceError(BERGError):
    """Memory or room on a disk does not suffice; the parent of the errors that say which."""


class DeviceMemoryError(ModelLoadError, ResourceError, MemoryError):
    """The device has too little memory for this batch or model."""


class MissingFileError(ModelLoadError, FileNotFoundError):
    """A file that the model needs is not where it should be."""


class CorruptedFileError(ModelLoadError, ValueError):
    """A file is there but is not what it claims to be."""


class UnsafeFileError(CorruptedFileError):
    """A file asks for something that only code could do; nothing of it was run."""


class DownloadError(BERGError, ConnectionError):
    """A file cannot be had from where it lies; what has come of it is kept for the next attempt."""


class RemoteFileError(DownloadError, FileNotFoundError):
    """The server has no such file, or not for everybody."""


class OfflineError(DownloadError):
    """A file would have to come over the network, and BERG_OFFLINE forbids it."""


class StorageError(ResourceError, OSError):
    """A file cannot be written: the disk is full, or one may not write there."""


class ModelCheckError(BERGError, AssertionError):
    """A model fails checks that every model should pass."""


class StoreMismatchError(BERGError, ValueError):
    """A store of responses is there already, of another model, selection, stimuli or way of computing."""


class StoreBusyError(BERGError, RuntimeError):
    """Another process is writing to this store."""


class StoreIncompleteError(BERGError, RuntimeError):
    """Not all stimuli of a store are encoded yet."""


class WorkerLostError(BERGError, RuntimeError):
    """A process of a cluster died at its work, each time that the work was given out."""


class DatasetError(BERGError, ValueError):
    """Recordings to fit or evaluate with contradict themselves, or cannot be read."""


class MissingExtraError(BERGError, ImportError):
    """An optional package is not installed."""


class ServerError(BERGError, ConnectionError):
    """A server of models cannot be reached, or does not answer as one."""


class ServerBusyError(ServerError):
    """A server has as much to do as it takes; the same request again, a little later, is answered."""


class AccessError(ServerError, PermissionError):
    """A server does not answer those who ask: the token is missing or wrong, or a page of another site asks."""


class TokenError(AccessError):
    """A server takes a token, which is missing or wrong."""


class TooSlowError(ServerError, TimeoutError):
    """A request came so slowly that the server gave it up."""


class TooLargeError(ServerError, ValueError):
    """A request, a stimulus or an answer is larger than a server takes."""


class StimulusWarning(UserWarning):
    """A stimulus is taken, but lies outside what a model can speak for; `StimulusError` is for one that is not."""


class SlowPrecisionWarning(UserWarning):
    """A precision was asked for that the processor has no instructions for, and is slower than float32."""


def did_you_mean(given: object, allowed: Iterable[object]) -> str:
    """A sentence with the nearest allowed name, or an empty string; it starts with a space.

    >>> did_you_mean("V5", ["V1", "V3", "PPA"])
    " Did you mean 'V3'?"
    """
    names = {str(name).casefold(): str(name) for name in reversed(list(allowed))}
    close = difflib.get_close_matches(str(given).casefold(), list(names), n=1, cutoff=0.5)
    return f" Did you mean '{names[close[0]]}'?" if close else ""


def listing(names: Iterable[object], most: int = 12) -> str:
    """Names separated by commas, cut after `most` of them."""
    shown = [str(name) for name in names]
    tail = f", ... ({len(shown)} in all)" if len(shown) > most else ""
    return ", ".join(shown[:most]) + tail
