"""Exports and predictions, from the verb to the worker and back: the same on every platform."""

from __future__ import annotations

import asyncio
import base64
import io
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asyncsdk import AsyncClient, AsyncModel
from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.errors import ConfigError, DeadlineExceeded, JobCancelled, JobFailed, NotFound, NoWorker, SourceNotFound
from asyncsdk.protocol.model_work import PredictedItems
from asyncsdk.worker.onnx.predictor import Predictor
from tests.support.onnx_models import digits, endless_classifier, light_detector, make_scene


@pytest.fixture
async def working(client: AsyncClient) -> AsyncIterator[AsyncClient]:
    """A client whose jobs are done: the embedded platform starts a worker by itself, a server has one."""
    if client.settings.url is None:
        yield client
        return
    async with client.worker(kinds=["export", "predict"]):
        yield client


@pytest.fixture
async def model(working: AsyncClient) -> AsyncModel:
    """A classifier of digits."""
    model = await working.models.create("digits")
    await model.upload_checkpoint(digits().weights, epoch=1, is_best=True)
    return model


# --- predict -----------------------------------------------------------------------------------------------------


async def test_held_out_digits_are_read_through_the_platform(model: AsyncModel) -> None:
    """A classifier trained on real digits is as good behind the platform as it was for its trainer."""
    files = [digits().file(number) for number in range(200)]
    results = [result async for result in model.predict_many(files)]
    classes = np.array([result.top.class_id for result in results if result.top is not None])
    assert (classes == digits().expected[:200]).mean() >= 0.995
    assert (classes == digits().labels[:200]).mean() >= 0.95
    assert [result.image for result in results] == [f"image-{number}" for number in range(1, 201)]


async def test_every_form_of_an_image_gives_the_same_answer(model: AsyncModel, tmp_path: Path) -> None:
    """A path, its text, bytes, an array, a view without room between, a Pillow image."""
    pixels, wanted = digits().images[0], digits().expected[0]
    path = tmp_path / "zero.png"
    path.write_bytes(digits().file(0))
    wide = np.zeros((8, 16), dtype=np.uint8)
    wide[:, ::2] = pixels
    forms: list[Any] = [path, str(path), digits().file(0), bytearray(digits().file(0)), pixels, wide[:, ::2]]
    forms += [np.stack([pixels] * 3, axis=2), Image.fromarray(pixels), Image.fromarray(pixels).convert("CMYK")]
    found = [await model.predict(form) for form in forms[:-1]]
    assert {result.top.class_id for result in found if result.top} == {wanted}
    assert len({result.classes for result in found}) == 1
    assert found[0].image == "zero.png"
    assert (await model.predict(forms[-1])).task == "classify"  # colours of print change, the picture does not


async def test_detections_are_pixels_of_the_image(working: AsyncClient, tmp_path: Path) -> None:
    """Boxes of a large image that travels as an input of the job, with labels and times."""
    model = await working.models.create("lights")
    await model.upload_checkpoint(light_detector("yolov8"), is_final=True)
    scene = make_scene(640, 480, [(100, 200, 80, 0), (400, 40, 80, 1)])
    noisy = tmp_path / "scene.bmp"
    Image.open(io.BytesIO(scene.file)).save(noisy)
    assert noisy.stat().st_size > 256 * 1024
    for image in (scene.file, noisy):
        result = await model.predict(image, {"conf": "0.6"})
        assert (result.task, result.width, result.height) == ("detect", 640, 480)
        found = sorted((one.label, one.box) for one in result.detections)
        assert [label for label, _ in found] == ["green", "red"]
        for (_, box), (wanted, _) in zip(found, reversed(scene.boxes), strict=True):
            assert box == pytest.approx(wanted, abs=12)  # one place of the model is ten pixels of the image
        assert result.timing.inference_ms > 0


async def test_an_upright_photograph_is_predicted_upright(working: AsyncClient) -> None:
    """What a phone stores turned, and a Pillow image that says so, is turned before it is predicted."""
    model = await working.models.create("lights")
    await model.upload_checkpoint(light_detector("yolov8"))
    upright = Image.open(io.BytesIO(make_scene(64, 64, [(8, 24, 8, 0)]).file))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise to see it upright
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    for image in (file.getvalue(), Image.open(file)):
        (found,) = (await model.predict(image, {"conf": 0.8})).detections
        assert found.box == pytest.approx((8, 24, 16, 32), abs=0.01)


