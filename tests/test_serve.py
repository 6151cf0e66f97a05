"""The server for a person: send, look, cancel, delete, stop, start. One worker with a predictor that has no network."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

import serve_fake
from serving import LIMITS, SCAN, Served, problem, serving, zipped

from mtdlr.errors import BundleError, MtdlrError
from mtdlr.serve import server
from mtdlr.serve.jobs import Job, load_job, new_job, recovered_jobs, save_job
from mtdlr.serve.pages import STATIC, upload_page
from mtdlr.serve.queue import Queue
from mtdlr.serve.server import Address, serve

SERVE = Path(server.__file__).parent


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for all tests of this file."""
    with serving(tmp_path_factory.mktemp("jobs"), serve_fake.load, LIMITS) as running:
        yield running


def test_a_scan_is_sent_predicted_shown_and_deleted(served: Served) -> None:
    """Files with their folders go in, the result comes out as `predict` wrote it, and deleting leaves nothing."""
    job = served.done(SCAN, {"clinical.stage": "III", "clinical.age": "50"})
    assert json.loads(served.ask("GET", f"/jobs/{job}/state").text)["state"] == "done"
    numbers = json.loads(served.ask("GET", f"/jobs/{job}/result/prediction.json").text)
    assert numbers["clinical"] == {"stage": "III", "age": "50"}
    assert [name for name in numbers["files"] if name.endswith("dcm")] == sorted(SCAN)
    page = served.ask("GET", f"/jobs/{job}", Accept="text/html").text
    assert "90.0 %" in page and "report.html" in page and f"/jobs/{job}/view/axial-000.png" in page
    assert not (served.queue.folder / job / "upload").exists(), "the scan is kept longer than it is needed"
    assert served.ask("DELETE", f"/jobs/{job}").status == 204 and job not in served.folders()
    assert problem(served.ask("GET", f"/jobs/{job}")) == (404, "E-NOJOB")


def test_dicom_results_are_made_on_request_alone(served: Served) -> None:
    """The box is empty at first. The request is kept with the job; without one the page says how to get the results."""
    box = re.search(r'<input type="checkbox" name="dicom"[^>]*>', served.ask("GET", "/", Accept="text/html").text)
    assert box is not None and "checked" not in box[0]
    for asked, text in (({"dicom": "yes"}, "They name the patient"), ({}, "send the scan again")):
        job = served.done(SCAN, {"clinical.stage": "III"} | asked)
        assert load_job(served.queue.folder, job).dicom == bool(asked)
        assert served.ask("GET", f"/jobs/{job}/dicom/dicom.zip").status == (200 if asked else 404)
        assert text in served.ask("GET", f"/jobs/{job}", Accept="text/html").text


def test_a_zip_goes_to_the_prediction_as_it_is(served: Served) -> None:
    """One zip is not unpacked: the prediction reads it as the command line would."""
    job = served.done({"export of B001.zip": zipped(SCAN)})
    assert json.loads(served.ask("GET", f"/jobs/{job}/result/prediction.json").text)["sent"] == "scan.zip"


def test_the_form_asks_for_the_covariates_of_the_nomogram(served: Served) -> None:
    """Every clinical covariate has its field, none is filled in beforehand, and there is no other."""
    page = served.ask("GET", "/", Accept="text/html").text
    assert set(re.findall(r'name="(clinical\.\w+)"', page)) == {"clinical.stage", "clinical.age"}
    assert "checked" not in page and "Model built on 20 to 80" in page


def test_a_harmonised_model_asks_for_the_centre(served: Served) -> None:
    """The training centres can be chosen, "another centre" is the default, and the choice reaches the prediction."""
    page = served.ask("GET", "/", Accept="text/html").text
    assert '<option value="">Another centre</option>' in page and "<option>A</option><option>B</option>" in page
    for sent, given in ({"center": "B"}, "B"), ({}, ""):
        job = served.done(SCAN, sent)
        assert json.loads(served.ask("GET", f"/jobs/{job}/result/prediction.json").text)["center"] == given


