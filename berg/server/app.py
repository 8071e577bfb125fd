"""The application: the API, the page, and what stands before both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

import berg
from berg.core.exceptions import BERGError, InvalidParameterError, ServerError, TooLargeError
from berg.server.error_answers import UNKNOWN, error_body, headers_of, status_of
from berg.server.guard import CUT, Access, Guard
from berg.server.jobs import Jobs
from berg.server.routes import routes
from berg.server.routes_for_python import routes_for_python
from berg.server.routes_of_jobs import routes_of_jobs
from berg.server.service import Service

PAGE = Path(__file__).parent / "page"


def make_app(service: Service, access: Access | None = None, jobs: Jobs | None = None) -> Guard:
    """The server as an ASGI application, which ends the service when it ends.

    Parameters
    ----------
    access
        Who may ask; by default whoever reaches it.
    jobs
        None: those of a temporary folder.
    """
    kept = jobs or Jobs(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(kept.close)
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="BERG",
        summary="Predicted brain responses to pictures, sounds and videos.",
        version=berg.__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # both pages would come from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(routes(service))
    app.include_router(routes_for_python(service))
    app.include_router(routes_of_jobs(service, kept))
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_exception_handler(BERGError, _our_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _http_error)
    app.add_exception_handler(MultiPartException, _http_error)
    app.add_exception_handler(Exception, _unknown_error)
    return Guard(app, access or Access(), service.limits)


def _our_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BERGError)
    status = status_of(error)
    return JSONResponse(error_body(error), status, headers_of(status))


def _unknown_error(_: Request, error: Exception) -> JSONResponse:
    """An error that nobody has foreseen; it stands in the log, and those who asked learn no more than its type."""
    told = ServerError(
        f"The server failed at this request ({type(error).__name__}); its log says where. Tell who runs it."
    )
    return JSONResponse(error_body(told), UNKNOWN)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework says, in the form that all our errors have."""
    if CUT in request.scope:
        return _our_error(request, request.scope[CUT])
    status: int = getattr(error, "status_code", 422)
    detail: Any = getattr(error, "detail", None) or str(error)
    kind: type[BERGError] = InvalidParameterError if status < 500 else ServerError
    if str(detail).startswith("Too many files"):
        kind, status = TooLargeError, 413
    if status == 404:
        detail = f"There is nothing at {request.url.path[:200]}. The API: /api/openapi.json"
    return JSONResponse(error_body(kind(str(detail))), status, headers_of(status))
