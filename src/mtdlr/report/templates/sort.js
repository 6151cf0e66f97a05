window.addEventListener("beforeprint", function () {
  document.querySelectorAll("details.print").forEach(function (folded) { folded.open = true; });
});
document.querySelectorAll("th[data-sort]").forEach(function (head) {
  head.addEventListener("click", function () {
    var body = head.closest("table").tBodies[0], column = head.cellIndex, down = head.dataset.sort !== "up";
    var value = function (row) {
      var text = row.cells[column].textContent.trim(), number = parseFloat(text.replace("\u2212", "-"));
      return isNaN(number) || !/^[-\u2212+]?[\d.]/.test(text) ? text : number;
    };
    Array.from(body.rows).sort(function (a, b) {
      var x = value(a), y = value(b), order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x < typeof y ? -1 : 1;
      return down ? order : -order;
    }).forEach(function (row) { body.appendChild(row); });
    head.dataset.sort = down ? "up" : "down";
  });
});