def test_a_model_without_harmonised_features_asks_for_no_centre() -> None:
    """There is no field where the answer would change nothing."""
    assert 'name="center"' not in upload_page(serve_fake.FACTS | {"centers": []}, [], LIMITS)


def test_a_refusal_of_the_prediction_has_its_code_on_the_page(served: Served) -> None:
    """Two patients in one upload: E-MANYPATIENTS, on the page and for a program."""
    job = served.done(SCAN, {"clinical.stage": "two"})
    assert "E-MANYPATIENTS" in served.ask("GET", f"/jobs/{job}", Accept="text/html").text
    state = json.loads(served.ask("GET", f"/jobs/{job}/state").text)
    assert state["state"] == "failed" and state["problems"][0]["code"] == "E-MANYPATIENTS"


def test_a_bug_is_said_without_the_words_of_the_error(served: Served) -> None:
    """An unexpected error is E-INTERNAL; its text, which may name a patient, stands nowhere."""
    job = served.done(SCAN, {"clinical.stage": "bug"})
    text = served.ask("GET", f"/jobs/{job}/state").text
    assert "E-INTERNAL" in text and "CANARY" not in text


def test_a_bug_of_the_server_is_said_without_its_words_too(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error of a page is 500 E-INTERNAL; the log names places in the code, and never the error's text."""
    def broken(*_: object) -> str:
        raise KeyError("ZZPHI^CANARY")
    monkeypatch.setattr("mtdlr.serve.app.upload_page", broken)
    assert problem(served.ask("GET", "/")) == (500, "E-INTERNAL")
    assert "test_serve.py" in caplog.text and "CANARY" not in caplog.text + "".join(capfd.readouterr())


def test_a_job_can_be_cancelled_once(served: Served) -> None:
    """A running prediction stops; the same request again is refused with 409; the next job is done."""
    job = json.loads(served.send(SCAN, {"clinical.stage": "hold"}).text)["id"]
    assert served.ask("POST", f"/jobs/{job}/cancel").status == 200
    assert problem(served.ask("POST", f"/jobs/{job}/cancel")) == (409, "E-JOBSTATE")
    assert served.queue.job(served.done(SCAN)).state == "done"


def test_a_worker_that_dies_costs_its_job_alone(served: Served) -> None:
    """A prediction that kills its process twice fails with E-WORKERDIED; the next one is done."""
    job = served.queue.job(served.done(SCAN, {"clinical.stage": "die"}))
    assert job.state == "failed" and job.problems[0].code == "E-WORKERDIED" and job.attempts == 2
    assert served.queue.job(served.done(SCAN)).state == "done"


def test_every_answer_forbids_what_it_does_not_need(served: Served) -> None:
    """Pages, refusals and files carry the policy without inline script, no-store and nosniff."""
    job = served.done(SCAN)
    for path in ("/", f"/jobs/{job}", "/nowhere", "/static/viewer.js", f"/jobs/{job}/result/report.html"):
        headers = served.ask("GET", path, Accept="text/html").headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "script-src 'unsafe" not in policy
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] is None
    assert "sandbox" in policy and "script-src" not in policy, "a report must run nothing"


def test_pages_load_nothing_from_outside_and_hold_no_script() -> None:
    """Templates, styles and scripts name no other server, no inline script, style or handler."""
    for path in [*SERVE.glob("templates/*"), *SERVE.glob("static/*.css"), SERVE / "static" / "viewer.js",
                 SERVE / "static" / "upload.js", SERVE / "static" / "job.js"]:
        text = path.read_text()
        assert not re.search(r"https?://|//cdn|@import", text), path.name
        inline = r"<script(?![^>]*(src=|application/json))|<style|\sstyle=|\son\w+=\"|javascript:"
        assert not re.search(inline, text), path.name
        assert "eval(" not in text and "innerHTML" not in text, path.name


