"""A server, a browser, and a page that is held against what every page has to keep to."""

import http.client
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

READ, LOCK, WRITE, ADMIN = "key-that-reads", "key-that-locks", "key-that-writes", "key-that-forces"
# Nothing takes so long unless it is broken. Seconds.
DEADLINE = 30

# Of the browser.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

expect.set_options(timeout=DEADLINE * 1000)


def until(what, condition):
    """Waits for what comes by itself; its value."""
    begin = time.monotonic()
    while time.monotonic() - begin < DEADLINE:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


class Client:
    """One connection to a server, with a key."""

    def __init__(self, address, key=ADMIN):
        self.address = address
        self.key = key
        self.connection = http.client.HTTPConnection(*address, timeout=DEADLINE)

    def ask(self, method, path, body=None, **headers):
        """Status, headers and what the body says."""
        sent = {"x-api-key": self.key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        self.connection.request(method, path, text and text.encode(), sent)
        answer = self.connection.getresponse()
        text = answer.read()
        told = json.loads(text) if text and answer.headers.get_content_type() == "application/json" else text
        return answer.status, answer.headers, told

    def expect(self, status, method, path, body=None, **headers):
        got, _, told = self.ask(method, path, body, **headers)
        assert got == status, (method, path, got, told)
        return told

    def create(self, name, **terms):
        return self.expect(201, "POST", "/resource", {"name": name, **terms})

    def lock(self, name, owner=None, **terms):
        """Takes the lock, or a place in its queue."""
        body = {**({"owner": owner} if owner else {}), **terms}
        return self.expect(200, "PUT", f"/resource/{quote(name, safe='')}/s/lock", body)

    def hold(self, name, owner=None, **terms):
        """Of a new name."""
        self.create(name)
        told = self.lock(name, owner, **terms)
        assert told["locked"], told
        return told

    def unlock(self, name, ticket):
        return self.expect(200, "PUT", f"/resource/{quote(name, safe='')}/s/unlock", None, x_ticket=ticket)

    def force(self, name, reason="a test"):
        return self.expect(200, "POST", f"/resource/{quote(name, safe='')}/force-unlock", {"reason": reason})

    def described(self, name):
        return self.expect(200, "GET", f"/resource/{quote(name, safe='')}")

    def offers(self, path):
        """Does the server have this route?"""
        status, _, told = self.ask("GET", path)
        return status != 404 or told["code"] != "route_unknown"


class Server(Client):
    """A process of the program, on a free port that it keeps when it is started again."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.settings = {
            "PATH": os.environ["PATH"],
            "CONFIG_FILE": "/dev/null",
            "STORE": "memory",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": "0",
            "HTTP_WORKERS": "1",
            "RESOURCE_READ": READ,
            "RESOURCE_READ_LOCK": LOCK,
            "RESOURCE_WRITE": WRITE,
            "RESOURCE_ADMIN": ADMIN,
            "TICKET_TTL_SECONDS": "3600",
            "RUST_LOG": "info,access=off,events=off",
            **settings,
        }
        self.process = None
        self.start()

    def start(self):
        log = self.folder / "log"
        log.write_text("")
        with log.open("a") as file:
            self.process = subprocess.Popen([os.environ["PROGRAM"]], env=self.settings, stderr=file, cwd=self.folder)

        def listening():
            assert self.process.poll() is None, log.read_text()
            return re.search(r"listens on http://([0-9.]+):(\d+)", log.read_text())

        host, port = until("the server listens", listening).groups()
        self.settings["HTTP_PORT"] = port
        super().__init__((host, int(port)))
        self.url = f"http://{host}:{port}/"
        until("it is ready", lambda: self.ask("GET", "/ready")[0] == 200)

    def stop(self):
        self.connection.close()
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def another(self, key=ADMIN):
        """A connection of its own, for a thread of its own."""
        return Client(self.address, key)


@pytest.fixture
def make_server(tmp_path_factory):
    servers = []

    def make(**settings):
        servers.append(Server(tmp_path_factory.mktemp("server"), **settings))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def database():
    """The settings of a database of its own on the server that the tests are run with."""
    url = os.environ.get("TEST_MYSQL_URL")
    client = shutil.which("mariadb") or shutil.which("mysql")
    if not url or not client:
        pytest.skip("no database server: run it with scripts/with-mariadb")
    at = urlsplit(url)
    name = f"page_{uuid.uuid4().hex}"

    def run(sql):
        command = [client, "--no-defaults", "--protocol", "TCP", "--host", at.hostname, "--port", str(at.port), "--user", at.username]
        subprocess.run([*command, "--execute", sql], env={**os.environ, "MYSQL_PWD": at.password or ""}, check=True)

    run(f"CREATE DATABASE {name}")
    yield {
        "STORE": "mysql",
        "MYSQL_HOST": at.hostname,
        "MYSQL_PORT": str(at.port),
        "MYSQL_USER": at.username,
        "MYSQL_PASSWORD": at.password or "",
        "MYSQL_DATABASE": name,
        "PEER_PORT": "0",
    }
    run(f"DROP DATABASE {name}")


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        # With a fresh folder for its profile, without a window.
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=ARGUMENTS)
        yield browser
        browser.close()


VIOLATIONS = """
globalThis.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective}: ${e.blockedURI} ${e.sample}`));
"""


class Visit:
    """A page, and what must never happen on any."""

    def __init__(self, browser, server, **options):
        self.server = server
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.context.add_init_script(VIOLATIONS)
        self.page = self.context.new_page()
        self.page.set_default_timeout(DEADLINE * 1000)
        self.wrong = []
        self.page.on("pageerror", lambda error: self.wrong.append(f"{error}"))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self.requested)

    def requested(self, request):
        if not request.url.startswith((self.server.url, "blob:", "data:")):
            self.wrong.append(f"asked elsewhere: {request.url}")

    def open(self, fragment="", key=ADMIN):
        """Goes there and gives the key where it is asked for."""
        self.page.goto(self.server.url + fragment)
        if key:
            self.page.fill("input[type=password]", key)
            self.page.keyboard.press("Enter")
            expect(self.page.locator("header.bar")).to_be_visible()
        return self.page

    def close(self):
        violations = self.page.evaluate("violations")
        cookies = self.context.cookies()
        self.context.close()
        assert self.wrong == []
        assert violations == []
        assert cookies == []


@pytest.fixture
def visit(browser, server):
    """The page of a server with the memory store."""
    visit = Visit(browser, server)
    yield visit
    visit.close()


@pytest.fixture
def make_visit(browser):
    visits = []

    def make(server, **options):
        visits.append(Visit(browser, server, **options))
        return visits[-1]

    yield make
    for visit in visits:
        visit.close()


def axe():
    return Path(os.environ["AXE"]).read_text()
