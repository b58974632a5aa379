"""References bring text from the environment and from files, exactly, or say why they cannot."""

from pathlib import Path

import pytest

from connector.config.references import MAX_FILE_BYTES, UnresolvedReferenceError, has_reference, reads_file, resolve

ENVIRON = {"NAME": "value", "EMPTY": "", "TRICKY": "${env:NAME}", "with.dots": "dots"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${env:NAME}", "value"),
        ("a-${env:NAME}-${env:with.dots}", "a-value-dots"),
        ("${env:EMPTY}", ""),
        ("${env:TRICKY}", "${env:NAME}"),
        ("$${env:NAME}", "${env:NAME}"),
        ("$${", "${"),
        ("$$${env:NAME}", "$${env:NAME}"),
        ("cost: $5 {x}", "cost: $5 {x}"),
        ("^a$|b{2}", "^a$|b{2}"),
    ],
)
def test_references_are_replaced_in_every_place(text: str, result: str, tmp_path: Path) -> None:
    assert resolve(text, base=tmp_path, environ=ENVIRON) == result


@pytest.mark.parametrize(
    ("content", "result"),
    [
        (b"key", "key"),
        (b"key\n", "key"),
        (b"key\r\n", "key"),
        (b"key\n\n", "key\n"),
        (b" key ", " key "),
        (b"", ""),
        (b"x" * MAX_FILE_BYTES, "x" * MAX_FILE_BYTES),
    ],
    ids=["bare", "line", "dos line", "two lines", "spaces", "empty", "largest"],
)
def test_a_file_brings_its_text_without_its_last_line_break(content: bytes, result: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)

    assert resolve("${file:key}", base=tmp_path, environ={}) == result


def test_files_are_relative_to_the_base_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "key").write_text("k")

    assert resolve("${file:deep/key}", base=tmp_path, environ={}) == "k"
    assert resolve(f"${{file:{tmp_path}/deep/key}}", base=Path("/nowhere"), environ={}) == "k"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${env:NOPE}", "environment variable NOPE is not set"),
        ("${NAME}", "has a reference in an unknown form; use ${env:NAME}"),
        ("${vault:x}", "has a reference in an unknown form"),
        ("${env: NAME}", "has a reference in an unknown form"),
        ("${env:}", "has a reference in an unknown form"),
        ("${file:}", "has a reference in an unknown form"),
        ("${}", "has a reference in an unknown form"),
        ("${env:NAME", "has a reference without its closing brace"),
        ("${file:nope}", "cannot read file BASE/nope: No such file or directory"),
        ("${file:.}", "cannot read file BASE: Is a directory"),
        ("${file:a\0b}", "cannot read file"),
        ("${file:large}", "file BASE/large has more than 65536 bytes"),
        ("${file:binary}", "file BASE/binary is not UTF-8 text"),
    ],
)
def test_a_reference_that_leads_nowhere_says_why(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    with pytest.raises(UnresolvedReferenceError) as caught:
        resolve(text, base=tmp_path, environ=ENVIRON)

    assert str(caught.value).startswith(message.replace("BASE", str(tmp_path)))


def test_escapes_count_as_references_to_replace_but_not_to_files() -> None:
    assert has_reference("$${x")
    assert not has_reference("$x {y}")
    assert reads_file("a ${env:B} ${file:c}")
    assert not reads_file("$${file:c}")
    assert not reads_file("${env:file:c}")
