import pytest

from berg.core import model_registry


@pytest.fixture
def own_registry():
    """The registry with what is in it now; what a test registers is forgotten afterwards."""
    model_registry.get_available_models()
    names = ("MODEL_REGISTRY", "PROBLEMS", "_cards_read", "_opened", "_hand_written_cards")
    before = {name: getattr(model_registry, name).copy() for name in names}
    yield
    for name, content in before.items():
        held = getattr(model_registry, name)
        held.clear()
        held.update(content)