def test_the_viewer_is_the_file_that_its_licence_names() -> None:
    """NiiVue is vendored unchanged: its SHA-256 stands beside its licence."""
    from mtdlr.store import file_hash

    licence = (SERVE / "static" / "NIIVUE-LICENSE.txt").read_text()
    assert file_hash(SERVE / "static" / "niivue.umd.js") in licence and "BSD 2-Clause" in licence


# Start and stop: FAULTS 81, 84.

def test_a_restart_finds_the_jobs(tmp_path: Path) -> None:
    """FAULTS 84: done stays done, accepted waits again, half an upload and a job stopped twice have failed."""
    jobs = {name: new_job() for name in ("done", "waiting", "running", "uploading")}
    for state, job in jobs.items():
        save_job(tmp_path, Job(job.id, state, job.created, {"age": "50"}, attempts=state == "running"))  # type: ignore[arg-type]
        (tmp_path / job.id / "upload").mkdir()
    twice = new_job()
    save_job(tmp_path, Job(twice.id, "running", attempts=2))
    (tmp_path / ("f" * 32)).mkdir()
    (tmp_path / "README").write_text("not ours")
    found = recovered_jobs(tmp_path)
    assert {name: found[job.id].state for name, job in jobs.items()} == {
        "done": "done", "waiting": "waiting", "running": "waiting", "uploading": "failed"}
    assert found[twice.id].problems[0].code == "E-WORKERDIED"
    assert not (tmp_path / ("f" * 32)).exists() and (tmp_path / "README").exists()
    assert (tmp_path / jobs["waiting"].id / "upload").is_dir()
    assert not (tmp_path / jobs["uploading"].id / "upload").exists()
    assert load_job(tmp_path, jobs["running"].id) == found[jobs["running"].id]


@pytest.mark.slow
def test_an_accepted_job_survives_the_loss_of_its_server(tmp_path: Path) -> None:
    """A job that a lost server was computing is found, computed and done by the next one."""
    job = new_job()
    save_job(tmp_path, Job(job.id, "running", job.created, {"stage": "III"}, attempts=1))
    (tmp_path / job.id / "upload").mkdir()
    (tmp_path / job.id / ".making-0").mkdir()
    queue = Queue(tmp_path, serve_fake.load)
    queue.start()
    assert queue.wait(job.id, 60.0).state == "done"
    assert {path.name for path in (tmp_path / job.id).iterdir()} == {"job.json", "result", "view"}
    queue.close(keep=True)
    assert (tmp_path / job.id / "result").is_dir()
    queue.close(keep=False)
    assert not (tmp_path / job.id).exists()


@pytest.mark.slow
def test_a_model_that_cannot_be_read_is_said_at_the_start(tmp_path: Path) -> None:
    """The error of the worker's process is raised where the server is started."""
    with pytest.raises(BundleError, match="E-NOBUNDLE"):
        Queue(tmp_path, serve_fake.refuse).start()


def test_an_address_for_others_needs_to_be_allowed(tmp_path: Path) -> None:
    """FAULTS 81: 0.0.0.0 without --allow-remote is refused before anything is loaded."""
    with pytest.raises(MtdlrError, match="E-REMOTE"):
        serve(serve_fake.refuse, tmp_path / "new", Address("0.0.0.0"))
    assert not (tmp_path / "new").exists()


def test_a_port_or_a_folder_that_is_taken_is_said(tmp_path: Path) -> None:
    """One port and one folder serve one server."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MtdlrError, match="E-PORT"):
            serve(serve_fake.refuse, tmp_path, Address(port=taken.getsockname()[1]))
    with ExitStack() as stack:
        server._hold(tmp_path, stack)
        with pytest.raises(MtdlrError, match="E-LOCKED"):
            serve(serve_fake.refuse, tmp_path, Address(port=0))


def test_every_static_file_is_there(served: Served) -> None:
    """What a page asks for is served with its type."""
    for name, (_, kind) in STATIC.items():
        answer = served.ask("GET", f"/static/{name}")
        assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind)
