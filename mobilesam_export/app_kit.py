"""The app kit of a bundle: for each platform one folder with host code, models and conformance vectors.

A developer opens or uploads the folder as it is. Image size and slots stand in the manifest beside the models, from
which host code reads them.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilesam_export import web
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.errors import ExportError
from mobilesam_export.photos import PHOTO_DIR
from mobilesam_export.progress import Progress
from mobilesam_export.targets.target import Target

if TYPE_CHECKING:
    from reference.mobile_sam import MobileSam

APPS = Path(__file__).parent.parent / "apps"
FOLDER = "app-kit"
# Of host code: what belongs to its tests on a desktop, and what a build leaves behind.
_LEFT_OUT = ("test", "stubs", "shim", "tools", "node_modules", "build", "dist", ".build", ".gradle")


@dataclass(frozen=True)
class Host:
    """One platform.

    Attributes:
        name: of its folder in ``apps/`` and in the kit.
        models: where in its folder the model files go.
        vectors: where in its folder the vectors go.
        opening: what the developer does first.
        by_manifest: models lie as in a bundle, beside its manifest; else side by side, as Xcode takes them by name.
    """

    name: str
    models: str
    vectors: str
    opening: str
    by_manifest: bool = True


_ASSETS = "sample/src/main/assets/mobilesam"
HOSTS = (
    Host("ios", "Sample/Sample", "vectors", "open `ios/Sample/Sample.xcodeproj` in Xcode and run", by_manifest=False),
    Host("android", _ASSETS, f"{_ASSETS}/vectors", "open `android/` in Android Studio and run `sample`"),
    Host(
        "web",
        "bundle",
        "vectors",
        "put `web/` on any static host; `web/package/` is the TypeScript package behind the page",
    ),
)


def hosts_of(targets: Sequence[Target]) -> list[Host]:
    """The platforms on which these targets' files run.

    Raises:
        ExportError: there is none.
    """
    found = [host for host in HOSTS if any(host.name in target.hosts for target in targets)]
    if not found:
        raise ExportError(f"no host code runs {', '.join(t.name for t in targets)}; leave out --with-app-kit")
    return found


def refuse(targets: Sequence[Target], options: Sequence[str], out_dir: Path, overwrite: bool) -> None:
    """Refuse before any work what cannot be written.

    Args:
        targets: to be exported.
        options: names of those that were given.
        out_dir: the bundle.
        overwrite: whether a kit that is there may be replaced.

    Raises:
        ExportError: host code does not read such files, a kit is there, or the host code is not.
    """
    for option in ("official_decoder", "single_mask"):
        if option in options:
            flag = f"--{option.replace('_', '-')}"
            raise ExportError(f"host code reads four masks at a quarter of S; leave out {flag} or --with-app-kit")
    if "contracts" in options:
        raise ExportError("got --contract with --with-app-kit, into which those files would go too; export twice")
    kit = out_dir / FOLDER
    if kit.exists() and not overwrite:
        raise ExportError(f"{kit} is there, perhaps with work of yours in it; move it away, or replace it: --overwrite")
    for host in hosts_of(targets):
        if not (APPS / host.name).is_dir():
            raise ExportError(
                f"the host code is not at {APPS / host.name}; clone the repository and install it with pip install -e"
            )
        if host.name == "web" and not web.is_built() and shutil.which("npm") is None:
            raise ExportError("the web page must be built once and npm is not installed; install Node.js 20 or later")


def write_app_kit(bundle: Path, targets: Sequence[Target], sam: "MobileSam", progress: Progress | None = None) -> Path:
    """Write ``app-kit/`` into a bundle, in place of one that is there.

    Args:
        bundle: verified and complete.
        targets: whose files go into the kit.
        sam: what the bundle was exported from.
        progress: told of each step.

    Returns:
        the kit's folder; it appears whole or not at all.
    """
    from mobilesam_export.vectors import write_vectors  # PyTorch; `refuse` must not wait for it

    progress = progress or Progress()
    manifest = Manifest.read(bundle)
    stage = bundle / f".{FOLDER}.partial"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        with progress.step("app kit: conformance vectors"):
            write_vectors(stage / "vectors", bundle, lambda _: sam)
        for host in hosts_of(targets):
            with progress.step(f"app kit: {host.name}") as step:
                mine = [target for target in targets if host.name in target.hosts]
                _write_host(host, mine, manifest, bundle, stage)
                step.result = ", ".join(target.name for target in mine)
        shutil.rmtree(stage / "vectors")
        (stage / "README.md").write_text(_readme(manifest, hosts_of(targets)), encoding="utf-8")
        kit = bundle / FOLDER
        with progress.held():
            if kit.exists():
                shutil.rmtree(kit)
            stage.rename(kit)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return kit


def _write_host(host: Host, targets: Sequence[Target], manifest: Manifest, bundle: Path, stage: Path) -> None:
    sources, folder = APPS / host.name, stage / host.name
    models = folder / host.models
    if host.name == "web":
        shutil.copytree(web.built_page(), folder, ignore=shutil.ignore_patterns("*.map"))
        shutil.copytree(PHOTO_DIR, folder / "photos", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        shutil.copytree(sources, folder / "package", ignore=shutil.ignore_patterns(*_LEFT_OUT))
    else:
        shutil.copytree(sources, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    shutil.copytree(stage / "vectors", folder / host.vectors)
    entries = {target.name: manifest.targets[target.name] for target in targets}
    for entry in entries.values():
        for file in entry.files:
            source, copy = bundle / file.path, models / (file.path if host.by_manifest else Path(file.path).name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copyfile(source, copy)
    if host.by_manifest:
        Manifest(manifest.weights, manifest.image_size, entries).write(models)


def _readme(manifest: Manifest, hosts: Sequence[Host]) -> str:
    """What to do with the kit, in ten lines."""
    notice = f"**Weights:** {manifest.weights.notice}." if manifest.weights.notice else "Weights: as exported."
    lines = [
        "# MobileSAM, ready for an app",
        "",
        f"Models at S = {manifest.image_size}, host code, and vectors that prove it. {notice}",
        "",
        *(f"- {host.opening[0].upper()}{host.opening[1:]}." for host in hosts),
        "",
        'The sample\'s "measure" screen runs the vectors on the device and writes a receipt.',
        "To take other models, replace the model files (and the `manifest.json` beside them); no source names a size.",
    ]
    return "\n".join(lines) + "\n"
