"""An emulated 64-bit ARM machine: what it needs, and a runtime whose files are executed there.

QEMU translates one ARM64 process (user mode): no kernel, no container, nothing registered with the system. That process
is Debian's Python, unpacked into a folder and never installed, with the runtimes' own aarch64 wheels, of the versions
that are installed here.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from benchmarks.emulator import guest
from mobilesam_export.contract import PIXEL_MEAN, PIXEL_STD
from mobilesam_export.errors import ExportError
from mobilesam_export.point_slots import fill_slots

Floats = NDArray[np.float32]
Counts = dict[str, int]  # instructions by class, see count_instructions.c

DEFAULT_CACHE = user_cache_path("mobilesam-export") / "arm64"
RELEASE = "bookworm"  # of Debian, whose Python is 3.11
PYTHON = "3.11"
PACKAGES = ("numpy", "onnxruntime", "ai-edge-litert")
# What those import; of any version.
DEPENDENCIES = ("flatbuffers", "packaging", "protobuf", "backports.strenum", "tqdm", "typing-extensions", "ml_dtypes")
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_17", "manylinux2014")
QEMU = "qemu-aarch64"


@dataclass(frozen=True)
class Core:
    """A processor as QEMU shows it.

    Attributes:
        cpu: QEMU's name and switches.
        part: ARM's number of a core, by which XNNPACK chooses among kernels.
        features: of /proc/cpuinfo; both runtimes ask the auxiliary vector instead.
    """

    cpu: str
    part: int
    features: str

    @property
    def cpuinfo(self) -> str:
        """What /proc/cpuinfo says: QEMU 7 shows the host's own."""
        return (
            f"processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: {self.features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: {self.part:#x}\nCPU revision\t: 0\n\n"
        )


_NEON = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
CORES = {
    "cortex-a76": Core("cortex-a76", 0xD0B, _NEON),  # 2018, with dot products
    "i8mm": Core("max,sve=off,sme=off", 0xD47, f"{_NEON} i8mm bf16"),  # 2021, as the Cortex-A710 without its SVE
    # SVE of 128 bits, as phones have it, and SME with QEMU's streaming vectors of 256 bits. QEMU 7.2 computes SME's
    # 8-bit outer products wrongly (10.0 does not), so masks of 8-bit files mean nothing there.
    "sme": Core("max,sve128=on,sve-default-vector-length=16", 0xD47, f"{_NEON} sve i8mm bf16 sme"),
}


