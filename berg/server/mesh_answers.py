"""The mesh that a cortex is drawn on, as JSON."""

from __future__ import annotations

from berg.plotting.meshes import Mesh, fsaverage5
from berg.server import contract
from berg.server.numbers_as_json import as_base64


def fsaverage5_answer() -> contract.Meshes:
    """The two hemispheres of fsaverage5."""
    return contract.Meshes(name="fsaverage5", hemispheres={name: _mesh(own) for name, own in fsaverage5().items()})


def _mesh(mesh: Mesh) -> contract.Mesh:
    return contract.Mesh(
        n_vertices=mesh.n_vertices,
        n_faces=len(mesh.faces),
        inflated_base64=as_base64(mesh.inflated),
        faces_base64=as_base64(mesh.faces, "<i4"),
        sulci_base64=None if mesh.sulci is None else as_base64(mesh.sulci),
        flat_base64=None if mesh.flat is None else as_base64(mesh.flat),
        n_flat_faces=0 if mesh.flat_faces is None else len(mesh.flat_faces),
        flat_faces_base64=None if mesh.flat_faces is None else as_base64(mesh.flat_faces, "<i4"),
    )
