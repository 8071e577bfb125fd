"""Each experiment on representations from a file of parameters to a result and a figure."""

import numpy as np
import pytest
from simulated import labelled, mixed

from berg.cli.app import main
from berg.experiments.result import draw, open_result
from berg.plotting.page import Sheet
from berg.responses.save import save_responses

PARAMETERS = {
    "rsa": """
subjects: [{responses: a.nc}, {responses: b.nc}]
models: {same: {responses: b.nc}, other: {responses: c.nc}}
n_resamples: 100
""",
    "rdms": "responses: {a: {responses: a.nc}, b: {responses: b.nc}}",
    "cka": "responses: {a: {responses: a.nc}, b: {responses: b.nc}, c: {responses: c.nc}}",
    "partition": """
responses: {responses: a.nc}
spaces: {b: {responses: b.nc}, c: {responses: c.nc}}
alphas: [1, 10, 100]
n_resamples: 20
""",
    "commonality": """
subjects: {responses: a.nc}
predictors: {b: {responses: b.nc}, c: {responses: c.nc}}
n_resamples: 20
""",
    "fusion": """
in_time: {responses: t.nc}
regions: {a: {responses: a.nc}, c: {responses: c.nc}}
models: {b: {responses: b.nc}}
n_permutations: 20
n_sets: 5
""",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(24, 10))
    for subject, name in enumerate("ab", 1):
        save_responses(labelled(mixed(features, 12, rng), subject=subject), tmp_path / f"{name}.nc")
    save_responses(labelled(rng.normal(size=(24, 8)), "fmri-a-c"), tmp_path / "c.nc")
    moments = mixed(features, 6, rng)[..., None] * np.linspace(0, 1, 5) + rng.normal(size=(24, 6, 5))
    save_responses(labelled(moments, "eeg-a-b", times=np.arange(5) / 50), tmp_path / "t.nc")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::berg.fitting.penalties.PenaltyGridWarning")
@pytest.mark.parametrize("experiment", PARAMETERS)
def test_a_file_of_parameters_gives_a_result_and_a_figure(experiment, folder, capsys):
    (folder / "own.yaml").write_text(PARAMETERS[experiment])
    assert main(["experiment", experiment, "own.yaml", "--figure", "own.svg"]) in (0, None)
    assert "Result: own.nc\nFigure: own.svg" in capsys.readouterr().out
    assert open_result(folder / "own.nc").attrs["experiment"] == experiment
    assert "fmri-a-b subject 1" in (folder / "own.svg").read_text("utf-8")


@pytest.mark.filterwarnings("ignore::berg.fitting.penalties.PenaltyGridWarning")
def test_features_are_read_from_arrays(folder):
    rng = np.random.default_rng(1)
    for name in "yab":
        np.save(folder / f"{name}.npy", rng.normal(size=(20, 4)))
    (folder / "own.yaml").write_text(
        "responses: {array: y.npy}\nspaces: {a: {array: a.npy}, b: {array: b.npy}}\nalphas: [1, 10]\nn_resamples: 10\n"
    )
    main(["experiment", "partition", "own.yaml"])
    assert open_result(folder / "own.nc").sizes["unit"] == 4


def test_many_matrices_and_long_names_have_a_figure():
    from berg import experiments

    rng = np.random.default_rng(2)
    given = {f"a region with a long name, $number$ {n}": rng.normal(size=(12, 6)) for n in range(9)}
    for result in (experiments.rdms(given), experiments.cka(given)):
        assert isinstance(draw(result), Sheet)
    result = experiments.rsa(given["a region with a long name, $number$ 0"], given, n_resamples=100)
    assert draw(result)._repr_png_()
