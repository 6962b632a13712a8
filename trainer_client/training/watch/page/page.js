// The status page: asks for status.json, draws two charts and two tables. No words of the run become markup.
"use strict";

const COLOURS = ["#c0392b", "#2471a3", "#d68910", "#7d3c98", "#17a589", "#5d6d7e", "#a04000", "#196f3d", "#884ea0", "#2e4053"];
const CALM = ["trainer_bound", "starting", "idle"];
const charts = {};
let answeredMs = 0;

const byId = (id) => document.getElementById(id);
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rate = (value) => value == null ? "–" : value < 9.95 ? value.toFixed(1) : value.toFixed(0);
const percent = (share) => (100 * share).toFixed(share < 0.0995 ? 1 : 0) + " %";
const time = (seconds) => !seconds ? "–" : seconds < 1 ? (1000 * seconds).toFixed(seconds < 0.1 ? 1 : 0) + " ms" : seconds.toFixed(1) + " s";

function draw(id, names, columns, axis) {
  const box = byId(id), key = names.join();
  const known = charts[id];
  if (known && known.key === key) {
    known.plot.setData(columns);
    return;
  }
  if (known) known.plot.destroy();
  const stroke = ink("--soft"), grid = { stroke: ink("--line"), width: 1 };
  const series = names.map((name, number) => ({
    label: name, stroke: COLOURS[number % COLOURS.length], width: 2, value: (_, value) => value == null ? "–" : axis(value),
  }));
  const options = {
    width: box.clientWidth, height: 200, legend: { live: true },
    scales: { x: { time: true }, y: { range: (_, low, high) => [0, high > 0 ? 1.05 * high : 1] } },
    axes: [{ stroke, grid }, { stroke, grid, size: 60, values: (_, values) => values.map(axis) }],
    series: [{ label: "time" }, ...series],
  };
  charts[id] = { key, plot: new uPlot(options, columns, box) };
}

function table(id, heads, rows) {
  const row = (cells, kind) => {
    const line = document.createElement("tr");
    for (const cell of cells) {
      const one = document.createElement(kind);
      const [text, bad] = Array.isArray(cell) ? cell : [cell, false];
      one.textContent = text;
      if (bad) one.className = "bad";
      line.append(one);
    }
    return line;
  };
  byId(id).replaceChildren(row(heads, "th"), ...rows.map((cells) => row(cells, "td")));
}

function leftOut(id, many, what) {
  byId(id).textContent = many ? `and ${many} ${what} more` : "";
}

function charted(said, nowS) {
  const last = said.points.at(-1).at_s;
  const times = said.points.map((point) => nowS - (last - point.at_s));
  const causes = [...new Set(said.points.flatMap((point) => Object.keys(point.waits)))].sort()
    .filter((cause) => said.points.some((point) => point.waits[cause] > 0));
  const waits = causes.map((cause) => said.points.map((point) => point.waits[cause] || 0));
  draw("waits", causes.length ? causes : ["none"], [times, ...(causes.length ? waits : [times.map(() => 0)])], percent);
  const flow = ["got_clips_s", "demand_clips_s", "could_clips_s"].map((name) => said.points.map((point) => point[name]));
  draw("flow", ["got", "demand", "could"], [times, ...flow], rate);
}

function show(said) {
  if (!said.points.length) return;
  charted(said, Date.now() / 1000);
  byId("verdict").textContent = said.verdict.line;
  byId("verdict").className = CALM.includes(said.verdict.kind) ? "good" : "bad";
  byId("reason").textContent = said.verdict.reason;
  const worst = (waits) => Object.entries(waits).sort((a, b) => b[1] - a[1])[0];
  table("ranks", ["rank", "waits", "most for", "clips/s", "in flight", "ready"], said.ranks.map((rank) => [
    rank.name, [percent(rank.starvation), rank.starvation > 0.05], rank.starvation > 0 ? worst(rank.waits)[0] : "–",
    rate(rank.clips_s), rank.in_flight, `${rank.held} of ${rank.held_limit}`,
  ]));
  table("servers", ["server", "state", "clips/s", "threads busy", "queue", "clip", "storage p99"], said.servers.map((one) => [
    one.name, [one.seen_state || one.state, !one.up], one.paged ? rate(one.clips_s) : rate(one.ok_s),
    one.paged && one.threads ? percent(one.busy_threads / one.threads) : "–", one.paged ? one.queue : "–",
    time(one.clip_s), time(one.storage_p99_s),
  ]));
  leftOut("ranks-left-out", said.left_out.ranks, "ranks, which wait less,");
  leftOut("servers-left-out", said.left_out.servers, "servers");
  byId("silent").replaceChildren(...Object.entries(said.silent).map(([url, why]) => {
    const item = document.createElement("li");
    item.textContent = `${url}: ${why}`;
    return item;
  }));
  leftOut("silent-left-out", said.left_out.silent, "pages");
  byId("events").replaceChildren(...said.events.map((event) => {
    const item = document.createElement("li");
    item.textContent = `${event.ago_s.toFixed(0)} s ago: ${event.text}`;
    return item;
  }));
}

async function look() {
  let everyS = 5;
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    const said = await answer.json();
    everyS = said.every_s;
    answeredMs = Date.now();
    if (!document.hidden) show(said);
  } catch (error) {
    if (answeredMs) byId("verdict").textContent = "the trainer answers no more";
    byId("verdict").className = "bad";
  }
  byId("age").textContent = answeredMs ? `as of ${new Date(answeredMs).toLocaleTimeString()}` : "no answer yet";
  setTimeout(look, 1000 * everyS);
}

addEventListener("resize", () => {
  for (const [id, chart] of Object.entries(charts)) chart.plot.setSize({ width: byId(id).clientWidth, height: 200 });
});
look();
