from pathlib import Path

import pytest

from berg.core import settings
from berg.core.exceptions import InvalidParameterError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for variable in ("BERG_DIR", "BERG_SOURCE", "BERG_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: tmp_path / "config")
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "data")


def configure(text):
    path = settings.configuration_path()
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_without_anything_the_defaults_hold(tmp_path):
    assert settings.berg_dir().value == tmp_path / "data" / "brain-encoding-response-generator"
    assert settings.source().value == "s3://brain-encoding-response-generator?region=us-west-2"
    assert settings.offline().value is False


def test_what_is_given_precedes_the_environment_which_precedes_the_configuration(monkeypatch):
    configure('berg_dir = "/configured"\nsource = "https://configured"\noffline = true\n')
    assert settings.berg_dir().value == Path("/configured")
    assert settings.berg_dir().origin == str(settings.configuration_path())
    assert settings.source().value == "https://configured"
    assert settings.offline().value is True
    monkeypatch.setenv("BERG_DIR", "/environment")
    monkeypatch.setenv("BERG_SOURCE", "https://environment")
    monkeypatch.setenv("BERG_OFFLINE", "0")
    assert settings.berg_dir().value == Path("/environment")
    assert "BERG_DIR" in settings.berg_dir().origin
    assert settings.source().value == "https://environment"
    assert settings.offline().value is False
    assert settings.berg_dir("/given") == settings.Setting(Path("/given"), "given")
    assert settings.source("https://given").value == "https://given"


def test_a_tilde_is_the_home_directory():
    assert settings.berg_dir("~/berg").value == Path.home() / "berg"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("", False)])
def test_offline_is_read_from_the_environment(monkeypatch, text, value):
    monkeypatch.setenv("BERG_OFFLINE", text)
    assert settings.offline().value is value


def test_an_unclear_offline_is_refused(monkeypatch):
    monkeypatch.setenv("BERG_OFFLINE", "maybe")
    with pytest.raises(InvalidParameterError, match=r"BERG_OFFLINE is 'maybe'; set it to 1 \(no downloads\) or 0"):
        settings.offline()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('berg_dri = "/data"', r"unknown setting 'berg_dri'. Did you mean 'berg_dir'\?"),
        ("berg_dir = 3", "berg_dir is of type int; write a str, such as"),
        ('offline = "yes"', "offline is of type str; write a bool, such as"),
        ("berg_dir = ", "cannot be read"),
    ],
)
def test_a_wrong_configuration_is_named_with_its_file(text, words):
    configure(text)
    with pytest.raises(InvalidParameterError, match=rf"config\.toml.*{words}"):
        settings.berg_dir()
