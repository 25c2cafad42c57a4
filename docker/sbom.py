"""What an image ships, as a CycloneDX document and as a table of licences.

    python sbom.py PYTHON_SBOM ROOT SITE_PACKAGES OUT

PYTHON_SBOM is what `cyclonedx-py environment` says of the image's Python packages. To it come the
Debian packages under ROOT, the shared libraries that wheels bring along, what wheels say themselves
of what is compiled into them (PEP 770), and the model files. Run while the image is built, with
`cyclonedx-python-lib` at hand.
"""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Component = dict[str, Any]

UNSTATED = "see the files of the package"
STATED = {  # by projects whose package's metadata or copyright file has no such field
    "base-files": "GPL-2.0-or-later",
    "gcc-12": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "glibc": "LGPL-2.1-or-later",
    "libxcrypt": "LGPL-2.1-or-later",
    "protobuf": "BSD-3-Clause",
    "python3.11": "PSF-2.0",
}
CLASSIFIER = re.compile(r"^License ::( OSI Approved ::)? ")
BUNDLED = "viola:bundled-in"
KEPT = ("type", "name", "version", "purl", "licenses")
DEBIAN = Path("var/lib/dpkg/status.d")
COPYRIGHT = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)
SONAME = re.compile(
    r"^lib(?P<name>.+?)(?:-[0-9a-f]{8}(?:-[0-9a-f]{8})?)?\.so(?:\.(?P<version>.+))?$"
)

# Of libraries inside wheels only the file's name tells what they are; these come with conditions.
# FFmpeg as PyAV builds it calls itself LGPL 3 or later, and links to x264 and x265.
NATIVE_LICENCES = {
    "avcodec": "LGPL-3.0-or-later",
    "avdevice": "LGPL-3.0-or-later",
    "avfilter": "LGPL-3.0-or-later",
    "avformat": "LGPL-3.0-or-later",
    "avutil": "LGPL-3.0-or-later",
    "swresample": "LGPL-3.0-or-later",
    "swscale": "LGPL-3.0-or-later",
    "x264": "GPL-2.0-or-later",
    "x265": "GPL-2.0-or-later",
    "asound": "LGPL-2.1-or-later",
    "mp3lame": "LGPL-2.0-or-later",
    "gnutls": "LGPL-2.1-or-later",
    "gmp": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "nettle": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "hogweed": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "unistring": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "sndfile_x86_64": "LGPL-2.1-or-later",
    "sndfile_arm64": "LGPL-2.1-or-later",
    "gfortran": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "quadmath": "LGPL-2.1-or-later",
    "scipy_openblas64_": "BSD-3-Clause",
    "opus": "BSD-3-Clause",
    "vpx": "BSD-3-Clause",
    "webp": "BSD-3-Clause",
    "webpmux": "BSD-3-Clause",
    "sharpyuv": "BSD-3-Clause",
    "dav1d": "BSD-2-Clause",
    "SvtAv1Enc": "BSD-3-Clause-Clear",
    "opencore-amrnb": "Apache-2.0",
    "opencore-amrwb": "Apache-2.0",
    "vpl": "MIT",
    "drm": "MIT",
    "Xau": "MIT",
    "xcb": "MIT",
    "xcb-shape": "MIT",
    "xcb-shm": "MIT",
    "xcb-xfixes": "MIT",
}
CARDS = """
import json, sys
from pathlib import Path
import onnxruntime as ort
ort.set_default_logger_severity(4)
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["viola.card"])
    print(json.dumps({key: card.get(key, "") for key in ("name", "licence", "space_id")}))
"""


def debian(root: Path) -> Iterator[Component]:
    """The Debian packages of an image, with all licences that their copyright files name."""
    for status in sorted((root / DEBIAN).iterdir()):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", status.read_text(), re.MULTILINE))
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={fields['Architecture']}"
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "licenses": named(_debian_licences(root, name, fields.get("Source", name))),
        }


