"""Reading a machine's package sources, in both formats that apt knows."""

import pathlib

from extproc.stack.apt import Mirror, machine_mirrors


def sources(apt_dir: pathlib.Path, name: str, text: str) -> None:
    path = apt_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_stanzas(tmp_path: pathlib.Path) -> None:
    sources(
        tmp_path,
        "sources.list.d/debian.sources",
        """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: sid
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: sid
Components: main

Types: deb
URIs: http://vendor.example/
Suites: stable
Components: tools
""",
    )
    assert list(machine_mirrors(tmp_path)) == [
        Mirror("http://mirror.example/debian", "/usr/share/keyrings/archive.gpg")
    ]


def test_a_key_inside_the_stanza_is_left_to_apts_own_trust(tmp_path: pathlib.Path) -> None:
    sources(
        tmp_path,
        "sources.list.d/inline.sources",
        "Types: deb\nURIs: http://a.example/debian\nSuites: x\nComponents: main\nSigned-By:\n -----BEGIN-----\n .\n",
    )
    assert list(machine_mirrors(tmp_path)) == [Mirror("http://a.example/debian", None)]


def test_lines(tmp_path: pathlib.Path) -> None:
    sources(
        tmp_path,
        "sources.list",
        """\
# deb http://commented.example/debian bookworm main
deb http://plain.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://signed.example/debian bookworm contrib main
deb http://plain.example/debian-security bookworm-security main
deb-src http://source.example/debian bookworm main
deb http://other.example/ stable contrib
""",
    )
    assert list(machine_mirrors(tmp_path)) == [
        Mirror("http://plain.example/debian", None),
        Mirror("http://signed.example/debian", "/k.gpg"),
    ]


def test_a_machine_without_sources_has_no_mirrors(tmp_path: pathlib.Path) -> None:
    assert list(machine_mirrors(tmp_path)) == []


def test_a_source_line_names_the_keyring() -> None:
    assert Mirror("http://a/d", "/k.gpg").source_line("trixie") == "deb [signed-by=/k.gpg] http://a/d trixie main\n"
    assert Mirror("http://a/d", None).source_line("trixie") == "deb http://a/d trixie main\n"
