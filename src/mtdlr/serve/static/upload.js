"use strict";
(function () {
  const byId = id => document.getElementById(id), form = byId("upload"), message = byId("message");
  const say = text => { message.textContent = text; };
  if ("webkitdirectory" in byId("folder")) byId("folderline").hidden = false;

  function show(sending) {
    byId("sending").hidden = !sending;
    form.querySelector("button.main").disabled = sending;
  }

  function problems(text) {
    try {
      return JSON.parse(text).problems.map(p => p.code + ": " + [p.what, p.found && "found " + p.found, p.remedy].filter(Boolean).join("; ")).join(" ");
    } catch { return ""; }
  }

  form.addEventListener("submit", function (event) {
    event.preventDefault();
    const files = [...byId("files").files, ...byId("folder").files];
    const size = files.reduce((sum, file) => sum + file.size, 0);
    if (!files.length) return say("Choose a zip, the files or a folder of one PET/CT.");
    if (files.length > Number(form.dataset.files)) return say("E-UPLOAD: too many files: " + files.length);
    if (size > Number(form.dataset.bytes)) return say("E-TOOLARGE: the files are larger than the limit below.");
    say("");
    const data = new FormData(form);
    data.delete("file");
    for (const file of files) data.append("file", file, file.webkitRelativePath || file.name);
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = e => { byId("bar").value = e.lengthComputable ? 100 * e.loaded / e.total : 0; };
    request.onload = function () {
      show(false);
      if (request.status === 201) location.assign(JSON.parse(request.responseText).page);
      else say(problems(request.responseText) || "The server answered " + request.status + ".");
    };
    request.onerror = () => { show(false); say("The upload was cut. Is the server still running?"); };
    request.onabort = () => { show(false); say("Stopped; nothing was kept."); };
    byId("stop").onclick = () => request.abort();
    show(true);
    request.send(data);
  });
})();
