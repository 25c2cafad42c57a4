"""What the SBOM says of packages: made-up ones, of each kind that an image ships."""

import csv
import json
from pathlib import Path

import pytest

from docker import sbom

STATUS = "Package: libz9\nSource: zlib (1:1.0)\nVersion: 1:1.2+deb12u1\nArchitecture: arm64\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / sbom.DEBIAN).mkdir(parents=True)
    (tmp_path / sbom.DEBIAN / "libz9").write_text(STATUS)
    (tmp_path / "usr/share/doc/libz9").mkdir(parents=True)
    return tmp_path


def test_a_debian_package_has_all_licences_that_its_file_names(root: Path) -> None:
    text = (
        "Format: 1.0\n\nFiles: *\nLicense: Zlib\n\nFiles: b\nLicense: MIT\n\nLicense: MIT\n text\n"
    )
    (root / "usr/share/doc/libz9/copyright").write_text(text)
    (package,) = sbom.debian(root)
    assert package["purl"] == "pkg:deb/debian/libz9@1:1.2%2Bdeb12u1?arch=arm64"
    assert sbom.licences_of(package) == "MIT; Zlib"


def test_a_licence_that_is_not_written_for_machines_is_not_guessed_from_prose(root: Path) -> None:
    (root / "usr/share/doc/libz9/copyright").write_text("License: it is free, really\n")
    (package,) = sbom.debian(root)
    assert sbom.licences_of(package) == sbom.UNSTATED


def test_libraries_inside_wheels_are_named_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "av.libs").mkdir()
    for name in ("libx265-f5385bb8.so.216", "libgfortran-040039e1-0352e75f.so.5.0.0", "libnew.so"):
        (tmp_path / "av.libs" / name).touch()
    found = {item["name"]: item for item in sbom.native(tmp_path)}
    assert set(found) == {"libx265", "libgfortran", "libnew"}
    assert found["libx265"]["version"] == "216"
    assert sbom.licences_of(found["libx265"]) == "GPL-2.0-or-later"
    assert sbom.licences_of(found["libnew"]) == sbom.UNSTATED


def test_what_a_wheel_says_of_itself_is_listed_once_and_without_itself(tmp_path: Path) -> None:
    folder = tmp_path / "fast-2.0.dist-info" / "sboms"
    folder.mkdir(parents=True)
    crate = {"type": "library", "name": "serde", "version": "1.0", "purl": "pkg:cargo/serde@1.0"}
    own = {"type": "library", "name": "fast", "version": "2.0"}
    (folder / "rust.json").write_text(json.dumps({"components": [own, crate, crate]}))
    (found,) = sbom.compiled_in(tmp_path)
    assert found["name"] == "serde"
    assert found["properties"] == [{"name": sbom.BUNDLED, "value": "fast-2.0"}]


@pytest.mark.parametrize(
    ("licences", "text"),
    [
        ([{"expression": "MIT OR Apache-2.0"}], "MIT OR Apache-2.0"),
        ([{"license": {"id": "MIT"}}], "MIT"),
        ([{"license": {"name": "License :: OSI Approved :: BSD License"}}], "BSD License"),
        ([], sbom.UNSTATED),
    ],
)
def test_a_licence_is_told_however_it_is_stated(licences: list[object], text: str) -> None:
    assert sbom.licences_of({"name": "some", "licenses": licences}) == text


def test_the_document_is_valid_and_the_table_has_a_row_a_component(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")
    component = {"type": "library", "name": "some", "version": "1", "bom-ref": "some"}
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [component]}
    sbom.write(document, tmp_path)
    assert json.loads((tmp_path / "sbom.cdx.json").read_text()) == document
    rows = list(csv.reader((tmp_path / "licences.csv").open()))
    assert rows[1] == ["some", "1", "library", sbom.UNSTATED, ""]
    with pytest.raises(SystemExit, match="not valid"):
        sbom.write({**document, "components": [{"name": "no type"}]}, tmp_path)
