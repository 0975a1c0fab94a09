"""Jobs of the kind ``export``: a checkpoint of a model in another format or precision, as an output of the job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from asyncsdk.domain.exporting import export_format
from asyncsdk.entities.checkpoint_transfers import download_checkpoint
from asyncsdk.entities.weights import find_weights
from asyncsdk.errors import BadRequest, InvalidModel
from asyncsdk.protocol.model_work import MAX_SIDE, ExportOutcome, ExportPayload, Precision
from asyncsdk.protocol.models import GetModel, ModelRecord
from asyncsdk.worker.extra import require_extra
from asyncsdk.worker.runners import Work
from asyncsdk.worker.torchscript import has_torch, torchscript_to_onnx

__all__ = ["ExportRunner"]

_USUAL_SIZE = (640, 640)
_MAX_STEM = 200


@dataclass(frozen=True, slots=True)
class _Order:
    """One conversion, for a thread: what it needs and nothing of the event loop."""

    payload: ExportPayload
    model: ModelRecord
    source: Path
    destination: Path
    raise_if_cancelled: Callable[[], None]


class ExportRunner:
    """Converts checkpoints.

    ``onnx``: ONNX checkpoints as they are, with 16-bit floats, or with 8-bit weights; TorchScript ones where torch is
    installed. ``pyTorch``: what torch wrote, as it is. ``torchscript``: TorchScript as it is, where torch is installed.
    Pickled modules are never loaded, state dicts hold no architecture: neither becomes anything else here.
    """

    kind = "export"

    def offers(self) -> Mapping[str, JsonValue]:
        """Return the formats that can be made here.

        Raises:
            RunnerUnavailable: The extra ``predict`` is not installed.
        """
        require_extra(self.kind)
        return {"formats": ["onnx", "pyTorch", *(["torchscript"] if has_torch() else [])]}

    async def run(self, work: Work) -> JsonValue:
        """Convert what the job asks for and make the file an output.

        Raises:
            NotFound: The model or the checkpoint is gone.
            InvalidModel: The checkpoint cannot become that.
            BadRequest, ConfigError: The payload makes no sense.
        """
        try:
            payload = ExportPayload.model_validate(work.job.payload)
        except ValidationError as error:
            raise BadRequest(f"the payload makes no sense: {error.errors(include_url=False)[0]['msg']}") from error
        chosen = export_format(payload.format)
        model = await work.session.send(GetModel(model_id=payload.model_id))
        checkpoint = await find_weights(work.session, payload)
        source, made = work.folder / "weights", work.folder / f"export{chosen.suffix}"
        await work.report(stage="downloading", progress=0.0)
        await download_checkpoint(work.session, checkpoint, source, resume=False, on_progress=None, on_event=None)
        await work.report(stage="converting", progress=0.3)
        order = _Order(payload, model, source, made, work.raise_if_cancelled)
        path = await work.in_thread(_convert, order, chosen.name)
        await work.report(stage="uploading", progress=0.8)
        precision: Precision = "fp16" if payload.half else "int8" if payload.int8 else "as_is"
        tag = "" if precision == "as_is" else f"-{precision}"
        name = f"{model.name[:_MAX_STEM].strip()}{tag}{chosen.suffix}"
        artifact_id = await work.add_output(path, name)
        outcome = ExportOutcome(
            format=chosen.name,
            precision=precision,
            artifact_id=artifact_id,
            name=name,
            size_bytes=path.stat().st_size,
            checkpoint_id=checkpoint.id,
            checkpoint_size_bytes=checkpoint.size_bytes,
        )
        await work.log(f"{name}: {outcome.size_bytes:,} bytes, made of {checkpoint.size_bytes:,}")
        found: JsonValue = outcome.model_dump(mode="json")
        return found


def _convert(order: _Order, format_name: str) -> Path:
    """Return the file that was made; the checkpoint's own where nothing is to be changed."""
    from asyncsdk.worker.onnx.weights import kind_of_weights

    kind = kind_of_weights(order.source)
    is_smaller = order.payload.half or order.payload.int8
    if format_name == "onnx":
        return _to_onnx(order, kind)
    if is_smaller:
        raise InvalidModel("16-bit floats and 8-bit weights are made for the format 'onnx' only")
    if format_name == "pyTorch":
        if kind in {"pickle", "torchscript"}:
            return order.source
        raise InvalidModel("the checkpoint is nothing that torch wrote; nothing makes PyTorch weights of it")
    if format_name == "torchscript":
        if kind == "torchscript":
            return order.source
        raise InvalidModel(f"{_WHAT_IT_IS[kind]}; only a TorchScript checkpoint gives TorchScript")
    raise InvalidModel(f"this worker cannot make {format_name!r}")


_WHAT_IT_IS = {
    "onnx": "the checkpoint is ONNX",
    "torchscript": "the checkpoint is TorchScript",
    "pickle": "the checkpoint is a file of torch.save (a pickled module would run its author's code, a state dict has "
    "no architecture)",
    "other": "the checkpoint is neither ONNX nor what torch writes",
}


def _to_onnx(order: _Order, kind: str) -> Path:
    from asyncsdk.worker.onnx.converting import to_half, to_int8
    from asyncsdk.worker.onnx.weights import check_onnx

    source = order.source
    if kind == "torchscript":
        if not has_torch():
            raise InvalidModel("the checkpoint is TorchScript; a worker with torch installed makes ONNX of it")
        source = order.destination.with_name("traced.onnx")
        size = order.payload.size or _size_told(order.model) or _USUAL_SIZE
        names = {number: name for name, number in order.model.labels.items()}
        torchscript_to_onnx(order.source, source, size=size, metadata={"names": str(names)} if names else {})
    elif kind != "onnx":
        raise InvalidModel(f"{_WHAT_IT_IS[kind]}; export it to ONNX or TorchScript where it is trained")
    order.raise_if_cancelled()
    if order.payload.half:
        to_half(source, order.destination)
    elif order.payload.int8:
        to_int8(source, order.destination)
    else:
        check_onnx(source)
        return source
    return order.destination


def _size_told(model: ModelRecord) -> tuple[int, int] | None:
    size = model.config.get("imgsz", model.config.get("imageSize"))
    if isinstance(size, str) and size.isdecimal() and len(size) <= len(str(MAX_SIDE)):
        size = int(size)
    return (size, size) if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= MAX_SIDE else None
