"""A certificate's subject as text: readable, and never the same for two subjects."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jimsapi.server.distinguished_name import NAMES, subject_name

KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)

CN, ORG, OU = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME
EMAIL = NameOID.EMAIL_ADDRESS
NOBODYS = x509.ObjectIdentifier("1.3.6.1.4.1.55738.666.1")

Part = tuple[tuple[x509.ObjectIdentifier, str], ...]


def certificate(*parts: Part) -> bytes:
    """A real certificate in DER, whose subject has these relative names, the most general first."""
    name = x509.Name(
        [x509.RelativeDistinguishedName([x509.NameAttribute(kind, text) for kind, text in part]) for part in parts]
    )
    builder = x509.CertificateBuilder(ISSUER, name, KEY.public_key(), 1, BEGIN, BEGIN + timedelta(days=1))
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def value(tag: int, *contents: bytes) -> bytes:
    """A value in DER."""
    content = b"".join(contents)
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])
    return bytes([tag]) + length + content


def made_by_hand(subject: bytes, version: bytes = b"\xa0\x03\x02\x01\x02") -> bytes:
    """As much of a certificate as its subject needs."""
    empty = value(0x30)
    body = value(0x30, version, value(0x02, b"\1"), empty, empty, empty, subject)
    return value(0x30, body)


def common_name(tag: int, content: bytes) -> bytes:
    """A certificate whose common name is a value of any type."""
    attribute = value(0x30, value(0x06, b"\x55\x04\x03"), value(tag, content))
    return made_by_hand(value(0x30, value(0x31, attribute)))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([((CN, "ann"),)], "CN=ann"),
        ([((ORG, "Example"),), ((OU, "Shop"),), ((CN, "ann"),)], "CN=ann,OU=Shop,O=Example"),
        ([((CN, "ann,O=Other"),)], r"CN=ann\,O=Other"),
        ([((ORG, "Other"),), ((CN, "ann"),)], "CN=ann,O=Other"),
        ([((ORG, "Example"), (CN, "ann"))], "CN=ann+O=Example"),
        ([((CN, "ann+O=Example"),)], r"CN=ann\+O=Example"),
        ([((CN, "#0c03616e6e"),)], r"CN=\#0c03616e6e"),
        ([((CN, "  ann  "),)], r"CN=\  ann \ "),
        ([((CN, " "),)], r"CN=\ "),
        ([((CN, 'a"b\\c<d>e;f=g'),)], r"CN=a\"b\\c\<d\>e\;f=g"),
        ([((CN, "ann\0bea"),)], r"CN=ann\00bea"),
        ([((CN, "ann\nprovider=key"),)], r"CN=ann\0Aprovider=key"),
        ([((CN, "a\N{RIGHT-TO-LEFT OVERRIDE}b"),)], r"CN=a\E2\80\AEb"),
        ([((CN, "Żaneta 🌷"),)], "CN=Żaneta 🌷"),
        ([((EMAIL, "ann@example.org"),)], "emailAddress=ann@example.org"),
        ([((NOBODYS, "ann"),)], "1.3.6.1.4.1.55738.666.1=#0c03616e6e"),
        ([], ""),
    ],
)
def test_a_subject_is_written_as_rfc_4514_has_it(parts: list[Part], text: str) -> None:
    assert subject_name(certificate(*parts)) == text


@pytest.mark.parametrize(
    ("tag", "content", "text"),
    [
        (0x13, b"ann", "CN=ann"),
        (0x1E, "Żan".encode("utf-16-be"), "CN=Żan"),
        (0x1C, "🌷".encode("utf-32-be"), "CN=🌷"),
        (0x14, b"ann", "CN=#1403616e6e"),  # TeletexString
        (0x13, b"\xe4nn", "CN=#1303e46e6e"),  # no ASCII, whatever it says
        (0x0C, b"\xff", "CN=#0c01ff"),  # no UTF-8
        (0x0C, b"\xed\xa0\x80", "CN=#0c03eda080"),  # a lone surrogate, which no store takes
        (0x1E, b"\xd8\x00", "CN=#1e02d800"),
        (0x03, b"\0ann", "CN=#030400616e6e"),  # a bit string
        (0x0C, b"", "CN="),
    ],
)
def test_a_value_that_is_no_certain_text_is_written_as_its_bytes(tag: int, content: bytes, text: str) -> None:
    assert subject_name(common_name(tag, content)) == text


def test_a_certificate_of_version_1_has_its_subject_elsewhere() -> None:
    part = value(0x31, value(0x30, value(0x06, b"\x55\x04\x03"), value(0x0C, b"ann")))
    assert subject_name(made_by_hand(value(0x30, part), version=b"")) == "CN=ann"


def test_a_cut_or_damaged_certificate_is_a_value_error_and_nothing_worse() -> None:
    whole = certificate(((ORG, "Example"),), ((CN, "x" * 60),))
    for size in range(len(whole)):
        with pytest.raises(ValueError, match=r"value|cut off|without"):
            subject_name(whole[:size])
    for position in range(len(whole)):
        for byte in (0, 0x1F, 0x80, 0xFF):
            with suppress(ValueError):
                subject_name(whole[:position] + bytes([byte]) + whole[position + 1 :])


def read(text: str) -> list[list[tuple[str, str]]]:
    """Read a name as RFC 4514, section 3, says: by nothing but the text."""
    parts: list[list[tuple[str, str]]] = [[("", "")]]
    octets, named, position = bytearray(), False, 0

    def close() -> None:
        parts[-1][-1] = (parts[-1][-1][0], octets.decode())
        octets.clear()

    while position < len(text):
        character = text[position]
        position += 1
        if not named:
            if character == "=":
                named = True
            else:
                parts[-1][-1] = (parts[-1][-1][0] + character, "")
        elif character == "\\":
            if text[position] in ' "#+,;<>=\\':
                octets.extend(text[position].encode())
                position += 1
            else:
                octets.append(int(text[position : position + 2], 16))
                position += 2
        elif character in ",+":
            close()
            named = False
            if character == ",":
                parts.append([("", "")])
            else:
                parts[-1].append(("", ""))
        else:
            octets.extend(character.encode())
    close()
    return parts


characters = st.one_of(
    st.sampled_from(' "#+,;<>=\\\0\nCNO'), st.characters(exclude_categories=["Cs"]), st.characters(max_codepoint=0x7F)
)
texts = st.text(characters, min_size=1, max_size=12)
attributes = st.tuples(st.sampled_from([CN, ORG, OU]), texts)
parts = st.lists(attributes, min_size=1, max_size=3, unique_by=lambda attribute: attribute[0]).map(tuple)


@settings(deadline=None)
@given(st.lists(parts, min_size=1, max_size=3))
@example([((CN, "a,CN=b"),), ((ORG, "#ff"), (CN, " "))])
def test_the_text_holds_the_whole_subject(subject: list[Part]) -> None:
    expected = [sorted((NAMES[kind.dotted_string], text) for kind, text in part) for part in reversed(subject)]
    assert [sorted(part) for part in read(subject_name(certificate(*subject)))] == expected
