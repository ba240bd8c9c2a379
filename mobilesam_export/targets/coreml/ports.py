"""What a pair of written Core ML packages says of itself."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mobilesam_export.contract import Port, Written, common
from mobilesam_export.targets.coreml.executor.backend import load_coremltools
from mobilesam_export.targets.coreml.executor.package import open_package


def read_written(encoder: Path, decoder: Path) -> Written:
    """Read ports and metadata from the packages' specifications.

    Raises:
        ExportError: no package, or a damaged one.
    """
    first, second = open_package(encoder).spec.description, open_package(decoder).spec.description
    labels = next((port.type.multiArrayType for port in second.input if port.name == "point_labels"), None)
    bounds = [] if labels is None else _bounds(labels)
    return Written(
        _ports(first.input),
        _ports(first.output),
        _ports(second.input),
        _ports(second.output),
        bounds[1][1] if bounds else None,
        common(dict(first.metadata.userDefined), dict(second.metadata.userDefined)),
    )


def _bounds(array: Any) -> list[tuple[int, int]]:
    """Least and greatest size of each dimension."""
    if array.WhichOneof("ShapeFlexibility") == "shapeRange":
        return [(int(size.lowerBound), int(size.upperBound)) for size in array.shapeRange.sizeRanges]
    return [(int(size), int(size)) for size in array.shape]


def _ports(features: Iterable[Any]) -> tuple[Port, ...]:
    load_coremltools()
    from coremltools.proto import FeatureTypes_pb2

    def port(feature: Any) -> Port:
        if feature.type.WhichOneof("Type") == "imageType":
            image = feature.type.imageType
            colours = FeatureTypes_pb2.ImageFeatureType.ColorSpace.Name(image.colorSpace)
            return Port(
                feature.name,
                (int(image.height), int(image.width)),
                f"{colours.lower()}_image",
                feature.shortDescription,
            )
        array = feature.type.multiArrayType
        dtype = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name(array.dataType).lower()
        shape = tuple(low if low == high else "points" for low, high in _bounds(array))
        return Port(feature.name, shape, dtype, feature.shortDescription)

    return tuple(port(feature) for feature in features)
