"use strict";
// A job's curves and its log. Both stand outside the part that htmx swaps each second; a swap brings new points (in a
// data attribute: htmx drops JSON script tags under allowScriptTags:false) and lines, which are taken over in place.
const COLOURS = { train: "#94a3b8", validation: "#3b82f6" };
const charts = new Map();

function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function epochs() {
  return Number(document.getElementById("curves").dataset.epochs) || undefined;
}

function options() {
  const text = themed("--sr-dim"), grid = themed("--sr-grid");
  const axis = title => ({ title: { display: Boolean(title), text: title, color: text }, ticks: { color: text }, grid: { color: grid } });
  return {
    animation: false, maintainAspectRatio: false, parsing: false, interaction: { mode: "nearest", axis: "x", intersect: false },
    scales: { x: { ...axis("epoch"), type: "linear", min: 1, suggestedMax: epochs(), ticks: { color: text, precision: 0 } }, y: axis("") },
    plugins: { legend: { labels: { color: text, boxWidth: 10, boxHeight: 10 } } },
  };
}

function chartOf(metric) {
  if (!charts.has(metric)) {
    const card = document.createElement("section");
    card.className = "sr-card";
    card.innerHTML = "<h2></h2><div class=\"sr-chart\"><canvas></canvas></div>";
    card.querySelector("h2").textContent = metric[0].toUpperCase() + metric.slice(1);
    const canvas = card.querySelector("canvas");
    canvas.dataset.curve = metric;
    document.getElementById("charts").append(card);
    charts.set(metric, new Chart(canvas, { type: "line", data: { datasets: [] }, options: options() }));
  }
  return charts.get(metric);
}

function drawCurves() {
  const points = document.getElementById("curves");
  if (!points) return;
  for (const [metric, lines] of Object.entries(JSON.parse(points.dataset.curves))) {
    const chart = chartOf(metric);
    chart.options.scales.x.suggestedMax = epochs();
    chart.data.datasets = Object.entries(lines).map(([part, line]) => ({
      label: part, data: line.map(([x, y]) => ({ x, y })), borderColor: COLOURS[part], backgroundColor: COLOURS[part],
      borderWidth: 2, clip: 8, pointRadius: line.length > 60 ? 0 : 2, tension: 0.2,
    }));
    chart.update("none");
  }
}

let follows = true;  // the log's tail, until somebody scrolls up

function drawLog() {
  const lines = document.getElementById("lines"), log = document.getElementById("log");
  if (!lines || !log) return;
  const kept = log.scrollTop;
  log.replaceChildren(...lines.cloneNode(true).childNodes);  // copies: one swap may settle twice
  log.scrollTop = follows ? log.scrollHeight : kept;
}

for (const kind of ["wheel", "touchmove", "keyup", "pointerup"]) {
  document.getElementById("log").addEventListener(kind, () => setTimeout(() => {
    const log = document.getElementById("log");
    follows = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  }, 100), { passive: true });
}

function draw() {
  drawCurves();
  drawLog();
}

document.addEventListener("htmx:afterSettle", draw);
addEventListener("resize", drawLog);
new MutationObserver(() => {
  for (const chart of charts.values()) { chart.options = options(); chart.update("none"); }
}).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
draw();
