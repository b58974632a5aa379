"use strict";
/* Keeps the pages live: charts, ages, and a word when the connection is gone. Everything works without it, but by hand. */
(() => {
  const KEPT = 300;
  /* Columns of a point, as connector/console/sampling.py sends them. */
  const AT = 0, READ = 1, SETTLED = 2, DEAD = 3, LAG = 5, IN_FLIGHT = 6, LIMIT = 7;
  const KINDS = {
    flow: [[READ, "--in", "read"], [SETTLED, "--good", "settled"]],
    lag: [[LAG, "--warn", "lag"]],
    limit: [[IN_FLIGHT, "--in", "in flight"], [LIMIT, "--dim", "limit"]],
    dead: [[DEAD, "--bad", "dead letters"]],
  };
  const rows = new Map();
  let charts = [];

  const short = (value) => {
    if (value == null) return "";
    const size = Math.abs(value);
    if (size >= 1e6) return (value / 1e6).toFixed(size >= 1e7 ? 0 : 1) + " M";
    if (size >= 1e3) return (value / 1e3).toFixed(size >= 1e4 ? 0 : 1) + " k";
    return String(Math.round(value * 10) / 10);
  };

  function columns(stream, series) {
    const points = rows.get(stream) || [];
    return [points.map((row) => row[AT]), ...series.map(([column]) => points.map((row) => row[column]))];
  }

  function draw(figure) {
    const css = getComputedStyle(document.documentElement);
    const color = (name) => css.getPropertyValue(name).trim();
    const series = KINDS[figure.dataset.chart];
    const large = "large" in figure.dataset;
    const axis = { stroke: color("--dim"), font: "10px system-ui, sans-serif", grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const most = large ? KEPT : 120;
    const plot = new uPlot({
      width: Math.max(figure.clientWidth, 60),
      height: large ? 150 : 72,
      legend: { show: false },
      cursor: { show: large, drag: { x: false, y: false } },
      padding: [6, 4, large ? 0 : 4, 0],
      scales: {
        x: { time: true, range: (_plot, min, max) => {
          const end = max || Date.now() / 1000;
          return [end - Math.min(most, Math.max(30, end - (min || end))), end];
        } },
        y: { range: (_plot, _min, max) => [0, Math.max(max || 0, 1) * 1.1] },
      },
      axes: [
        { ...axis, show: large, size: 22, grid: { show: false }, values: (_plot, ticks) => ticks.map((tick) => new Date(tick * 1000).toISOString().slice(11, 19)), space: 90 },
        { ...axis, size: 40, space: large ? 30 : 24, values: (_plot, ticks) => ticks.map(short) },
      ],
      series: [{}, ...series.map(([, name, label]) => ({
        label, stroke: color(name), width: 1.5, points: { show: false },
        fill: series.length === 1 ? color(name) + "22" : undefined,
      }))],
    }, columns(figure.dataset.stream, series), figure);
    return { figure, plot, series };
  }

  function redraw() {
    for (const chart of charts) chart.plot.destroy();
    charts = [...document.querySelectorAll("[data-chart]")].map(draw);
  }

  function take(message) {
    const told = JSON.parse(message.data);
    for (const [name, points] of Object.entries(told.streams)) {
      const there = points.length > 1 ? [] : rows.get(name) || [];
      rows.set(name, there.concat(points).slice(-KEPT));
    }
    if (document.hidden) return;
    for (const chart of charts) chart.plot.setData(columns(chart.figure.dataset.stream, chart.series));
  }

  function age(secs) {
    secs = Math.max(0, Math.floor(secs));
    if (secs < 60) return secs + " s";
    const minutes = Math.floor(secs / 60);
    if (minutes < 60) return minutes + " min " + (secs % 60) + " s";
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? hours + " h " + (minutes % 60) + " min" : Math.floor(hours / 24) + " d " + (hours % 24) + " h";
  }

  function ages() {
    const now = Date.now() / 1000;
    for (const element of document.querySelectorAll("[data-since]")) {
      const text = "for " + age(now - Number(element.dataset.since));
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function live(is) {
    for (const element of document.querySelectorAll("[data-live]")) element.dataset.live = is ? "yes" : "no";
  }

  document.addEventListener("htmx:sseOpen", (event) => {
    event.detail.source.addEventListener("points", take);
    live(true);
  });
  document.addEventListener("htmx:sseError", () => live(false));
  document.addEventListener("htmx:afterSwap", ages);

  addEventListener("DOMContentLoaded", () => {
    redraw();
    ages();
    setInterval(ages, 1000);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new ResizeObserver(() => {
      for (const { figure, plot } of charts) plot.setSize({ width: Math.max(figure.clientWidth, 60), height: plot.height });
    }).observe(document.body);
  });
})();