async def test_best_means_final_and_last_when_there_is_none(working: AsyncClient) -> None:
    """Which checkpoint predicts follows a rule, and can be said."""
    model = await working.models.create("two")
    with pytest.raises(NotFound):
        await model.predict(digits().file(0))
    await model.upload_checkpoint(light_detector("yolov8"), epoch=1)
    assert (await model.predict(make_scene(64, 64, []).file)).task == "detect"
    await model.upload_checkpoint(digits().weights, epoch=2, is_final=True)
    await model.upload_checkpoint(light_detector("yolov5"), epoch=3)
    assert (await model.predict(digits().file(0))).task == "classify"
    assert (await model.predict(digits().file(0), checkpoint="last")).task == "detect"
    assert (await model.predict(digits().file(0), checkpoint=1)).task == "detect"
    with pytest.raises(NotFound):
        await model.predict(digits().file(0), checkpoint=9)
    with pytest.raises(ConfigError, match="checkpoint is"):
        await model.predict(digits().file(0), checkpoint="newest")  # type: ignore[arg-type]


async def test_a_model_is_loaded_once_for_each_checkpoint(model: AsyncModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images, one after the other or at once; new weights are new."""
    loaded: list[str] = []
    load = Predictor.__init__

    def counting(self: Predictor, path: Path) -> None:
        loaded.append(path.name)
        load(self, path)

    monkeypatch.setattr(Predictor, "__init__", counting)
    await asyncio.gather(*(model.predict(digits().file(number)) for number in range(4)))
    await model.predict(digits().file(5))
    assert len(loaded) == 1
    await model.upload_checkpoint(digits().weights, epoch=2, is_best=True)
    await model.predict(digits().file(0))
    assert len(loaded) == 2


async def test_labels_of_the_record_name_classes(working: AsyncClient) -> None:
    """A model whose file names nothing takes the names of its record, also when those change."""
    import onnx

    bare = onnx.load_from_string(digits().weights)
    del bare.metadata_props[:]
    model = await working.models.create("bare", labels={"nought": 0, "one": 1})
    await model.upload_checkpoint(bare.SerializeToString())
    zero = int(np.flatnonzero(digits().expected == 0)[0])
    result = await model.predict(digits().images[zero])
    assert result.top is not None
    assert result.top.label == "nought"
    await model.update(labels={"zero": 0})
    again = await model.predict(digits().images[zero])
    assert again.top is not None
    assert again.top.label == "zero"


async def test_one_bad_image_of_many_says_so(model: AsyncModel, tmp_path: Path) -> None:
    """The others are predicted, in order; alone it fails the job, with the image's own code."""
    (tmp_path / "bad.png").write_bytes(b"no image")
    results = [one async for one in model.predict_many([digits().file(0), tmp_path / "bad.png", digits().file(1)])]
    assert [one.ok for one in results] == [True, False, True]
    assert results[1].problem is not None
    assert (results[1].image, results[1].problem.code) == ("bad.png", "invalid_image")
    with pytest.raises(JobFailed, match="no image of a known format") as caught:
        await model.predict(tmp_path / "bad.png")
    assert caught.value.error_code == "invalid_image"


async def test_what_came_before_a_missing_file_is_not_lost(model: AsyncModel, tmp_path: Path) -> None:
    """The results of the images before it come first, from this group and those before; then it is told."""
    images: list[Any] = [digits().file(number) for number in range(20)]
    found = []
    with pytest.raises(SourceNotFound):
        async for one in model.predict_many([*images, tmp_path / "absent.png", images[0]]):
            found.append(one)  # noqa: PERF401  # kept although the iteration fails
    assert [one.image for one in found] == [f"image-{number}" for number in range(1, 21)]
    assert all(one.ok for one in found)


async def test_results_of_a_group_fit_into_one_job(model: AsyncModel, client: AsyncClient) -> None:
    """With ten thousand boxes of each image, a job has two of them instead of sixteen: results have an end."""
    images = [digits().file(number) for number in range(5)]
    results = [one async for one in model.predict_many(images, {"max_det": 10_000})]
    assert [one.image for one in results] == [f"image-{number}" for number in range(1, 6)]
    assert len(await client.jobs.list().to_list()) == 3


async def test_images_of_a_job_made_by_hand_are_all_answered(model: AsyncModel, working: AsyncClient) -> None:
    """Three inputs give three results, also where nobody said that it is a batch."""
    inputs = {f"digit-{number}": digits().file(number) for number in range(3)}
    job = await working.jobs.create("predict", {"model_id": model.id}, inputs=inputs)
    found = await job
    assert [one.image for one in found] == ["digit-0", "digit-1", "digit-2"]


async def test_a_model_without_end_can_be_cancelled(working: AsyncClient) -> None:
    """The worker is free again for the next job, which an endless loop in somebody's weights does not keep it from."""
    model = await working.models.create("endless")
    await model.upload_checkpoint(endless_classifier())
    payload = {"model_id": model.id, "images": [{"name": "a", "data": base64.b64encode(digits().file(0)).decode()}]}
    job = await working.jobs.create("predict", payload)
    async with asyncio.timeout(60):
        while (await job.refresh()).status != "running":
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job


async def test_mistakes_are_told_before_a_job_is_made(model: AsyncModel, client: AsyncClient, tmp_path: Path) -> None:
    """Unknown options, missing files, text where images are meant."""
    with pytest.raises(ConfigError, match="did you mean 'conf"):
        await model.predict(digits().file(0), {"confidnce": 0.5})
    with pytest.raises(SourceNotFound):
        await model.predict(tmp_path / "absent.png")
    with pytest.raises(ConfigError, match="not 3 x 8 x 8"):
        await model.predict(np.zeros((3, 8, 8), dtype=np.uint8))
    with pytest.raises(ConfigError, match="for one there is predict"):
        await anext(model.predict_many("photos/"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="1 to 64"):
        await anext(model.predict_many([], concurrency=0))
    assert await client.jobs.list().to_list() == []
    assert [one async for one in model.predict_many([])] == []


async def test_a_size_that_the_model_does_not_take_is_told(model: AsyncModel) -> None:
    """The job fails with what the model takes."""
    with pytest.raises(JobFailed, match="8 x 8 only") as caught:
        await model.predict(digits().file(0), PredictConfig(size=(640, 640)))
    assert caught.value.error_code == "config"


async def test_weights_that_cannot_be_run_are_told(working: AsyncClient) -> None:
    """A checkpoint that is no ONNX model says what it is."""
    model = await working.models.create("pickled")
    await model.upload_checkpoint(b"\x80\x04\x95 a pickle")
    with pytest.raises(JobFailed, match=r"torch\.save") as caught:
        await model.predict(digits().file(0))
    assert caught.value.error_code == "invalid_model"


class Gate:
    """Lets the first images of an iteration through; later ones wait until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
        self._is_open = threading.Event()
        predict = Predictor.predict

        def predict_behind(predictor: Predictor, *arguments: Any, name: str, **named: Any) -> Any:
            if int(name.removeprefix("image-")) > first:
                self._is_open.wait(30)
            return predict(predictor, *arguments, name=name, **named)

        monkeypatch.setattr(Predictor, "predict", predict_behind)

    def open(self) -> None:
        """Let all of them through."""
        self._is_open.set()


async def given_up(client: AsyncClient) -> list[bool]:
    """Return of each job whether it was cancelled or is told to stop."""
    jobs = [job async for job in client.jobs.list()]
    return [job.is_cancel_requested or job.status == "cancelled" for job in jobs]


async def all_over(client: AsyncClient) -> None:
    """Wait until nothing is under way."""
    async with asyncio.timeout(40):
        while {job.status async for job in client.jobs.list()} & {"queued", "running"}:
            await asyncio.sleep(0.02)


async def test_leaving_an_iteration_leaves_no_job_behind(
    model: AsyncModel, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stops reading stops the work: jobs that are not done are cancelled, and no image more is read."""
    gate = Gate(monkeypatch, first=16)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield digits().file(taken % 50)

    results = model.predict_many(endless(), concurrency=3)
    first = [await anext(results) for _ in range(3)]
    assert all(one.ok for one in first)
    await results.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert taken == 3 * 16
    assert sorted(await given_up(client)) == [False, True, True]
    gate.open()
    await all_over(client)


async def test_a_prediction_that_nobody_waits_for_is_given_up(
    model: AsyncModel, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of time, or cancelled by its caller: the job is told to stop, for nobody else knows of it."""
    gate = Gate(monkeypatch, first=0)
    with pytest.raises(DeadlineExceeded):
        await model.predict(digits().file(0), timeout=0.02)
    assert await given_up(client) == [True]
    asking = asyncio.create_task(model.predict(digits().file(0)))
    async with asyncio.timeout(30):
        while len(await given_up(client)) < 2:
            await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await given_up(client) == [True, True]
    gate.open()
    await all_over(client)


async def test_items_of_a_dataset_get_rows(model: AsyncModel, working: AsyncClient, tmp_path: Path) -> None:
    """One job predicts every item and stores its row; what is no image is counted and told."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02}.png").write_bytes(digits().file(number))
    (folder / "notes.txt").write_text("no image")
    dataset = await working.datasets.create("digits")
    (await dataset.upload(folder)).raise_for_failures()
    await dataset.prediction_tasks.create(
        "digit", kind="classification", categories=[f"digit {number}" for number in range(10)]
    )
    job = await model.predict_items(dataset, "digit", {"topk": 1})
    counts = await job
    assert isinstance(counts, PredictedItems)
    assert (counts.items, counts.rows, counts.failed) == (41, 40, 1)
    assert [(one.path, one.code) for one in counts.problems] == [("notes.txt", "invalid_image")]
    rows = {row.path: row.predictions async for row in dataset.predictions.list("digit")}
    found = [rows[f"{number:02}.png"][0]["category"] for number in range(40)]
    assert found == [f"digit {wanted}" for wanted in digits().expected[:40]]


async def test_a_task_that_knows_other_classes_is_refused(model: AsyncModel, working: AsyncClient) -> None:
    """Before an item is looked at."""
    dataset = await working.datasets.create("d")
    await dataset.prediction_tasks.create("cats", kind="classification", categories=["cat", "digit 1"])
    with pytest.raises(JobFailed, match=r"no category 'digit 0', 'digit 2', 'digit 3' and 6 more"):
        await (await model.predict_items(dataset, "cats"))


# --- export ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "agreement"), [({}, 1.0), ({"half": True}, 0.999), ({"int8": True}, 0.98)])
async def test_exports_give_the_same_classes(
    model: AsyncModel, tmp_path: Path, options: dict[str, bool], agreement: float
) -> None:
    """An exported classifier reads held-out digits like its original; as it is, it is its original."""
    job = await model.export("ONNX", **options)
    made = await job
    await made.download(tmp_path)
    suffix = "-fp16" if "half" in options else "-int8" if "int8" in options else ""
    path = tmp_path / f"digits{suffix}.onnx"
    assert (made.name, made.size_bytes) == (path.name, path.stat().st_size)
    assert (path.read_bytes() == digits().weights) is (not options)
    assert made.size_bytes < made.checkpoint_size_bytes or not options
    predictor = Predictor(path)
    found = [predictor.predict(digits().file(n), PredictConfig(), name="x").top for n in range(450)]
    assert np.mean([one is not None and one.class_id for one in found] == digits().expected) >= agreement
    artifact = await made.artifact()
    assert (artifact.id, artifact.direction, artifact.job_id) == (made.id, "output", job.id)
    assert [one.name async for one in job.artifacts.list()] == [path.name]
    finished = await job.refresh()
    assert (finished.status, finished.subject_id, finished.kind) == ("succeeded", model.id, "export")


async def test_torch_files_go_as_they_are(working: AsyncClient, tmp_path: Path) -> None:
    """``pyTorch`` gives back what torch wrote, and nothing of it is loaded."""
    model = await working.models.create("torch")
    data = b"\x80\x04\x95" + bytes(range(256))
    await model.upload_checkpoint(data)
    made = await (await model.export("pt"))
    await made.download(tmp_path / "copy.pt")
    assert (made.format, made.name) == ("pyTorch", "torch.pt")
    assert (tmp_path / "copy.pt").read_bytes() == data
    for wanted, said in (("onnx", "would run its author's code"), ("pyTorch", "16-bit floats")):
        with pytest.raises(JobFailed, match=said) as caught:
            await (await model.export(wanted, half=wanted == "pyTorch"))
        assert caught.value.error_code == "invalid_model"


async def test_what_nobody_makes_is_refused_at_creation(model: AsyncModel, client: AsyncClient) -> None:
    """A format without a worker, one without a name, options that exclude each other: no job is made."""
    await (await model.export("onnx"))  # the embedded platform has its worker now
    with pytest.raises(NoWorker, match="tflite"):
        await model.export("tflite")
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        await model.export("onxx")
    with pytest.raises(ConfigError, match="exclude each other"):
        await model.export("onnx", half=True, int8=True)
    assert len(await client.jobs.list().to_list()) == 1


# --- without the extra -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["onnxruntime", "PIL"])
async def test_without_the_extra_it_says_what_to_install(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Where one of the libraries is missing, no job is made and the message names the extra."""
    model = await client.models.create("digits")
    await model.upload_checkpoint(digits().weights)
    image = digits().file(0)
    monkeypatch.setitem(sys.modules, module, None)
    for verb in (lambda: model.predict(image), lambda: model.export("onnx")):
        with pytest.raises(NoWorker, match=r"asyncsdk\[predict\]"):
            await verb()
    assert await client.jobs.list().to_list() == []
