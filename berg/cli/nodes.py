"""``berg nodes``"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from berg.core.exceptions import InvalidParameterError
from berg.features.network_nodes import network_nodes


def nodes(network: str, *, weights: str = "", contains: str | None = None) -> None:
    """Print the layers of a network that a card can name, their shapes and numbers of features.

    No weights are needed; of transformers, the two configurations.

    Parameters
    ----------
    network
        PROVIDER/NAME, such as torchvision/vit_b_32, timm/convnext_tiny or open_clip/ViT-B-32.
    weights
        As in a card, for networks that lie in a folder: /data/dinov2.
    contains
        Only nodes with this in their names, such as resblocks.
    """
    found = network_nodes(network, weights)
    chosen = [node for node in found if contains is None or contains in node.name]
    if not chosen:
        raise InvalidParameterError(f"{network} has no node with '{contains}' in its name. All:  berg nodes {network}")
    table = Table("node", "kind", "shape", "features", "also", box=None)
    for node in chosen:
        also = " ".join(f":{pooling}" for pooling in node.poolings)
        table.add_row(node.name, node.kind, " x ".join(map(str, node.shape)), f"{node.n_features:,}", also)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