class Machine:
    """The emulated machine.

    Args:
        cache: a folder of about 230 MB; ``set_up`` fills it.
    """

    def __init__(self, cache: Path = DEFAULT_CACHE) -> None:
        self.cache = cache.resolve()
        self.root, self.site = self.cache / "root", self.cache / "site"
        self.plugin = self.cache / "count_instructions.so"

    def missing(self) -> str | None:
        """In one sentence what is not there and how to get it; None if nothing is."""
        programs = {QEMU: "qemu-user", "mmdebstrap": "mmdebstrap", "gcc": "gcc"}
        # mmdebstrap and gcc are needed once.
        wanted = [QEMU] if self.is_set_up else list(programs)
        if sys.platform != "linux":
            return f"the emulator runs on Linux, this is {sys.platform}: use a Linux machine or container"
        if absent := [name for name in wanted if shutil.which(name) is None]:
            packages = " ".join(programs[name] for name in absent)
            return f"{', '.join(absent)} not found; on Debian: apt-get install --no-install-recommends {packages}"
        for package in PACKAGES:
            try:
                version(package)
            except PackageNotFoundError:
                return f'{package} is not installed here, so its version is not known; pip install -e ".[all]"'
        return None

    @property
    def is_set_up(self) -> bool:
        """Whether the cache holds these versions and this plugin."""
        record = self.cache / "set_up.json"
        return record.is_file() and json.loads(record.read_text()) == self._contents()

    def _contents(self) -> dict[str, str]:
        source = Path(__file__).with_name("count_instructions.c").read_text()
        return {"release": RELEASE, "plugin": source, **{name: version(name) for name in PACKAGES}}

    def set_up(self) -> None:
        """Unpack Debian's Python and the wheels, and compile the plugin: 15 s and 100 MB to fetch.

        Raises:
            ExportError: something is missing, or a step failed.
        """
        if missing := self.missing():
            raise ExportError(missing)
        if self.is_set_up:
            return
        for folder in (self.root, self.site, self.cache / "wheels"):
            shutil.rmtree(folder, ignore_errors=True)
        self.cache.mkdir(parents=True, exist_ok=True)
        packages = "--include=python3,libstdc++6,libgomp1"
        _step("mmdebstrap", "--quiet", "--variant=extract", "--arch=arm64", packages, RELEASE, self.root)
        for core in CORES:
            # A root of its own, for its /proc/cpuinfo. The runtimes crash where that and /sys do not agree.
            files = {"proc/cpuinfo": CORES[core].cpuinfo}
            files |= {f"sys/devices/system/cpu/{name}": "0\n" for name in ("possible", "present", "kernel_max")}
            for name, content in files.items():
                (self.cache / core / name).parent.mkdir(parents=True, exist_ok=True)
                (self.cache / core / name).write_text(content)
            for shared in ("usr", "lib", "etc"):
                link = self.cache / core / shared
                link.unlink(missing_ok=True)
                link.symlink_to(self.root / shared)
        wheels = self.cache / "wheels"
        exact = [f"{name}=={version(name)}" for name in PACKAGES]
        platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
        _step(*pip, "--python-version", PYTHON, *platforms, "--dest", wheels, *exact, *DEPENDENCIES)
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(self.site)
        shutil.rmtree(wheels)
        source = Path(__file__).with_name("count_instructions.c")
        _step("gcc", "-O2", "-shared", "-fPIC", source, "-o", self.plugin)
        (self.cache / "set_up.json").write_text(json.dumps(self._contents()))

    def command(self, core: str, counts: Path | None = None) -> list[str]:
        """How to start the emulated Python.

        Args:
            core: a name of ``CORES``.
            counts: the file to which a counted program's marks append; None counts nothing.
        """
        plugin = [] if counts is None else ["-plugin", f"{self.plugin},out={counts}"]
        python = self.root / "usr" / "bin" / f"python{PYTHON}"
        return [QEMU, "-cpu", CORES[core].cpu, "-L", str(self.cache / core), *plugin, str(python)]

    @property
    def environment(self) -> dict[str, str]:
        """In which the emulated Python finds its own files and none of the host's."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return {**kept, "PYTHONHOME": str(self.root / "usr"), "PYTHONPATH": str(self.site)}


def _step(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise ExportError(f"{command[0]} ended with {done.returncode}: {' / '.join(told)}; see its options above")


class Runtime:
    """A pair of files behind the interface of the package's runtimes, in a process of its own.

    Args:
        encoder, decoder: both ONNX or both TFLite.
        image_size: S.
        max_points: slots of the decoder; None for any number.
        machine: on which the files run; None for this machine itself.
        core: a name of ``CORES``.
        counts: a file for the counts of each pass; None counts nothing.
        normalised: whether the encoder takes a normalised image, as those that others export do.

    Attributes:
        first_pass: what the first pass of each graph, ``encode`` and ``decode``, took.
    """

    def __init__(
        self,
        encoder: Path,
        decoder: Path,
        *,
        image_size: int,
        max_points: int | None = None,
        machine: Machine | None = None,
        core: str = "cortex-a76",
        counts: Path | None = None,
        normalised: bool = False,
    ) -> None:
        self.image_size, self.max_points = image_size, max_points
        self.first_pass: dict[str, Counts] = {}
        self._counts, self._normalised = counts, normalised
        self._channels_last = encoder.suffix == ".tflite"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        python = [sys.executable] if machine is None else machine.command(core, counts)
        self._process = subprocess.Popen(
            [*python, str(Path(guest.__file__)), str(encoder), str(decoder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=None if machine is None else machine.environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def encode(self, image: Floats) -> Floats:
        """Embed (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        if self._normalised:
            image = (image - np.reshape(PIXEL_MEAN, (1, 3, 1, 1))) / np.reshape(PIXEL_STD, (1, 3, 1, 1))
        pixels = image.transpose(0, 2, 3, 1) if self._channels_last else image  # BCHW -> BHWC
        embeddings = self._ask("encode", image=pixels)["image_embeddings"]
        return embeddings.transpose(0, 3, 1, 2).copy() if self._channels_last else embeddings  # BHWC -> BCHW

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Decode B prompts, one after the other; shapes as in ``targets.target.Runtime``."""
        if self.max_points is not None:
            point_coords, point_labels = fill_slots(point_coords, point_labels, self.max_points)
        low = self.image_size // 4
        cells = image_embeddings.transpose(0, 2, 3, 1) if self._channels_last else image_embeddings  # BCHW -> BHWC
        answers = [
            self._ask(
                "decode",
                image_embeddings=cells,
                point_coords=point_coords[i : i + 1],
                point_labels=point_labels[i : i + 1],
                mask_input=np.zeros((1, 1, low, low)) if mask_input is None else mask_input[i : i + 1],
                has_mask_input=np.full(1, mask_input is not None),
                orig_im_size=np.full(2, self.image_size),  # of an official decoder, whose low-res masks are taken
            )
            for i in range(len(point_labels))
        ]
        masks, iou = (
            np.concatenate([answer[name] for answer in answers]) for name in ("low_res_masks", "iou_predictions")
        )
        return masks, iou

    def _ask(self, graph: str, **arrays: NDArray[np.generic]) -> dict[str, Floats]:
        process, file = self._process, io.BytesIO()
        assert process.stdin is not None and process.stdout is not None
        feeds = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
        np.savez(file, graph=np.array(graph), **feeds)  # type: ignore[arg-type]  # mypy takes an array for `allow_pickle`
        try:
            process.stdin.write(len(file.getvalue()).to_bytes(8, "big") + file.getvalue())
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said of that is read below
        size = process.stdout.read(8)
        if len(size) < 8:
            status = process.wait()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().splitlines()[-3:]
            raise ExportError(f"the process of {graph} ended with {status}: {' / '.join(said)}")
        answer = dict(np.load(io.BytesIO(process.stdout.read(int.from_bytes(size, "big")))))
        if self._counts is not None:
            self.first_pass.setdefault(graph, json.loads(self._counts.read_text().splitlines()[-1]))
        return answer
