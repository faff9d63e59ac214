"""TLS: whom the client trusts, by which name, and what it says when it does not."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from farthing.errors import ConfigError
from farthing.proxy.http1.errors import ConnectFailed, ConnectionLost
from farthing.proxy.http1.tls import Tls
from tests.doors.proxy.authority import Authority, make_authority, served
from tests.unit.proxy.http1.hostile import SOON, Peer, ask, client_of, hostile, run, whole

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


async def answering(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(ANSWER)


def test_a_certificate_of_a_custom_authority(loop: str, authority: Authority) -> None:
    """With the name that was asked for in the handshake, HTTP/1.1 agreed upon, and connections kept."""
    asked: list[str | None] = []
    agreed: list[str | None] = []
    context = served(authority)
    context.sni_callback = lambda sock, name, context: asked.append(name)

    async def script(peer: Peer) -> None:
        agreed.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answering(peer)

    async def main() -> None:
        async with hostile(script, context=context) as server, client_of(tls=Tls(ca_file=authority.file)) as client:
            url = server.url.replace("127.0.0.1", "localhost")
            for _ in range(3):
                assert await whole(await ask(client, url)) == b"hello"
            assert server.connections == 1

    run(loop, main())
    assert asked == ["localhost"]
    assert agreed == ["http/1.1"]


def test_an_authority_that_the_environment_names(
    loop: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.file)

    async def main() -> None:
        async with hostile(answering, context=served(authority)) as server, client_of() as client:
            assert await whole(await ask(client, server.url.replace("127.0.0.1", "localhost"))) == b"hello"

    run(loop, main())


@pytest.mark.parametrize(
    ("name", "trusted", "why"),
    [
        ("localhost", False, "its certificate is not trusted: unable to get local issuer certificate"),
        ("somewhere.else", True, "its certificate is not trusted: Hostname mismatch"),
    ],
)
def test_what_is_not_trusted_gets_no_request(
    loop: str, authority: Authority, name: str, trusted: bool, why: str
) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.reader.read())

    async def main() -> None:
        context = served(authority, name)
        settings = {"tls": Tls(ca_file=authority.file)} if trusted else {}
        async with hostile(script, context=context) as server, client_of(**settings) as client:
            for _ in range(3):
                with pytest.raises(ConnectFailed, match="connect_error") as caught:
                    await ask(client, server.url.replace("127.0.0.1", "localhost"))
                assert why in caught.value.note
                assert "ca_file names other authorities" in caught.value.note
            assert not client._pools[server.url.replace("127.0.0.1", "localhost")].open

    run(loop, main())
    assert not any(seen)


def test_a_server_without_tls_is_no_upstream_for_https(loop: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async def main() -> None:
        async with hostile(script) as server, client_of() as client:
            with pytest.raises(ConnectFailed, match="connect_error"):
                await ask(client, server.url.replace("http:", "https:"))

    run(loop, main())


def test_an_address_instead_of_a_name(loop: str, authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.sign("by-address", alternative=x509.IPAddress(ipaddress.ip_address("127.0.0.1"))))

    async def main() -> None:
        async with hostile(answering, context=context) as server, client_of(tls=Tls(ca_file=authority.file)) as client:
            assert await whole(await ask(client, server.url)) == b"hello"

    run(loop, main())


def test_a_certificate_of_ones_own(loop: str, authority: Authority) -> None:
    context = served(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    own = authority.sign("the-proxy", alternative=x509.DNSName("the-proxy"))
    names: list[object] = []

    async def script(peer: Peer) -> None:
        names.append(peer.writer.get_extra_info("peercert")["subject"][0][0][1])
        await answering(peer)

    async def main() -> None:
        tls = Tls(ca_file=authority.file, cert_file=own)
        async with hostile(script, context=context) as server, client_of(tls=tls) as client:
            assert await whole(await ask(client, server.url.replace("127.0.0.1", "localhost"))) == b"hello"

    run(loop, main())
    assert names == ["the-proxy"]


def test_bodies_that_end_with_their_connection_and_streams_that_are_left(loop: str, authority: Authority) -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
            if peer.number:
                await peer.gone()

        context = served(authority)
        async with hostile(script, context=context) as server, client_of(tls=Tls(ca_file=authority.file)) as client:
            url = server.url.replace("127.0.0.1", "localhost")
            assert await whole(await ask(client, url)) == b"hello"
            response = await ask(client, url)
            assert await response.receive() == b"hello"
            assert response.stop()
            with pytest.raises(ConnectionLost):
                await response.receive()

    run(loop, main())


def test_stop_gives_what_had_arrived_encrypted(loop: str, authority: Authority) -> None:
    """Every provider is behind TLS: a stream that its client left must not cost all that was held."""

    async def main() -> None:
        read, written, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await read.wait()
            await peer.send(b"5\r\nworld\r\n")
            await peer.send(b"5\r\nagain\r\n")
            written.set()
            await peer.gone()
            closed.set()

        context = served(authority)
        async with hostile(script, context=context) as server, client_of(tls=Tls(ca_file=authority.file)) as client:
            response = await ask(client, server.url.replace("127.0.0.1", "localhost"))
            assert await response.receive() == b"hello"
            read.set()
            await written.wait()
            assert response.stop()
            rest = b""
            while len(rest) < 10:
                rest += await response.receive()
            assert rest == b"worldagain"
            with pytest.raises(ConnectionLost):
                await response.receive()
            await closed.wait()

    run(loop, main())


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
def test_files_that_cannot_be_used_are_said_at_once(key: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ConfigError, match=name) as caught:
            Tls(**{key: str(tmp_path / name)}).context()
        assert caught.value.key == key


def test_each_upstream_has_a_tls_of_its_own(loop: str, authority: Authority, tmp_path: Path) -> None:
    """Who trusts a private authority lends its connections to nobody else, and reads its file anew when it is told."""
    (tmp_path / "other").mkdir()
    other = make_authority(tmp_path / "other")
    own = tmp_path / "ca.pem"
    own.write_bytes(Path(authority.file).read_bytes())

    async def main() -> None:
        async with hostile(answering, context=served(authority)) as server, client_of() as client:
            url = server.url.replace("127.0.0.1", "localhost")
            tls = Tls(ca_file=str(own))

            async def post(tls: Tls | None) -> bytes:
                return await whole(await client.request("POST", url, [], b"", timeouts=SOON, tls=tls))

            assert [await post(tls) for _ in range(3)] == [b"hello"] * 3
            assert server.connections == 1
            with pytest.raises(ConnectFailed):
                await post(None)
            own.write_bytes(Path(other.file).read_bytes())
            assert await post(tls) == b"hello"
            client.renew()
            with pytest.raises(ConnectFailed) as caught:
                await post(tls)
            assert "not trusted" in caught.value.note
            own.unlink()
            client.renew()
            with pytest.raises(ConnectFailed) as caught:
                await post(tls)
            assert str(own) in caught.value.note
            own.write_bytes(Path(authority.file).read_bytes())
            assert await post(tls) == b"hello"

    run(loop, main())
