"use strict";
(function () {
  const model = JSON.parse(document.getElementById("model").textContent);
  const form = document.forms[0], byId = id => document.getElementById(id);
  const sum = values => values.reduce((a, b) => a + b, 0);
  const dot = (a, b) => sum(a.map((value, i) => value * b[i]));
  const percent = p => p > 0 && p < .005 ? "<1%" : p < 1 && p > .995 ? ">99%" : (100 * p).toFixed(0) + "%";
  // A number as people type it, with a point or a comma; NaN for anything else, so that nothing is guessed.
  const number = text => /^\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)\s*$/.test(text) ? Number(text.trim().replace(",", ".")) : NaN;
  const short = value => Number(value.toFixed(1)).toString();

  // The columns of one term: the value, indicators of the levels, a restricted cubic spline, or products of two terms.
  function columns(term, row) {
    if (term.a) return columns(term.a, row).flatMap(a => columns(term.b, row).map(b => a * b));
    const x = row[term.name];
    if (term.contrasts) return term.contrasts.map(level => level === x ? 1 : 0);
    if (!term.knots) return [x];
    const t = term.knots, k = t.length, gap = t[k - 1] - t[k - 2], norm = (t[k - 1] - t[0]) ** 2;
    const cube = knot => Math.max(x - knot, 0) ** 3;
    return [x].concat(t.slice(0, k - 2).map(knot => (cube(knot) - cube(t[k - 2]) * (t[k - 1] - knot) / gap
      + cube(t[k - 1]) * (t[k - 2] - knot) / gap) / norm));
  }

  const survivalOf = logHazard => Math.exp(-Math.exp(logHazard));

  function predict(row) {
    const x = model.terms.flatMap(term => columns(term, row));
    const points = model.groups.map(group =>
      (sum(group.columns.map(j => x[j] * model.coef[j])) - group.low) * model.scale);
    const logHazard = dot(x, model.coef), relative = logHazard - model.center;
    const survival = model.horizons.map(function (horizon) {
      if (horizon.log === null) return [null, null, null];
      const at = horizon.log + relative, value = survivalOf(at);
      if (horizon.variance === null) return [value, null, null];
      const lean = horizon.mean.map((mean, j) => mean - (x[j] - model.means[j]));
      const spread = horizon.variance + dot(lean, model.covariance.map(line => dot(line, lean)));
      const half = 1.959963984540054 * Math.sqrt(Math.max(spread, 0));
      return [value, survivalOf(at + half), survivalOf(at - half)];
    });
    return { points: points, total: sum(points), logHazard: logHazard, relative: relative, survival: survival };
  }

  function read() {
    const row = {};
    for (const field of form.querySelectorAll("[data-variable]")) {
      const name = field.dataset.variable, control = form.elements["v-" + name];
      row[name] = field.dataset.kind === "number" ? number(control.value) : control.value;
    }
    return row;
  }

  function el(parent, tag, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  }

  const pen = document.createElement("canvas").getContext("2d");
  pen.font = "12px system-ui,'Segoe UI',Helvetica,Arial,sans-serif";
  const widthOf = text => pen.measureText(text).width;

  const clash = (a, b) => !a.back === !b.back && Math.abs(a.at - b.at) < (widthOf(a.text) + widthOf(b.text)) / 2 + 5;

  // "levels": every label, in the first free lane (below, above, second below, ...). "numbers": as many evenly spaced
  // ones as fit below. "ranked": the most important ones that fit below.
  function lanes(ticks, kind) {
    for (const tick of ticks) tick.at = Math.max(tick.x, LEFT - 18 + widthOf(tick.text) / 2);
    if (kind === "levels") {
      const taken = [];
      return ticks.map(function (tick) {
        let lane = 0;
        while ((taken[lane] = taken[lane] || []).some(other => clash(tick, other))) lane += 1;
        taken[lane].push(tick);
        return { x: tick.x, at: tick.at, text: tick.text, side: lane % 2 ? -1 : 1, depth: lane >> 1 };
      });
    }
    const every = n => ticks.filter((_, i) => i % n === 0);
    const apart = kept => kept.every((tick, i) => kept.slice(0, i).every(other => !clash(tick, other)));
    const kept = kind === "numbers" ? every([1, 2, 5, 10, 20].find(n => apart(every(n))) || 20)
      : ticks.reduce((chosen, tick) => chosen.some(other => clash(tick, other)) ? chosen : chosen.concat(tick), []);
    return kept.map(tick => ({ x: tick.x, at: tick.at, text: tick.text, side: tick.back ? -1 : 1, depth: 0 }));
  }

  const LEFT = 230, RIGHT = 990, NARROW = RIGHT - LEFT;
  function axis(svg, y, title, ticks, kind, strong) {
    const placed = lanes(ticks, kind), depth = side => Math.max(-1, ...placed.filter(l => l.side === side).map(l => l.depth)) + 1;
    y += 18 + 15 * depth(-1);
    let name = title;
    while (widthOf(name) > LEFT - 22) name = name.slice(0, -2) + "\u2026";
    const heading = el(svg, "text", { x: 8, y: y + 4, class: strong ? "strong" : "" }, name);
    if (name !== title) el(heading, "title", {}, title);
    const xs = ticks.map(tick => tick.x);
    if (xs.length) el(svg, "path", { class: "axis", d: "M" + Math.min(...xs) + " " + y + "H" + Math.max(...xs) });
    for (const tick of ticks) el(svg, "path", { class: "axis", d: "M" + tick.x + " " + y + "v" + 3 });
    const end = label => y + label.side * (6 + 15 * label.depth);
    for (const label of placed.filter(l => l.side < 0 || l.depth)) {
      el(svg, "path", { class: "axis", "stroke-opacity": .4, d: "M" + label.x + " " + y + "V" + end(label) });
    }
    for (const label of placed) {
      el(svg, "text", { x: label.at, y: end(label) + (label.side > 0 ? 12 : -3), "text-anchor": "middle" }, label.text);
    }
    return { y: y, bottom: y + 12 + 15 * Math.max(depth(1), 0) };
  }

  function mark(svg, x, y, text) {
    const at = Math.min(Math.max(x, LEFT), RIGHT);
    el(el(svg, "circle", { cx: at, cy: y, r: 5.5, class: "mark" }), "title", {}, text);
    return at;
  }

  function drawNomogram(row, result) {
    const svg = byId("nomogram");
    svg.replaceChildren();
    const guides = el(svg, "g", {}), place = points => LEFT + NARROW * points / 100;
    const hundred = Array.from({ length: 11 }, (_, i) => ({ x: place(10 * i), text: String(10 * i) }));
    let line = axis(svg, 4, "Points", hundred, "numbers", true);
    const first = line.y;
    model.groups.forEach(function (group, i) {
      const distance = each => sum(Object.entries(each.given).map(([name, value]) =>
        typeof value === "number" ? Math.abs(value - row[name]) : value === row[name] ? 0 : 1e9));
      const mine = group.axes.reduce((a, b) => distance(b) < distance(a) ? b : a);
      for (const each of group.axes) {
        line = axis(svg, line.bottom, each.label, each.ticks.map(t => ({ x: place(t[1]), text: t[0], back: t[2] })), each.kind);
        if (each === mine) mark(svg, place(result.points[i]), line.y, group.label + ": " + short(result.points[i]) + " points");
      }
    });
    for (const tick of hundred) el(guides, "path", { class: "guide", d: "M" + tick.x + " " + first + "V" + line.y });
    const longest = model.total[model.total.length - 1], along = points => LEFT + NARROW * points / longest;
    line = axis(svg, line.bottom + 14, "Total points", model.total.map(t => ({ x: along(t), text: short(t) })), "numbers", true);
    const top = line.y, at = mark(svg, along(result.total), top, short(result.total) + " points");
    model.horizons.forEach(function (horizon, i) {
      const ticks = horizon.ticks.filter(t => t[1] >= -1e-9 && t[1] <= longest + 1e-9);
      line = axis(svg, line.bottom, byId("horizon-" + i).dataset.name, ticks.map(t => ({ x: along(t[1]), text: String(t[0]) })), "ranked");
      if (result.survival[i][0] !== null) mark(svg, along(result.total), line.y, percent(result.survival[i][0]));
    });
    el(guides, "path", { class: "drop", d: "M" + at + " " + top + "V" + line.y });
    svg.setAttribute("viewBox", "0 0 1010 " + (line.bottom + 6));
  }

  function drawCurve(result) {
    const svg = byId("curve");
    if (!svg) return;
    svg.replaceChildren();
    if (!model.curve.length) return;
    const last = model.curve[model.curve.length - 1][0], x = month => 44 + 530 * month / last, y = s => 14 + 190 * (1 - s);
    for (const s of [0, .25, .5, .75, 1]) {
      el(svg, "path", { class: "guide", d: "M44 " + y(s) + "H574" });
      el(svg, "text", { x: 38, y: y(s) + 4, "text-anchor": "end" }, percent(s));
    }
    const step = [3, 6, 12, 24, 36, 60, 120].find(s => last / s <= 10) || 240;
    for (let month = 0; month <= last; month += step) el(svg, "text", { x: x(month), y: 222, "text-anchor": "middle" }, month);
    el(svg, "text", { x: 309, y: 240, "text-anchor": "middle", class: "soft" }, "Months");
    let d = "";
    for (const [month, hazard] of [[0, -Infinity]].concat(model.curve)) d += (d ? "H" + x(month) + "V" : "M" + x(month) + " ") + y(survivalOf(hazard + result.relative));
    el(svg, "path", { class: "curve", d: d });
    model.months.forEach(function (month, i) {
      const [value, low, high] = result.survival[i];
      if (month > last || value === null) return;
      if (low !== null) el(svg, "path", { class: "axis", d: "M" + x(month) + " " + y(low) + "V" + y(high) });
      el(svg, "circle", { cx: x(month), cy: y(value), r: 5, class: "mark" });
    });
  }

  // Nothing of the patient before stays when a value is missing.
  function clear() {
    byId("total").textContent = "\u2013";
    delete byId("total").dataset.value;
    model.horizons.forEach(function (_, i) {
      const box = byId("horizon-" + i);
      box.querySelector("b").textContent = "\u2013";
      box.querySelector("i").textContent = "";
      delete box.dataset.values;
    });
    if (byId("group")) byId("group").textContent = "\u2013";
    for (const id of ["points", "curve", "nomogram"]) if (byId(id)) byId(id).replaceChildren();
  }

  function update() {
    const row = read(), complete = Object.values(row).every(value => typeof value === "string" || isFinite(value));
    const missing = [], outside = [];
    for (const field of form.querySelectorAll("[data-kind=number]")) {
      const name = field.dataset.variable, value = row[name], range = model.limits[name];
      const out = value < range[0] || value > range[1];
      if (!isFinite(value)) missing.push(field.dataset.label);
      if (out) outside.push(field.dataset.label);
      field.querySelector(".hint").classList.toggle("out", out);
    }
    byId("results").dataset.complete = complete;
    byId("message").textContent = missing.length ? "Enter a number for " + missing.join(", ") + "; nothing is shown until then."
      : outside.length ? "Outside the range the model was built on: " + outside.join(", ") + ". Read the numbers as an extrapolation."
      : "";
    if (!complete) { clear(); return; }
    const result = predict(row);
    byId("total").textContent = short(result.total);
    byId("total").dataset.value = result.total;
    if (byId("group")) byId("group").textContent = result.logHazard >= model.cutoff ? "high" : "low";
    result.survival.forEach(function (survival, i) {
      const box = byId("horizon-" + i);
      box.querySelector("b").textContent = survival[0] === null ? "\u2013" : percent(survival[0]);
      box.querySelector("i").textContent = outside.length ? "extrapolated" : survival[1] === null ? ""
        : "CI " + percent(survival[1]) + "\u2013" + percent(survival[2]);
      box.dataset.values = JSON.stringify(survival);
    });
    const lines = model.groups.map((group, i) => [group.label, result.points[i]]).concat([["Total", result.total]]);
    byId("points").replaceChildren(...lines.map(function (cells) {
      const line = document.createElement("tr");
      for (const text of [cells[0], short(cells[1])]) line.appendChild(document.createElement("td")).textContent = text;
      line.dataset.value = cells[1];
      return line;
    }));
    drawCurve(result);
    drawNomogram(row, result);
  }

  form.addEventListener("input", function (event) {
    const field = event.target.closest("[data-kind=number]");
    if (field) for (const other of field.querySelectorAll("input")) if (other !== event.target) other.value = event.target.value;
    update();
  });
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", event => event.preventDefault());
  update();
})();
