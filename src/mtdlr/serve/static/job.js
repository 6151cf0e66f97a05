"use strict";
(function () {
  const state = document.getElementById("state"), job = state.dataset.job;
  const words = { waiting: "waits for its turn", running: "is being computed", uploading: "is being sent" };
  async function look() {
    try {
      const answer = await fetch("/jobs/" + job + "/state", { headers: { Accept: "application/json" } });
      const found = await answer.json();
      if (!answer.ok || !words[found.state]) return location.reload();
      const text = "The scan " + words[found.state] + (found.ahead ? "; jobs before it: " + found.ahead : "") + ".";
      if (state.textContent !== text) state.textContent = text;
    } catch { state.textContent = "The server does not answer; this page asks again."; }
    setTimeout(look, 250);
  }
  setTimeout(look, 250);
})();
