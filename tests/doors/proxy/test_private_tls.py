"""An upstream behind a certificate that only a private authority vouches for, as ``farthing.toml`` says it."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest
from openai import OpenAI

import farthing
from farthing.config.loading import load
from farthing.errors import ConfigError
from farthing.kernel.budget import make_budget
from farthing.proxy.aio import AioClient
from farthing.proxy.http1.tls import Tls
from farthing.proxy.settings import ProxySettings, Timeouts, Upstream
from farthing.proxy.upstream import NotSent
from farthing.testing import FakeProvider
from tests.doors.clients import HI, NOTHING, openai_client
from tests.doors.proxy.authority import Authority, make_authority, served, tls_before
from tests.doors.proxy.raw import ask
from tests.doors.proxy.running import entries, proxy_with, settings_for
from tests.doors.proxy.test_configured import serving

CHAT = {"model": "gpt-4o-mini", "messages": HI, "max_completion_tokens": 50}
FILE = """
ledger = "ledger.db"
[upstreams.inside]
base_url = "{url}/v1"
api_key = "of-the-operator"
"""
CA = 'ca_file = "certificates/ca.pem"\n'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "certificates").mkdir()
    return make_authority(tmp_path / "certificates")


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    return served(authority)


@pytest.fixture
def url(fake_provider: FakeProvider, context: ssl.SSLContext) -> Iterator[str]:
    """The fake provider's, behind TLS."""
    where = urlsplit(fake_provider.url)
    with tls_before((where.hostname or "", where.port or 0), context) as url:
        yield url


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
def test_a_private_authority_is_named_in_the_file(tmp_path: Path, url: str, fake_provider: FakeProvider) -> None:
    """Without it the operator is told why; with it, after a reload, the call goes through."""
    file = tmp_path / "farthing.toml"
    file.write_text(FILE.format(url=url))
    with serving(file) as proxy, openai_client(f"{proxy.url}/v1", governed=False) as client:
        refused = ask(proxy.url, "/v1/chat/completions", CHAT)
        assert (refused.status, refused.json["error"]["code"]) == (502, "upstream_unreachable")
        said = proxy.wait_for("upstream 'inside' gave no answer")
        assert f"{url}: its certificate is not trusted" in said
        assert "ca_file names other authorities" in said
        assert fake_provider.requests == []
        file.write_text(FILE.format(url=url) + CA)
        proxy.hang_up("was read anew")
        client.chat.completions.create(model="gpt-4o-mini", messages=HI, max_completion_tokens=50)
    assert fake_provider.calls == 1


def test_a_certificate_of_ones_own(
    authority: Authority, context: ssl.SSLContext, url: str, fake_provider: FakeProvider
) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    from cryptography.x509 import DNSName

    own = authority.sign("the-proxy", alternative=DNSName("the-proxy"))
    plain = settings_for(fake_provider)
    with proxy_with(replace(plain, upstreams=(Upstream("inside", f"{url}/v1", ca_file=authority.file),))) as server:
        server.runtime.put_budget(make_budget("all", tokens=100, standing=True))
        for _ in range(3):
            # With TLS 1.3 the request has left by then, but a server reads it after it has seen a certificate.
            refused = ask(server.url, "/v1/chat/completions", CHAT)
            assert (refused.status, refused.json["error"]["code"]) == (502, "upstream_unreachable")
        assert [(entry.ending, entry.usage) for entry in entries(server)] == [("connect_error", ())] * 3
        assert fake_provider.requests == []
    inside = Upstream("inside", f"{url}/v1", ca_file=authority.file, cert_file=own)
    with proxy_with(replace(plain, upstreams=(inside,))) as server:
        assert ask(server.url, "/v1/chat/completions", CHAT).status == 200
        assert [entry.ending for entry in entries(server)] == ["ok"]


@pytest.mark.usefixtures("farthing_isolated")
def test_in_a_program_and_beside_a_forward_proxy_a_refused_certificate_costs_nothing(
    authority: Authority, context: ssl.SSLContext, url: str, fake_provider: FakeProvider
) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    trusting = ssl.create_default_context(cafile=authority.file)
    http = openai.DefaultHttpxClient(verify=trusting)
    client = farthing.instrument(OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0, http_client=http))
    with client, farthing.budget(tokens=100) as budget:
        for _ in range(3):
            with pytest.raises(openai.APIConnectionError):
                client.chat.completions.create(model="gpt-4o-mini", messages=HI, max_completion_tokens=50)
        assert (budget.spent, budget.suspect, budget.held) == (NOTHING, NOTHING, NOTHING)

    async def beside() -> None:
        aio = AioClient()
        try:
            with pytest.raises(NotSent):
                await aio.request("POST", f"{url}/v1/x", [], b"{}", timeouts=Timeouts(), tls=Tls(authority.file))
        finally:
            await aio.close()

    asyncio.run(beside())
    assert fake_provider.requests == []


def test_beside_a_forward_proxy_too(authority: Authority, url: str) -> None:
    """The client that is used where the environment names a forward proxy knows the same settings."""

    async def main() -> None:
        client = AioClient()
        try:
            for tls in (None, Tls(authority.file + ".missing")):
                with pytest.raises(NotSent) as caught:
                    await client.request("GET", f"{url}/v1/models", [], b"", timeouts=Timeouts(), tls=tls)
                assert caught.value.note
            tls = Tls(authority.file)
            for _ in range(2):
                response = await client.request("GET", f"{url}/v1/models", [], b"", timeouts=Timeouts(), tls=tls)
                assert response.status == 200
                while await response.receive():
                    pass
                client.renew()
        finally:
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("line", "key", "why"),
    [
        ('ca_file = "missing.pem"', "ca_file", "No such file"),
        ('ca_file = "farthing.toml"', "ca_file", "no certificates can be read"),
        ('cert_file = "missing.pem"', "cert_file", "unusable certificate"),
        ('key_file = "missing.pem"', "key_file", "give cert_file too"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_with_its_line(tmp_path: Path, line: str, key: str, why: str) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text(FILE.format(url="https://inside.example") + line)
    with pytest.raises(ConfigError, match=why) as caught:
        load(file, for_proxy=True)
    assert (caught.value.key, caught.value.line) == (f"upstreams.inside.{key}", 6)
    # The library shares the file, perhaps where these are not to be read, and has no use for them.
    if key != "key_file":
        load(file, for_proxy=False)


def test_tls_is_for_https() -> None:
    with pytest.raises(ConfigError, match="is for an https:// upstream"):
        Upstream("inside", "http://inside.example/v1", ca_file="ca.pem")


def test_settings_that_no_file_made_are_looked_at_too(tmp_path: Path) -> None:
    inside = Upstream("inside", "https://inside.example/v1", ca_file=str(tmp_path / "missing.pem"))
    with pytest.raises(ConfigError, match=r"missing\.pem"), proxy_with(ProxySettings(upstreams=(inside,), port=0)):
        pass
