"""The rooms of the package and who imports whom, measured from the imports and drawn.

``python docs/_ext/rooms.py`` prints lines per room, circles between files and arrows that run up;
``python docs/_ext/rooms.py rooms.svg`` draws the picture of the architecture page.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import networkx as nx
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from test_architecture import (  # noqa: E402
    FLOOR,
    FLOORS,
    arrows_between_files,
    circles,
    files_of_models,
    may,
    module_name,
    room_of,
)

PACKAGE = ROOT / "berg"
INK, BOX, EDGE, UPWARD = "#333333", "#eef3f8", "#4a6a8a", "#c0504d"


@dataclass(frozen=True)
class House:
    """Files, their lines and rooms, and the imports between files."""

    lines: dict[str, int]
    rooms: dict[str, str]
    arrows: dict[str, set[str]]

    @property
    def between_rooms(self) -> Counter[tuple[str, str]]:
        """How many imports lead from one room to another."""
        pairs = ((self.rooms[one], self.rooms[other]) for one in self.arrows for other in self.arrows[one])
        return Counter((one, other) for one, other in pairs if one != other and {one, other} <= set(FLOOR))

    @property
    def circles(self) -> list[set[str]]:
        """Files that import each other, directly or by way of others."""
        return circles(self.arrows)

    @property
    def upward(self) -> dict[tuple[str, str], int]:
        """Imports from a room to one that it may not import."""
        return {pair: count for pair, count in self.between_rooms.items() if not may(*pair)}

    def lines_of(self, room: str) -> int:
        """Lines of all files of a room."""
        return sum(count for name, count in self.lines.items() if self.rooms[name] == room)


def measure(package: Path = PACKAGE) -> House:
    """Read every file of the package."""
    of_models = files_of_models(package)
    files = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    rooms = {name: room_of(path.relative_to(package).parts, of_models) for name, path in files.items()}
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in files.items()}
    return House(lines, rooms, arrows_between_files(package))


def draw(house: House, path: Path) -> None:
    """The rooms floor by floor; an arrow leads to each room that is imported and not reached over other arrows."""
    floors = [[room for room in rooms.split() if house.lines_of(room)] for rooms in FLOORS]
    floors = [rooms for rooms in floors if rooms]
    places = {
        room: ((index + 0.5) / len(rooms), height)
        for height, rooms in enumerate(floors)
        for index, room in enumerate(rooms)
    }
    downward = nx.DiGraph(pair for pair in house.between_rooms if pair not in house.upward)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "rooms", "font.size": 9}):
        figure = Figure(figsize=(8, 0.85 * len(floors)))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 1), ylim=(-0.5, len(floors) - 0.5))
        axes.set_axis_off()
        for one, other in nx.transitive_reduction(downward).edges:
            axes.add_patch(arrow(places[one], places[other], EDGE))
        for one, other in house.upward:
            axes.add_patch(arrow(places[one], places[other], UPWARD))
        for room, (x, y) in places.items():
            words = f"{room}\n{house.lines_of(room):,} lines"
            box = {"boxstyle": "round,pad=0.45", "facecolor": BOX, "edgecolor": EDGE}
            axes.text(x, y, words, ha="center", va="center", color=INK, bbox=box, zorder=3)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)


def picture(house: House) -> str:
    """The picture as SVG, the same text for the same house."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "rooms.svg")
        draw(house, path)
        return path.read_text("utf-8")


def arrow(start: tuple[float, float], end: tuple[float, float], colour: str) -> FancyArrowPatch:
    """An arrow from edge to edge of two boxes, curved if it passes other floors."""
    across, down = 8 * (end[0] - start[0]), 0.85 * (end[1] - start[1])  # inches
    length = max(float(np.hypot(across, down)), 1e-9)
    gap = 19 * abs(down) / length + 44 * abs(across) / length  # half a box is 19 points high and 44 wide
    bend = 0.1 if abs(start[1] - end[1]) > 1 else 0.0
    options = {"arrowstyle": "-|>", "mutation_scale": 10, "shrinkA": 16, "shrinkB": gap, "color": colour, "zorder": 2}
    return FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **options)


def report(house: House) -> str:
    """Lines per room from the top down, circles, and arrows that run up, in words."""
    total = sum(house.lines.values())
    rows = [(room, house.lines_of(room)) for rooms in reversed(FLOORS) for room in rooms.split()]
    lines = [f"{room:14} {count:6,} {count / total:5.0%}" for room, count in rows if count]
    return "\n".join(
        [
            *lines,
            f"{'together':14} {total:6,}",
            f"circles between files: {len(house.circles)}",
            *(f"  {', '.join(sorted(found))}" for found in house.circles),
            f"imports of rooms that may not be imported: {house.upward or 0}",
        ]
    )


if __name__ == "__main__":
    found = measure()
    if sys.argv[1:]:
        draw(found, Path(sys.argv[1]))
    else:
        print(report(found))
