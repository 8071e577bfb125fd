"""``berg new``"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from berg.core.exceptions import InvalidParameterError

if TYPE_CHECKING:
    from berg.models.card_of_data import DataFacts

WAYS = """\
A new model is a card and weights (--family), or a card and a class (--class).

  berg new fmri-mydata-mymodel --family {family}
      Writes the card alone. Families: {families}.
  berg new fmri-mydata-mymodel --class
      Writes the card, a Python file that runs, and a test.

An id is {{modality}}-{{dataset}}-{{model}}. Fill in what begins with TODO, put the weights into the BERG
directory, then:  berg check CARD_OR_ID"""


def new(
    model_id: str | None = None,
    *,
    family: str | None = None,
    own_class: Annotated[bool, Parameter(name="--class", negative="")] = False,
    out: Path = Path(),
    description: str | None = None,
    data: Path | None = None,
) -> None:
    """Write the files of a new model, with TODO where only you know what to say.

    In a checkout of BERG the files go to their places in it. Elsewhere --family writes the card into the
    folder, and --class a package that pip installs. Nothing is overwritten.

    Parameters
    ----------
    model_id
        {modality}-{dataset}-{model}, such as fmri-nsd-fwrf. Without it, the ways are explained.
    family
        The family that the model belongs to.
    own_class
        The model is a class of its own.
    out
        The checkout or the folder; here, if not given.
    description
        What the model predicts, in a sentence, for the card.
    data
        The folder of the recordings that it is to be fitted to: outputs, units, regions, channels and subjects of the
        card then come from its dataset.yaml. Look at it before:  berg dataset check FOLDER
    """
    from berg.models.new_model import families, write_new_model

    names = families()
    ways = WAYS.format(family=names[0], families=", ".join(names))
    if model_id is None:
        print(ways)
        return
    if (family is None) != own_class:
        raise InvalidParameterError(f"Say one of --family and --class.\n\n{ways}")
    if data is not None and family is None:
        raise InvalidParameterError(
            "--data is for the card of a family, which berg fit reads. Add --family linearizing"
        )
    facts = None if data is None else _facts(data)
    for path in write_new_model(model_id, family, out, description, facts):
        print(path)


def _facts(folder: Path) -> DataFacts:
    """What the recordings in a folder say of themselves; of several subjects, those of the first."""
    from berg.datasets.card import NAME, DatasetCard
    from berg.datasets.dataset import EncodingDataset
    from berg.models.card_of_data import DataFacts, OutputFacts
    from berg.stimuli import stimulus_set

    card = DatasetCard.read(folder / NAME if folder.is_dir() else folder)
    dataset = EncodingDataset.open(folder, next(iter(card.subjects), None))
    outputs = [
        OutputFacts(name, own.axes, own.shape, own.unit, _labels(own.coordinates))
        for name, own in dataset.outputs.items()
    ]
    return DataFacts(outputs, card.subjects, stimulus_set.kind_of(dataset.stimuli))


def _labels(coordinates: Mapping[str, tuple[str, Any]]) -> dict[str, tuple[str, list[Any]]]:
    return {name: (axis, values.tolist()) for name, (axis, values) in coordinates.items()}
