"""A headless Chromium over its debugging pipe (Chrome DevTools Protocol), with nothing but the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bedside_pictures import browser

_WAIT_S = 120.0
_FLAGS = ("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run", "--disable-extensions",
          "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
          "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
          "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
"""Software WebGL, and no host but this machine."""


class Page:
    """One tab.

    Args:
        to: end of the pipe on which Chromium reads.
        back: end on which it writes.
    """

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._buffer, self._number, self._session = to, back, b"", 0, ""
        self.said: list[str] = []
        """What the console holds: errors, warnings, blocked by policy."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self._ask(f"{domain}.enable")

    def size(self, width: int, height: int) -> None:
        """Give the window this many pixels."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self._ask("Page.navigate", url=address)
        self.until("location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of a script; a promise is waited for."""
        answer = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until a condition holds, on this page or on one that it leads to."""
        end = time.monotonic() + _WAIT_S
        asked = ("new Promise(r => { const f = () => document.readyState === 'complete' && "
                 f"({condition}) ? r(true) : setTimeout(f, 50); f(); }})")
        while time.monotonic() < end:
            try:
                if self.run(asked):
                    return
            except RuntimeError:  # the page was left meanwhile
                continue
        raise TimeoutError(condition)

    def send(self, address: str, scan: Path, stage: str) -> None:
        """Send a scan from the server's first page as a person does, and wait for the viewer."""
        self.open(address)
        self.run(f"document.querySelector('input[value={stage}]').click()")
        self.choose("#files", [scan])
        self.run("document.querySelector('button.main').click()")
        self.until("document.querySelector('[data-viewer]') !== null")

    def choose(self, selector: str, files: list[Path]) -> None:
        """Choose files in a field of a form."""
        node = self._ask("DOM.querySelector", nodeId=self._ask("DOM.getDocument")["root"]["nodeId"], selector=selector)
        self._ask("DOM.setFileInputFiles", files=[str(path) for path in files], nodeId=node["nodeId"])

    def press(self, key: str, code: int) -> None:
        """Press a key once: its name, and its Windows key code."""
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, target: Path, *, whole: bool = True) -> None:
        """Write what is seen as PNG: the whole length of the page, or what the window shows."""
        data = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        target.write_bytes(base64.b64decode(data))

    def _ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                return answer["result"]
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _note(self, event: str, found: Any) -> None:
        if event == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.said.append(f"{found['entry']['source']}: {found['entry']['text']}")
        elif event == "Runtime.consoleAPICalled" and found["type"] in ("error", "assert"):
            self.said.append(f"console: {[one.get('value', one.get('description')) for one in found['args']]}")
        elif event == "Runtime.exceptionThrown":
            self.said.append(f"exception: {found['exceptionDetails']}")

    def _read(self) -> Any:
        while b"\0" not in self._buffer:
            if not select.select([self._back], [], [], _WAIT_S)[0]:
                raise TimeoutError("Chromium says nothing")
            piece = os.read(self._back, 1 << 20)
            if not piece:
                raise EOFError("Chromium has ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def chromium(folder: Path, *flags: str) -> Iterator[Page]:
    """A tab of a browser of its own, for as long as the block runs.

    Args:
        folder: for its profile.
        flags: further ones.
    """
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]
    os.close(theirs_in)
    os.close(theirs_out)
    words = ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]} 2>/dev/null', "bash", str(browser()), *_FLAGS, *flags,
             f"--user-data-dir={folder}"]
    with subprocess.Popen(words, pass_fds=high, stdout=subprocess.DEVNULL) as process:
        for one in high:
            os.close(one)
        try:
            yield Page(ours_out, ours_in)
        finally:
            process.kill()
            os.close(ours_in)
            os.close(ours_out)
