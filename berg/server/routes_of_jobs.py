"""The addresses of jobs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.concurrency import run_in_threadpool

from berg.server import contract
from berg.server.guard import client_of
from berg.server.jobs import Jobs
from berg.server.routes import FORM, MOST_FIELD_BYTES, parsed
from berg.server.service import Service

_ERROR: dict[int | str, dict[str, Any]] = {"default": {"model": contract.ErrorAnswer}}


def routes_of_jobs(service: Service, jobs: Jobs) -> APIRouter:
    """What one does with jobs."""
    router = APIRouter(prefix="/api/jobs", responses=_ERROR)

    @router.post("", status_code=201, openapi_extra=FORM)
    async def create(request: Request) -> contract.Job:
        """Encode many stimuli to a store; the form is that of /api/encode."""
        jobs.check_room()
        with service.admitted(client_of(request.scope)):
            async with request.form(
                max_files=service.limits.job_stimuli, max_fields=8, max_part_size=MOST_FIELD_BYTES
            ) as form:
                asked, uploads = parsed(form)
                expected = service.expected(asked)
                return (await run_in_threadpool(jobs.create, asked, uploads, expected)).told()

    @router.get("/{job_id}")
    def state(job_id: str) -> contract.Job:
        """How far a job is."""
        return jobs.find(job_id).told()

    @router.post("/{job_id}/cancel")
    def cancel(job_id: str) -> contract.Job:
        """End a job after its batch; what it has is kept."""
        return jobs.cancel(job_id).told()

    @router.post("/{job_id}/resume")
    def resume(job_id: str) -> contract.Job:
        """Go on with a job that was cancelled or interrupted, or has failed."""
        return jobs.resume(job_id).told()

    @router.get("/{job_id}/result", response_class=FileResponse)
    def result(job_id: str) -> FileResponse:
        """The store, as a zip file that zarr and xarray open."""
        return FileResponse(jobs.result(job_id), media_type="application/zip", filename="responses.zarr.zip")

    @router.delete("/{job_id}", status_code=204)
    def remove(job_id: str) -> Response:
        """Forget a job, its stimuli and its responses."""
        jobs.remove(job_id)
        return Response(status_code=204)

    return router
