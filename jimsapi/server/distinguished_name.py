"""Reads the subject of a DER certificate as an RFC 4514 distinguished name.

The parsed subject of Python's `ssl` is not enough to distinguish two names: it lacks the object identifiers of
attributes for which OpenSSL has a name, and the types of the values.
"""

from typing import NamedTuple

NAMES = {
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "2.5.4.3": "CN",
    "2.5.4.4": "sn",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.17": "postalCode",
    "2.5.4.42": "givenName",
    "2.5.4.46": "dnQualifier",
}
"""Registered short names of attributes (RFC 4514, section 3; RFC 4519). Others are written as identifiers."""

_SEQUENCE, _SET, _OBJECT_IDENTIFIER, _VERSION = 0x30, 0x31, 0x06, 0xA0

_CODECS = {
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
"""Types of text with a defined encoding. TeletexString is not included, because programs decode it differently."""


class _Value(NamedTuple):
    """A DER value (ITU-T X.690). `whole` is `content` with its tag and length before it."""

    tag: int
    content: bytes
    whole: bytes


def subject_name(certificate: bytes) -> str:
    """Return the subject of a DER certificate (RFC 5280), the most specific part first; "" if it is empty.

    Different subjects have different texts: special and invisible characters are escaped, and values that are not text
    are written as bytes. Raises `ValueError` if `certificate` is not a certificate.
    """
    [whole] = _values(certificate)
    body, *_ = _children(whole, _SEQUENCE)
    fields = _children(body, _SEQUENCE)
    # version (optional), serial number, signature, issuer, validity, subject
    position = 5 if fields[:1] and fields[0].tag == _VERSION else 4
    if len(fields) <= position:
        raise ValueError("a certificate without a subject")
    parts = _children(fields[position], _SEQUENCE)
    return ",".join("+".join(map(_attribute, _children(part, _SET))) for part in reversed(parts))


def _attribute(attribute: _Value) -> str:
    kind, value = _children(attribute, _SEQUENCE)
    if kind.tag != _OBJECT_IDENTIFIER:
        raise ValueError("an attribute without an object identifier")
    number = _dotted(kind.content)
    name, codec = NAMES.get(number), _CODECS.get(value.tag)
    if name is not None and codec is not None:
        try:
            return f"{name}={_escape(value.content.decode(codec))}"
        except UnicodeDecodeError:
            pass
    return f"{name or number}=#{value.whole.hex()}"  # RFC 4514, section 2.4


def _escape(text: str) -> str:
    """Return a value, escaped as in RFC 4514, section 2.4. Characters that are not printable are written as bytes."""
    escaped = "".join(map(_escape_character, text))
    if text[:1] in ("#", " "):
        escaped = "\\" + escaped
    if len(text) > 1 and text[-1] == " ":
        escaped = escaped[:-1] + "\\ "
    return escaped


def _escape_character(character: str) -> str:
    if character in '"+,;<>\\':
        return "\\" + character
    return character if character.isprintable() else "".join(f"\\{byte:02X}" for byte in character.encode())


def _dotted(identifier: bytes) -> str:
    """Return an object identifier (X.690, 8.19) in dotted notation."""
    if not identifier or identifier[-1] & 0x80:
        raise ValueError("a truncated object identifier")
    numbers, number = [], 0
    for byte in identifier:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def _children(value: _Value, tag: int) -> list[_Value]:
    if value.tag != tag:
        raise ValueError(f"a value of type {value.tag:#x} where type {tag:#x} is expected")
    return _values(value.content)


def _values(data: bytes) -> list[_Value]:
    """Return the sequence of values in `data`."""
    values, start = [], 0
    while start < len(data):
        begin = start + 2
        if begin > len(data) or data[start] & 0x1F == 0x1F:
            raise ValueError("a value that is truncated, or of a type that no certificate has")
        length = data[start + 1]
        if length & 0x80:
            begin += length & 0x7F
            # 0x80 alone would mean an indefinite length, which DER does not allow.
            length = int.from_bytes(data[start + 2 : begin], "big") if begin > start + 2 else len(data)
        end = begin + length
        if end > len(data):
            raise ValueError("a value that is longer than its container")
        values.append(_Value(data[start], data[begin:end], data[start:end]))
        start = end
    return values
