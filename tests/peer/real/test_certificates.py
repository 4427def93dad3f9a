"""The same authority on every machine, another certificate for every node, and no connection without both."""

import asyncio
import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from real_peers import ADA, BOB, KEY, OTHER_KEY, Door, Link, context_of_stranger, is_refused

from peer.errors import ConnectFailed
from peer.real.certificates import Credentials, ca_certificate, proven_node_id
from peer.real.keys import ClusterKey
from peer.real.network import RealNetwork
from protocol.identity import node_id_of

seeds = st.binary(min_size=32, max_size=32)


@settings(max_examples=10, deadline=None)
@given(seeds, seeds, seeds)
def test_the_authority_is_the_same_bytes_on_every_machine(secret, one, other):
    assert Credentials(ClusterKey(secret), one).ca_pem == Credentials(ClusterKey(secret), other).ca_pem
    authority = Ed25519PrivateKey.from_private_bytes(ClusterKey(secret).ca_seed)
    assert ca_certificate(authority).public_bytes(Encoding.PEM) == Credentials(ClusterKey(secret), one).ca_pem


def test_the_authority_of_a_known_key_never_changes():
    pem = Credentials(ClusterKey(bytes(32)), ADA).ca_pem
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.serial_number == 1
    assert certificate.subject == certificate.issuer
    assert certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc.year == 9999


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_a_node_id_is_the_hash_of_the_raw_key(seed):
    credentials = Credentials(KEY, seed)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    assert credentials.node_id == node_id_of(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
    certificate = x509.load_pem_x509_certificate(credentials.certificate_pem)
    assert proven_node_id(certificate.public_bytes(Encoding.DER)) == credentials.node_id


def test_nodes_and_clusters_differ():
    assert Credentials(KEY, ADA).node_id != Credentials(KEY, BOB).node_id
    assert Credentials(KEY, ADA).node_id == Credentials(OTHER_KEY, ADA).node_id
    assert Credentials(KEY, ADA).ca_pem != Credentials(OTHER_KEY, ADA).ca_pem


def test_a_key_of_another_kind_proves_nothing():
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elliptic")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 1, 1, tzinfo=UTC))
        .sign(private, SHA256())
    )
    with pytest.raises(ValueError):
        proven_node_id(certificate.public_bytes(Encoding.DER))


def test_no_private_key_stays_in_the_folder_of_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Credentials(KEY, ADA)
    assert list(tmp_path.iterdir()) == []


async def test_both_sides_prove_themselves():
    door = await Door().open()
    link = await RealNetwork(KEY, BOB).connect(door.address, Link, timeout_seconds=5.0)
    await door.until(lambda: door.links)
    assert link.proven == Credentials(KEY, ADA).node_id
    assert door.links[0].proven == Credentials(KEY, BOB).node_id
    assert link.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
    link.transport.abort()
    await door.listener.close()


async def test_a_dialler_refuses_a_listener_with_another_key():
    door = await Door().open(OTHER_KEY)
    with pytest.raises(ConnectFailed) as caught:
        await RealNetwork(KEY, BOB).connect(door.address, Link, timeout_seconds=5.0)
    assert caught.value.wrong_key
    assert not caught.value.refused
    await door.until(lambda: door.listener.strangers == 1)
    assert door.links == []
    await door.listener.close()


STRANGERS = {
    "a certificate of another key": {"shows": OTHER_KEY},
    "no certificate": {"chain": False},
    "no protocol": {"alpn": None},
    "another protocol": {"alpn": "h2"},
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_listener_refuses_a_stranger(stranger, tmp_path):
    door = await Door().open()
    assert await is_refused(door.port, context_of_stranger(tmp_path, **STRANGERS[stranger]))
    assert door.links == []
    await door.listener.close()


async def test_a_stranger_that_does_all_right_is_none(tmp_path):
    door = await Door().open()
    context = context_of_stranger(tmp_path, trusts=KEY)
    _, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=context, server_hostname="shoal")
    writer.write(b"hello")
    await door.until(lambda: door.links and door.links[0].received == b"hello")
    assert door.listener.strangers == 0
    writer.transport.abort()
    await door.listener.close()


async def test_tls_1_2_is_refused(tmp_path):
    door = await Door().open()
    context = context_of_stranger(tmp_path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await is_refused(door.port, context)
    await door.until(lambda: door.listener.strangers == 1)
    assert door.links == []
    await door.listener.close()


async def test_a_dialler_refuses_a_listener_of_tls_1_2(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context_of_stranger(tmp_path)  # leaves a certificate of our own authority
    context.load_cert_chain(tmp_path / "stranger.pem")
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(ConnectFailed) as caught:
        await RealNetwork(KEY, BOB).connect(address, Link, timeout_seconds=5.0)
    assert not caught.value.wrong_key
    server.close()


@pytest.mark.parametrize("plain", [b"GET / HTTP/1.1\r\n\r\n", b"\x94\xce\x00\x00\x00\x01\xce\x00\x00\x00\x00\x90", b"\0" * 5000])
async def test_plain_bytes_are_closed_on_before_any_frame_is_parsed(plain):
    door = await Door().open()
    assert await is_refused(door.port, None, plain)
    await door.until(lambda: door.listener.strangers == 1)
    assert door.links == []
    await door.listener.close()
