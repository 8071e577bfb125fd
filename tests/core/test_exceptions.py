import copy
import inspect
import pickle
import subprocess
import sys

import pytest

from berg.core import exceptions
from berg.core.exceptions import BERGError, did_you_mean, listing

BUILTIN = {
    "ModelNotFoundError": KeyError,
    "RegistrationError": ValueError,
    "ModelCardError": ValueError,
    "InvalidParameterError": ValueError,
    "StimulusError": ValueError,
    "ModelLoadError": RuntimeError,
    "ModelNotLoadedError": RuntimeError,
    "DeviceError": ValueError,
    "DeviceMemoryError": MemoryError,
    "MissingFileError": FileNotFoundError,
    "CorruptedFileError": ValueError,
    "UnsafeFileError": ValueError,
    "DownloadError": ConnectionError,
    "RemoteFileError": FileNotFoundError,
    "OfflineError": ConnectionError,
    "StorageError": OSError,
    "ServerError": ConnectionError,
    "ServerBusyError": ConnectionError,
    "AccessError": PermissionError,
    "TokenError": PermissionError,
    "TooSlowError": TimeoutError,
    "TooLargeError": ValueError,
    "ModelCheckError": AssertionError,
    "StoreMismatchError": ValueError,
    "StoreBusyError": RuntimeError,
    "StoreIncompleteError": RuntimeError,
    "WorkerLostError": RuntimeError,
    "ResourceError": BERGError,
    "DatasetError": ValueError,
    "MissingExtraError": ImportError,
}
ERRORS = {
    name: kind
    for name, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, Exception) and not issubclass(kind, Warning) and kind.__module__ == exceptions.__name__
}
SENTENCE = "There is no 'V5'.\nDid you mean 'V3'? 100 %"


def test_the_table_of_this_file_names_every_error():
    assert set(ERRORS) == {*BUILTIN, "BERGError"}


@pytest.mark.parametrize("name", BUILTIN)
def test_each_error_is_ours_and_the_builtin_one(name):
    with pytest.raises(BUILTIN[name], match="There is no"):
        raise ERRORS[name](SENTENCE)
    assert issubclass(ERRORS[name], BERGError)


@pytest.mark.parametrize("name", ["DeviceMemoryError", "StorageError"])
def test_memory_and_room_on_a_disk_are_resources(name):
    with pytest.raises(exceptions.ResourceError, match="There is no"):
        raise ERRORS[name](SENTENCE)


@pytest.mark.parametrize("name", ERRORS)
def test_the_text_of_an_error_is_its_sentence(name):
    assert str(ERRORS[name](SENTENCE)) == SENTENCE
    assert f"{ERRORS[name](SENTENCE)}" == SENTENCE
    assert str(ERRORS[name]()) == ""


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])  # noqa: S301
def test_an_error_survives_the_way_between_processes(name, again):
    error = again(ERRORS[name](SENTENCE))
    assert type(error) is ERRORS[name]
    assert str(error) == SENTENCE
    assert error.args == (SENTENCE,)


@pytest.mark.parametrize(
    ("given", "allowed", "sentence"),
    [
        ("V5", ["V1", "V3", "PPA"], " Did you mean 'V3'?"),
        ("v1", ["V1", "V2"], " Did you mean 'V1'?"),
        ("subjct", ["selection", "subject"], " Did you mean 'subject'?"),
        ("entirely other", ["V1"], ""),
        ("x", [], ""),
        (None, ["none"], " Did you mean 'none'?"),
        (11, [1, 10, 111], " Did you mean '111'?"),
        ("a" * 1_000_000, ["abc"] * 100, ""),
    ],
)
def test_the_nearest_name_is_proposed(given, allowed, sentence):
    assert did_you_mean(given, allowed) == sentence


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        ([1, "b"], "1, b"),
        (range(12), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"),
        (range(13), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (13 in all)"),
        ((name for name in "ab"), "a, b"),
    ],
)
def test_a_long_list_of_names_is_cut(names, text):
    assert listing(names) == text


def test_errors_survive_where_dask_sends_them():
    script = (
        "import pickle, sys, distributed, tblib.pickling_support; from berg.core import exceptions\n"
        "tblib.pickling_support.install()\n"
        "for name in sys.argv[1:]:\n"
        "    given = getattr(exceptions, name)('why'); came = pickle.loads(pickle.dumps(given))\n"
        "    assert type(came) is type(given) and str(came) == 'why', name\n"
        "print('all')"
    )
    done = subprocess.run([sys.executable, "-c", script, *ERRORS], capture_output=True, text=True, check=False)
    assert done.stdout == "all\n", done.stderr