def native(site_packages: Path) -> Iterator[Component]:
    """The shared libraries that wheels bring along, by their files' names."""
    folders = [*site_packages.glob("*.libs"), site_packages / "_soundfile_data"]
    for folder in sorted(folders):
        for path in sorted(folder.glob("lib*.so*")):
            match = SONAME.match(path.name)
            assert match is not None
            name, version = match["name"], match["version"]
            licence = NATIVE_LICENCES.get(name)
            yield {
                "type": "library",
                "bom-ref": f"{folder.name}/{path.name}",
                "name": f"lib{name}",
                **({"version": version} if version else {}),
                "licenses": named([licence] if licence else []),
                "properties": [{"name": BUNDLED, "value": folder.name}],
            }


def compiled_in(site_packages: Path) -> Iterator[Component]:
    """What wheels say of themselves; each once, and never the wheel itself."""
    seen = set()
    for path in sorted(site_packages.glob("*.dist-info/sboms/*.json")):
        distribution = path.parent.parent.name.removesuffix(".dist-info")
        for component in json.loads(path.read_text()).get("components", []):
            own = f"{component['name']}-{component.get('version')}" == distribution
            reference = f"{distribution}/{component.get('purl') or component['name']}"
            if own or reference in seen:
                continue
            seen.add(reference)
            yield {
                **{key: component[key] for key in KEPT if key in component},
                "bom-ref": reference,
                "properties": [{"name": BUNDLED, "value": distribution}],
            }


def models(python: str, folder: Path) -> Iterator[Component]:
    """The model files, from their cards."""
    run = subprocess.run([python, "-c", CARDS, folder], check=True, capture_output=True, text=True)
    for line in run.stdout.splitlines():
        card = json.loads(line)
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"model/{card['name']}",
            "name": card["name"],
            "version": card["space_id"],
            "licenses": named([card["licence"]]),
        }


def named(licences: Iterable[str]) -> list[dict[str, dict[str, str]]]:
    """Licences by the name that they were found under, which need not be an SPDX identifier."""
    return [{"license": {"name": licence}} for licence in licences]


def licences_of(component: Component) -> str:
    """All of a component's licences in one cell."""
    found = []
    for entry in component.get("licenses", []):
        licence = entry.get("license", {})
        stated = entry.get("expression") or licence.get("id") or licence.get("name")
        found.append(CLASSIFIER.sub("", stated))
    return "; ".join(dict.fromkeys(found)) or STATED.get(component["name"], UNSTATED)


def write(document: dict[str, Any], out: Path) -> None:
    """`sbom.cdx.json`, checked against its schema, and `licences.csv`."""
    # Here, not above: what reads packages can be tested without it
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = json.dumps(document, indent=1)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        raise SystemExit(f"the SBOM is not valid CycloneDX 1.6: {error}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "sbom.cdx.json").write_text(text)
    with (out / "licences.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["component", "version", "kind", "licences", "inside"])
        for component in document["components"]:
            rows.writerow(_row(component))


def _row(component: Component) -> list[str]:
    purl = component.get("purl", "")
    kind = purl.split(":")[1].split("/")[0] if purl else component["type"]
    inside = next((p["value"] for p in component.get("properties", []) if p["name"] == BUNDLED), "")
    version = component.get("version", "")
    return [component["name"], version, kind, licences_of(component), inside]


def _debian_licences(root: Path, name: str, source: str) -> list[str]:
    """All that the copyright file names, where it is written for machines; else what is known."""
    path = root / "usr/share/doc" / name / "copyright"
    text = path.read_text(errors="replace") if path.exists() else ""
    found = sorted(set(COPYRIGHT.findall(text))) if text.startswith("Format:") else []
    stated = STATED.get(source.split(" ")[0])
    return found or ([stated] if stated else [])


def main(python_sbom: str, root: str, site_packages: str, out: str) -> None:
    """Put the document together."""
    document = json.loads(Path(python_sbom).read_text())
    packages = Path(site_packages)
    interpreter = str(packages.parents[2] / "bin" / "python")
    document["components"] += [
        *debian(Path(root)),
        *native(packages),
        *compiled_in(packages),
        *models(interpreter, Path(root) / "models"),
    ]
    write(document, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
