"""Formulas as MathML, which browsers draw by themselves: nothing is fetched when a page is viewed."""

from docutils.nodes import Element, SkipNode, make_id
from docutils.utils.math.latex2mathml import tex2mathml


def write_inline(translator, node: Element) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def write_block(translator, node: Element) -> None:
    label = f' id="{make_id(node["label"])}"' if node.get("label") else ""
    translator.body.append(f'<div class="math"{label}>{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
