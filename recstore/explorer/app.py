"""The application of Flask: who may ask, headers, errors as sentences."""

import hmac
import logging
import secrets
import socket
import time
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import waitress
from flask import Flask, Response, abort, g, redirect, render_template, request, session, url_for
from werkzeug.exceptions import HTTPException

from recstore.config import Settings
from recstore.errors import (
    GenerationNotFound,
    InvalidInput,
    PermissionDenied,
    RecommenderNotFound,
    RecstoreError,
    RunNotFound,
    StudyNotFound,
    Unreachable,
    UsageError,
)
from recstore.explorer import actions, pages
from recstore.explorer.reading import Pages

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' http: https:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

SESSION = timedelta(hours=12)
"""Time that a login lasts."""

PAUSE = 1.0
"""Seconds after a wrong password in which no other is tried."""

STATUS = {
    RecommenderNotFound: 404,
    RunNotFound: 404,
    StudyNotFound: 404,
    GenerationNotFound: 404,
    PermissionDenied: 403,
    UsageError: 400,
    Unreachable: 503,
    RecstoreError: 409,
}
"""Status of an answer with an error; the first class that fits."""


def check(settings: Settings, host: str, operators: bool) -> None:
    """Raise InvalidInput where a page for other machines, or for operators, would have no password."""
    if settings.explorer_password:
        return
    if operators:
        raise InvalidInput("--operators needs a password: set RECSTORE_EXPLORER_PASSWORD.")
    if not _local(host):
        raise InvalidInput(
            f"On {host} other machines can reach the explorer, so it needs a password: set RECSTORE_EXPLORER_PASSWORD."
        )


def serve(settings: Settings, host: str, port: int, *, operators: bool = False) -> None:
    """Serve until Ctrl-C. Raises InvalidInput."""
    check(settings, host, operators)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise InvalidInput(
            f"The explorer cannot listen on {host}:{port}: {reason}. Choose another --host or --port."
        ) from None
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns whenever a request waits for a thread
    with listening:
        waitress.serve(create(settings, operators=operators), sockets=[listening], threads=8, ident=None)


def create(settings: Settings, *, operators: bool = False) -> Flask:
    """Return the application. Where a password is set, every page demands a login; elsewhere only this machine may ask."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),  # a login ends with the process
        SESSION_COOKIE_NAME="recstore_explorer",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        PERMANENT_SESSION_LIFETIME=SESSION,
        MAX_CONTENT_LENGTH=1 << 16,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(pages.FILTERS)
    app.jinja_env.globals["csrf"] = _token
    kept = Pages(settings)
    app.extensions["recstore"] = kept
    password = settings.explorer_password

    @app.before_request
    def admit() -> Any:
        if not password and not _local(urlsplit(f"//{request.host}").hostname or ""):
            abort(400, "This explorer has no password, so it answers under the names of this machine alone.")
        if request.method == "POST" and not _same_site():
            abort(403, "The form did not come from this page, or is too old. Open the page again.")
        if password and not session.get("known") and request.endpoint not in ("login", "static"):
            return redirect(url_for("login", to=request.full_path.rstrip("?") if request.method == "GET" else None))
        return None

    @app.route("/login", methods=["GET", "POST"])
    def login() -> Any:
        if not password:
            return redirect(url_for("overview"))
        wrong = ""
        if request.method == "POST":
            if time.monotonic() < app.extensions.get("pause", 0):
                wrong = "Another password was wrong a moment ago. Try again in a second."
            elif hmac.compare_digest(request.form.get("password", "").encode(), password.get_secret_value().encode()):
                session.clear()
                session.permanent = session["known"] = True
                return redirect(_inside(request.args.get("to")))
            else:
                app.extensions["pause"] = time.monotonic() + PAUSE
                wrong = "This is not the password."
        return render_template("login.html", wrong=wrong), 403 if wrong else 200

    @app.post("/logout")
    def logout() -> Any:
        session.clear()
        return redirect(url_for("login"))

    @app.context_processor
    def common() -> dict[str, Any]:
        return {
            "operators": operators,
            "login": bool(password),
            "reload": g.get("reload"),
            "still": "still" in request.args,
            "said": session.pop("said", None),
        }

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.update(HEADERS)
        if g.get("reload") and "still" not in request.args:
            response.headers["Refresh"] = str(g.reload)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.errorhandler(RecstoreError)
    def refused(error: RecstoreError) -> Any:
        status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
        return render_template("error.html", sentence=error.message, status=status), status

    @app.errorhandler(HTTPException)
    def not_served(error: HTTPException) -> Any:
        sentence = "There is no such page." if error.code == 404 else error.description
        return render_template("error.html", sentence=sentence, status=error.code), error.code

    @app.errorhandler(Exception)
    def defect(error: Exception) -> Any:
        logging.getLogger("recstore.explorer").exception("%s %s", request.method, request.path)
        sentence = f"recstore has a defect: {type(error).__name__}. The log of the explorer has the details."
        return render_template("error.html", sentence=sentence, status=500), 500

    pages.register(app, kept)
    if operators:
        actions.register(app, settings)
    return app


def _token() -> str:
    """Return the token that each form of this session holds."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def _same_site() -> bool:
    """Return whether a form came from a page of this session."""
    origin = request.headers.get("Origin", "null")  # a page without referrer sends null
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    if origin != "null" and urlsplit(origin).netloc != request.host:
        return False
    token = str(session.get("csrf", ""))
    return bool(token) and hmac.compare_digest(request.form.get("csrf", "").encode(), token.encode())


def _inside(to: str | None) -> str:
    """Return an address of the explorer, whatever was asked for."""
    path = to or ""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else url_for("overview")


def _local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
