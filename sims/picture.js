"use strict";
// Draws what picture.py has computed. Times are virtual seconds, lengths are pixels.

const byId = (id) => document.getElementById(id);
const run = JSON.parse(byId("run").textContent);
const timeline = byId("timeline");
const overview = byId("overview");

const MARGIN = 92; // of the names of the lanes
const BANNER = run.violation === null ? 0 : 20; // of the violation, above the names of the phases
const AXIS = BANNER + 34;
const ROW = 14; // of an operation or a fault
const TICK = 3; // the narrowest bar
const ARROWS_MAX = 400; // so many messages are drawn as arrows, of more only how much there is
const LINES_MAX = 60;
const NEAR = 5;
const SMALLEST = 0.0005; // the shortest view
const FONT = "11px system-ui, sans-serif";
const STATES = { up: "--up", down: "--down", paused: "--paused", off: "--off" };
const PHASES = { begin: "begin", mended: "mended", recovering: "recovering", judged: "judged" };

// -- what there is -----------------------------------------------------------

const events = run.events.map(([nanoseconds, host, shape, ...values]) => {
  const [kind, ...keys] = run.shapes[shape];
  const fields = {};
  keys.forEach((key, index) => (fields[key] = values[index]));
  const [name, lane] = run.hosts[host];
  return { at: nanoseconds / 1e9, nanoseconds, host: name, lane, kind, fields, group: run.groups[kind] };
});
const laneOf = new Map(run.hosts);
const operations = run.operations.map(([lane, row, began, ended, number, host, kind, path, result, look, isRead, isNamed]) => {
  return { lane, row, began, ended: ended ?? run.end, number, host, kind, path, result, look, isRead, isNamed, isOpen: ended === null };
});
const faults = run.faults.map(([row, began, ended, what, hosts, text]) => ({ row, began, ended, what, hosts, text }));
const lives = run.lives.map(([lane, began, ended, state, label]) => ({ lane, began, ended, state, label }));
const cuts = run.cuts.map(([lane, began, ended, state, partner]) => ({ lane, began, ended, state, partner }));
const phases = events.filter((event) => event.kind in PHASES);
// A fault hits several machines at once, and belongs to the lane of each.
const lanesOf = (event) => (event.lane >= 0 ? [event.lane] : event.host.split(",").map((name) => run.lanes.findIndex(([names]) => names.includes(name))));

function lineOf(event) {
  const values = Object.entries(event.fields).map(([key, value]) => ` ${key}=${value}`);
  return `${(event.nanoseconds / 1e9).toFixed(9).padStart(14)} ${event.host.padEnd(10)} ${event.kind}${values.join("")}`;
}

// -- where it is drawn -------------------------------------------------------

const faultRows = 1 + Math.max(-1, ...faults.map((fault) => fault.row));
const faultsTop = AXIS;
let bottom = faultsTop + (faultRows ? faultRows * ROW + 8 : 0);
const lanes = run.lanes.map(([names, sort], index) => {
  const rows = 1 + Math.max(0, ...operations.filter((each) => each.lane === index).map((each) => each.row));
  const height = sort === "machine" ? 62 : sort === "client" ? rows * ROW + 16 : 22;
  const name = names.length > 1 ? `${names[0]} +${names.length - 1}` : names[0];
  const lane = { name, names, sort, top: bottom, height };
  bottom += height;
  return lane;
});
const HEIGHT = bottom + 2;
const PARTS = { state: [2, 15], cut: [18, 4], disk: [24, 15], traffic: [40, 20] }; // of the lane of a machine: top and height
const traffic = (lane) => (lane.sort === "machine" ? [lane.top + PARTS.traffic[0], PARTS.traffic[1]] : [lane.top + 2, lane.height - 4]);

let width = 0;
let view = { from: 0, to: run.end };
let pointer = null; // where it is
let held = null; // where it was when it was clicked
let cursor = -1; // the event that the keyboard is at
let shown = null; // whether each event passes the filter; null: all do
let colours = {};

const x = (at) => MARGIN + ((at - view.from) / (view.to - view.from)) * (width - MARGIN);
const timeAt = (px) => view.from + ((px - MARGIN) / (width - MARGIN)) * (view.to - view.from);
const passes = (index) => shown === null || shown[index];
const isWanted = (event) =>
  (event.kind !== "bytes" || byId("messages").checked) && (!["disk", "durable"].includes(event.group) || byId("disks").checked);

function firstFrom(at) {
  let low = 0;
  let high = events.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (events[middle].at < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

function prepare(canvas, height) {
  const scale = window.devicePixelRatio || 1;
  const wide = canvas.clientWidth;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(wide * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(wide * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.font = FONT;
  pen.textBaseline = "middle";
  return pen;
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  colours = new Proxy({}, { get: (known, name) => (known[name] ??= style.getPropertyValue(`--${name}`).trim()) });
}

function stripes(pen, left, top, wide, high, colour) {
  pen.save();
  pen.beginPath();
  pen.rect(left, top, wide, high);
  pen.clip();
  pen.strokeStyle = colour;
  pen.lineWidth = 1.5;
  pen.beginPath();
  // Stripes stand still on the page, so only those that are in sight are drawn.
  const begin = Math.max(left, MARGIN) - high;
  const end = Math.min(left + wide, width);
  for (let at = begin - (begin % 6); at < end; at += 6) {
    pen.moveTo(at, top + high);
    pen.lineTo(at + high, top);
  }
  pen.stroke();
  pen.restore();
}

function fitted(pen, text, room, fewest = 2) {
  if (pen.measureText(text).width <= room) return text;
  const few = Math.floor(text.length * (room / pen.measureText(text).width)) - 1;
  return few >= fewest ? `${text.slice(0, few)}…` : "";
}

// -- the timeline ------------------------------------------------------------

function draw() {
  width = timeline.clientWidth;
  if (width <= MARGIN) return; // the page is not laid out yet, or is in a tab that nobody sees
  const pen = prepare(timeline, HEIGHT);
  pen.fillStyle = colours.page;
  pen.fillRect(0, 0, width, HEIGHT);
  lanes.forEach((lane, index) => {
    pen.fillStyle = index % 2 ? colours.page : colours.stripe;
    pen.fillRect(0, lane.top, width, lane.height);
  });
  drawGrid(pen);
  pen.save();
  pen.beginPath();
  pen.rect(MARGIN, AXIS, width - MARGIN, HEIGHT);
  pen.clip();
  drawLives(pen);
  drawCuts(pen);
  drawEvents(pen);
  drawOperations(pen);
  drawFaults(pen);
  pen.restore();
  drawPhases(pen);
  drawViolation(pen);
  drawPointer(pen);
  drawNames(pen);
  drawOverview();
  byId("before").disabled = run.violation === null;
}

function drawGrid(pen) {
  const span = view.to - view.from;
  const rough = (span / (width - MARGIN)) * 90;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  pen.strokeStyle = colours.line;
  pen.fillStyle = colours.faint;
  pen.lineWidth = 1;
  pen.textAlign = "center";
  for (let count = Math.ceil(view.from / step); count * step <= view.to; count++) {
    const px = Math.round(x(count * step)) + 0.5;
    pen.beginPath();
    pen.moveTo(px, AXIS - 4);
    pen.lineTo(px, HEIGHT);
    pen.stroke();
    pen.fillText(`${(count * step).toFixed(digits)} s`, Math.min(px, width - 20), AXIS - 11);
  }
  pen.textAlign = "left";
}

function drawLives(pen) {
  const [top, high] = PARTS.state;
  for (const life of lives) {
    if (life.ended < view.from || life.began > view.to) continue;
    const lane = lanes[life.lane];
    const left = Math.max(x(life.began), MARGIN);
    const wide = Math.max(Math.min(x(life.ended), width) - left, 1);
    pen.fillStyle = colours[STATES[life.state].slice(2)];
    const isClient = lane.sort !== "machine";
    pen.fillRect(left, lane.top + top, wide, isClient ? 4 : high);
    if (isClient) continue;
    if (life.state === "down") stripes(pen, left, lane.top + top, wide, high, colours.stripe);
    pen.fillStyle = life.state === "up" ? colours.faint : colours.ink;
    pen.fillText(fitted(pen, life.label, wide - 6), left + 4, lane.top + top + high / 2);
    pen.fillStyle = life.state === "up" ? colours.life : colours.broken;
    if (x(life.began) >= MARGIN && life.began > 0) pen.fillRect(left, lane.top + top - 1, 2, high + 2);
  }
}

function drawCuts(pen) {
  for (const cut of cuts) {
    if (cut.lane < 0 || cut.ended < view.from || cut.began > view.to) continue;
    const lane = lanes[cut.lane];
    const left = Math.max(x(cut.began), MARGIN);
    const top = lane.sort === "machine" ? lane.top + PARTS.cut[0] : lane.top + lane.height - 3;
    pen.fillStyle = colours.cut;
    pen.globalAlpha = cut.state === "cut" ? 0.35 : 0.2; // the more partners, the darker
    pen.fillRect(left, top, Math.max(Math.min(x(cut.ended), width) - left, 1), lane.sort === "machine" ? PARTS.cut[1] - 1 : 2);
    pen.globalAlpha = 1;
  }
}

const HEIGHTS = { disk: 6, durable: 11, damage: 15 };

function drawEvents(pen) {
  const begin = firstFrom(view.from);
  const end = firstFrom(view.to + 1e-9);
  const messages = [];
  const ticks = { disk: [], durable: [], damage: [], link: [], sometimes: [] };
  for (let index = begin; index < end; index++) {
    const event = events[index];
    if (!passes(index) || !isWanted(event)) continue;
    if (event.kind === "bytes") messages.push(event);
    else if (event.kind === "sometimes") ticks.sometimes.push(event);
    else if (event.lane >= 0 && ticks[event.group] !== undefined) ticks[event.group].push(event);
  }
  drawTraffic(pen, messages);
  if (messages.length <= ARROWS_MAX) drawArrows(pen, messages);
  const [top, high] = PARTS.disk;
  for (const group of ["disk", "durable", "damage"]) {
    pen.fillStyle = colours[group];
    for (const event of ticks[group]) {
      const base = lanes[event.lane].top + top + high;
      const wide = group === "damage" ? 4 : 1.5;
      pen.fillRect(x(event.at) - wide / 2, base - HEIGHTS[group], wide, HEIGHTS[group]);
    }
  }
  drawNamesOfTicks(pen, ticks.damage, "damage");
  if (ticks.disk.length + ticks.durable.length < 60) drawNamesOfTicks(pen, [...ticks.disk, ...ticks.durable], "faint");
  drawLinks(pen, ticks.link);
  pen.fillStyle = colours.fault;
  for (const event of ticks.sometimes) {
    if (event.lane >= 0) pen.fillRect(x(event.at) - 1, lanes[event.lane].top + PARTS.cut[0] + 2, 2.5, 4);
  }
}

function drawNamesOfTicks(pen, ticks, colour) {
  // A name stands where there is room up to the next one.
  const rooms = new Map();
  pen.fillStyle = colours[colour];
  for (const event of [...ticks].sort((one, other) => one.at - other.at)) {
    const px = x(event.at) + 4;
    if (px < (rooms.get(event.lane) ?? 0)) continue;
    const text = event.kind;
    rooms.set(event.lane, px + pen.measureText(text).width + 6);
    pen.fillText(text, px, lanes[event.lane].top + PARTS.disk[0] + 5);
  }
}

function drawTraffic(pen, messages) {
  const bucket = 3;
  const count = Math.ceil((width - MARGIN) / bucket) + 1;
  const sums = lanes.map(() => [new Float64Array(count), new Float64Array(count)]);
  let most = 1;
  for (const event of messages) {
    const place = Math.floor((x(event.at) - MARGIN) / bucket);
    [event.lane, laneOf.get(event.fields.frm) ?? -1].forEach((lane, direction) => {
      if (lane < 0 || place < 0 || place >= count) return;
      sums[lane][direction][place] += event.fields.count;
      most = Math.max(most, sums[lane][direction][place]);
    });
  }
  pen.fillStyle = colours.message;
  lanes.forEach((lane, index) => {
    if (lane.sort === "client") return;
    const [top, high] = traffic(lane);
    pen.globalAlpha = 0.75;
    sums[index].forEach((sum, direction) => {
      if (direction) pen.globalAlpha = 0.4;
      sum.forEach((bytes, place) => {
        if (!bytes) return;
        const length = Math.max(1, (Math.log1p(bytes) / Math.log1p(most)) * (high / 2));
        pen.fillRect(MARGIN + place * bucket, direction ? top + high / 2 : top + high / 2 - length, bucket - 0.5, length);
      });
    });
    pen.globalAlpha = 1;
  });
}

// Where the messages and links of a lane are: those of a client below its operations.
const middleOf = (lane) => {
  const [top, high] = lane.sort === "client" ? [lane.top + lane.height - 12, 12] : traffic(lane);
  return top + high / 2;
};

function drawArrows(pen, messages) {
  pen.strokeStyle = pen.fillStyle = colours.message;
  pen.lineWidth = 1;
  pen.globalAlpha = messages.length < 120 ? 0.9 : 0.5;
  for (const event of messages) {
    const from = laneOf.get(event.fields.frm) ?? -1;
    if (from < 0 || event.lane < 0 || from === event.lane) continue;
    const [top, end] = [middleOf(lanes[from]), middleOf(lanes[event.lane])];
    const px = x(event.at); // the moment of arrival; when it left nobody noted
    const down = Math.sign(end - top);
    pen.beginPath();
    pen.moveTo(px - 9, top);
    pen.lineTo(px, end);
    pen.stroke();
    pen.beginPath();
    pen.moveTo(px, end);
    pen.lineTo(px - 4, end - down * 6);
    pen.lineTo(px + 2, end - down * 6);
    pen.fill();
  }
  pen.globalAlpha = 1;
}

function drawLinks(pen, links) {
  const last = new Map(); // where the last mark of a kind is, by lane: of many in one place, one is enough
  pen.lineWidth = 1.5;
  for (const event of links) {
    const px = x(event.at);
    const py = middleOf(lanes[event.lane]);
    const place = `${event.lane} ${event.kind}`;
    if (px - (last.get(place) ?? -9) < 7) continue;
    last.set(place, px);
    if (event.kind === "connected") {
      pen.strokeStyle = colours.link;
      pen.beginPath();
      pen.arc(px, py, 3, 0, 7);
      pen.stroke();
    } else if (event.kind === "reset" || event.kind === "refused" || event.kind === "no-answer") {
      pen.strokeStyle = event.kind === "reset" ? colours.cut : colours.faint;
      pen.beginPath();
      pen.moveTo(px - 3, py - 3);
      pen.lineTo(px + 3, py + 3);
      pen.moveTo(px + 3, py - 3);
      pen.lineTo(px - 3, py + 3);
      pen.stroke();
    }
  }
}

function drawOperations(pen) {
  const isFiltered = shown !== null;
  const next = new Map(); // where the bar after it begins, by lane and row
  const visible = operations.filter((each) => each.ended >= view.from && each.began <= view.to);
  for (const each of [...visible].reverse()) {
    const place = `${each.lane} ${each.row}`;
    each.room = next.get(place) ?? width;
    next.set(place, x(each.began) - 4);
  }
  // What the violation speaks of comes last, so that its name is over those of others.
  for (const each of [...visible.filter((other) => !other.isNamed), ...visible.filter((other) => other.isNamed)]) {
    const lane = lanes[each.lane];
    const top = lane.top + 5 + each.row * ROW;
    const left = Math.max(x(each.began), MARGIN - 4);
    const wide = Math.max(Math.min(x(each.ended), width + 4) - left, TICK);
    const high = ROW - 3;
    const colour = colours[each.look];
    pen.globalAlpha = isFiltered && !matches(textOf(each)) ? 0.15 : 1;
    pen.fillStyle = colours.page;
    pen.fillRect(left, top, wide, high);
    pen.fillStyle = colour;
    const before = pen.globalAlpha;
    const isHatched = each.look === "unknown" || each.look === "open";
    pen.globalAlpha = before * (each.isRead ? 0.35 : isHatched ? 0.3 : 1);
    pen.fillRect(left, top, wide, high);
    pen.globalAlpha = before;
    if (isHatched) stripes(pen, left, top, wide, high, colour);
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.strokeRect(left + 0.5, top + 0.5, Math.max(wide - 1, 1), high - 1);
    if (each.isNamed) {
      pen.strokeStyle = colours.broken;
      pen.lineWidth = 2;
      pen.strokeRect(left - 2, top - 2, wide + 4, high + 4);
    }
    const text = `${each.kind} ${each.path}${each.look === "ok" ? "" : ` ${each.isOpen ? "under way at the end" : each.result}`}`;
    const isInside = pen.measureText(text).width < wide - (each.isNamed ? 40 : 6);
    const textLeft = isInside ? left + 4 : left + wide + (each.isNamed ? 5 : 3);
    const room = each.isNamed ? width - textLeft : each.room - textLeft;
    const label = fitted(pen, each.isNamed ? `${text} (${each.number})` : text, isInside ? wide : room, each.kind.length + 3);
    pen.fillStyle = isInside && !each.isRead && !isHatched ? colours.page : colours.ink;
    if (isInside ? isHatched : each.isNamed) {
      pen.fillStyle = colours.page;
      pen.fillRect(textLeft - 2, isInside ? top + 1 : top - 1, pen.measureText(label).width + 4, isInside ? high - 2 : high + 2);
      pen.fillStyle = colours.ink;
    }
    pen.fillText(label, textLeft, top + high / 2 + 0.5);
    pen.globalAlpha = 1;
  }
}

function drawFaults(pen) {
  const visible = faults.filter((each) => x(each.ended) + (each.ended > each.began ? 0 : 160) >= MARGIN && each.began <= view.to);
  const endOf = (each) => Math.max(x(each.ended), x(each.began) + pen.measureText(`${each.what} ${each.hosts}`).width + 8);
  for (const each of visible) {
    const top = faultsTop + 4 + each.row * ROW;
    const left = x(each.began);
    const wide = Math.max(x(each.ended) - left, 0);
    pen.globalAlpha = shown !== null && !matches(`${each.hosts} fault what=${each.what}`) ? 0.2 : 1;
    pen.fillStyle = colours.fault;
    const before = pen.globalAlpha;
    pen.globalAlpha = before * 0.35;
    pen.fillRect(left, top, wide, ROW - 2);
    pen.globalAlpha = before;
    pen.fillRect(left - 1, top, 3, ROW - 2);
    const text = `${each.what} ${each.hosts}`;
    const after = visible.filter((other) => other.row === each.row && other.began > each.began).map((other) => x(other.began));
    pen.fillStyle = colours.ink;
    const textLeft = wide > 0 ? Math.max(left, MARGIN) + 5 : left + 5;
    const room = left - Math.max(...visible.filter((other) => other.row === each.row && other.began < each.began).map(endOf), MARGIN);
    const needed = pen.measureText(text).width;
    if (!after.length && textLeft + needed > width && needed + 8 < room) {
      pen.textAlign = "right"; // at the right edge the name stands before the mark
      pen.fillText(text, left - 4, top + ROW / 2 - 1);
      pen.textAlign = "left";
    } else pen.fillText(fitted(pen, text, Math.min(width, ...after) - textLeft - 4), textLeft, top + ROW / 2 - 1);
    // On each machine that it hits: a band or a mark.
    for (const name of each.hosts.split(",")) {
      const lane = lanes.find((other) => other.names.includes(name));
      if (lane === undefined) continue;
      pen.fillStyle = colours.fault;
      if (wide > 0) {
        pen.globalAlpha = before * 0.12;
        pen.fillRect(left, lane.top, wide, lane.height);
        pen.globalAlpha = before;
      }
      pen.beginPath();
      const tip = lane.sort === "machine" ? lane.top + 18 : lane.top + lane.height - 10;
      pen.moveTo(left, tip);
      pen.lineTo(left - 4, tip + 7);
      pen.lineTo(left + 4, tip + 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }
}

function drawPhases(pen) {
  let free = MARGIN;
  for (const event of phases) {
    if (event.at < view.from || event.at > view.to) continue;
    const px = Math.round(x(event.at)) + 0.5;
    pen.strokeStyle = colours.phase;
    pen.lineWidth = 1;
    pen.setLineDash([4, 3]);
    pen.beginPath();
    pen.moveTo(px, BANNER + 2);
    pen.lineTo(px, HEIGHT);
    pen.stroke();
    pen.setLineDash([]);
    pen.fillStyle = colours.phase;
    const text = PHASES[event.kind];
    const left = Math.max(px + 3, free);
    if (left - px < 90) pen.fillText(text, left, BANNER + 9);
    free = left + pen.measureText(text).width + 8;
  }
}

function drawViolation(pen) {
  if (run.violation === null) return;
  const px = x(run.violation.at);
  if (px < MARGIN || px > width + 1) return;
  pen.fillStyle = colours.broken;
  pen.fillRect(Math.min(px, width - 1) - 1.5, 0, 3, HEIGHT);
  pen.font = `bold ${FONT}`;
  const text = fitted(pen, `${run.violation.name}: ${run.violation.text}`, Math.max(px, width - px) - (px > width - px ? MARGIN : 0) - 16);
  const wide = pen.measureText(text).width + 10;
  const left = px + wide > width ? px - wide : px;
  pen.fillRect(left, 0, wide, 17);
  pen.fillStyle = colours.page;
  pen.fillText(text, left + 5, 9);
  pen.font = FONT;
}

function drawPointer(pen) {
  const spot = held ?? pointer;
  const at = cursor >= 0 ? events[cursor].at : spot?.at;
  if (at === undefined || at < view.from || at > view.to) return;
  pen.strokeStyle = colours.ink;
  pen.lineWidth = 1;
  pen.globalAlpha = held || cursor >= 0 ? 0.9 : 0.35;
  pen.beginPath();
  pen.moveTo(x(at), AXIS);
  pen.lineTo(x(at), HEIGHT);
  pen.stroke();
  pen.globalAlpha = 1;
}

function drawNames(pen) {
  pen.fillStyle = colours.page;
  pen.fillRect(0, 0, MARGIN - 2, HEIGHT);
  pen.fillStyle = colours.faint;
  if (faultRows) pen.fillText("faults", 4, faultsTop + 4 + ROW / 2);
  for (const lane of lanes) {
    pen.fillStyle = colours.line;
    pen.fillRect(0, lane.top, width, 1);
    pen.fillStyle = colours.ink;
    pen.font = `bold 12px system-ui, sans-serif`;
    pen.fillText(fitted(pen, lane.name, lane.sort === "machine" ? 40 : MARGIN - 8), 4, lane.top + 11);
    pen.font = "10px system-ui, sans-serif";
    pen.fillStyle = colours.faint;
    if (lane.sort === "machine") {
      pen.textAlign = "right";
      pen.fillText("process", MARGIN - 6, lane.top + 10);
      pen.fillText("disk", MARGIN - 6, lane.top + PARTS.disk[0] + 9);
      pen.fillText("network", MARGIN - 6, lane.top + PARTS.traffic[0] + 11);
      pen.textAlign = "left";
    }
    pen.font = FONT;
  }
}

// -- the whole run, small ----------------------------------------------------

const density = (() => {
  const sums = new Float64Array(600);
  for (const event of events) sums[Math.min(599, Math.floor((event.at / run.end) * 600))] += 1;
  return sums;
})();

function drawOverview() {
  const high = 34;
  const pen = prepare(overview, high);
  const wide = overview.clientWidth;
  const place = (at) => MARGIN + (at / run.end) * (wide - MARGIN);
  pen.fillStyle = colours.page;
  pen.fillRect(0, 0, wide, high);
  pen.fillStyle = colours.panel;
  pen.fillRect(MARGIN, 0, wide - MARGIN, high);
  pen.fillStyle = colours.faint;
  pen.fillText("whole run", 4, high / 2);
  const most = Math.max(1, ...density);
  pen.fillStyle = colours.message;
  density.forEach((count, index) => {
    const length = (Math.log1p(count) / Math.log1p(most)) * (high - 10);
    pen.fillRect(place((index / 600) * run.end), high - length, (wide - MARGIN) / 600, length);
  });
  pen.fillStyle = colours.fault;
  for (const fault of faults) pen.fillRect(place(fault.began), 0, Math.max(2, place(fault.ended) - place(fault.began)), 5);
  for (const each of operations) {
    if (each.look === "ok") continue;
    pen.fillStyle = colours[each.look];
    pen.fillRect(place(each.began), 6, Math.max(2, place(each.ended) - place(each.began)), 3);
  }
  pen.fillStyle = colours.page;
  pen.globalAlpha = 0.6;
  pen.fillRect(MARGIN, 0, Math.max(0, place(view.from) - MARGIN), high);
  pen.fillRect(place(view.to), 0, wide - place(view.to), high);
  pen.globalAlpha = 1;
  pen.strokeStyle = colours.ink;
  const left = Math.max(place(view.from), MARGIN);
  pen.strokeRect(left + 0.5, 0.5, Math.max(3, Math.min(place(view.to), wide) - left - 1), high - 1);
  if (run.violation !== null) {
    pen.fillStyle = colours.broken;
    pen.fillRect(Math.min(place(run.violation.at), wide - 2) - 1, 0, 3, high);
  }
}

// -- what is near the pointer ------------------------------------------------

const textOf = (each) => `${each.host} ${each.kind} path=${each.path} n=${each.number} result=${each.result}`;

function describe(spot) {
  const found = [];
  const slack = ((view.to - view.from) / (width - MARGIN)) * NEAR;
  const has = (each) => each.began - slack <= spot.at && spot.at <= each.ended + slack;
  const times = (each) => `${each.began.toFixed(3)} to ${each.ended.toFixed(3)} s`;
  for (const fault of faults.filter(has)) {
    if (spot.lane >= 0 && !fault.hosts.split(",").some((name) => lanes[spot.lane].names.includes(name))) continue;
    const lasting = fault.ended > fault.began ? times(fault) : `at ${fault.began.toFixed(3)} s`;
    found.push(["fault", `${fault.what} ${fault.hosts}, ${lasting}${fault.text && `: ${fault.text}`}`]);
  }
  for (const each of operations.filter((other) => other.lane === spot.lane && has(other))) {
    const end = each.isOpen ? "under way at the end" : each.result;
    found.push([each.look, `${each.kind} ${each.path} (number ${each.number}) by ${each.host}, ${times(each)}: ${end}`]);
  }
  for (const life of lives.filter((other) => other.lane === spot.lane && other.state !== "up" && has(other))) {
    found.push(["", `${life.label || "not started yet"}, ${times(life)}`]);
  }
  const partners = cuts.filter((other) => other.lane === spot.lane && has(other));
  if (partners.length) found.push(["cut", `what it sends to ${partners.map((each) => each.partner).join(", ")} is cut off or slow`]);
  const indices = [];
  for (let index = firstFrom(spot.at - slack); index < events.length && events[index].at <= spot.at + slack; index++) {
    const event = events[index];
    const isHere = spot.lane < 0 || lanesOf(event).includes(spot.lane) || laneOf.get(event.fields.frm) === spot.lane;
    if (isHere && passes(index) && isWanted(event)) indices.push(index);
  }
  const where = spot.lane >= 0 ? lanes[spot.lane].name : "all hosts";
  byId("where").textContent =
    `${held ? "held (Esc lets go): " : ""}${where} at ${spot.at.toFixed(4)} s ± ${slack.toPrecision(2)} s: ${indices.length} events` +
    (indices.length > LINES_MAX ? `, ${LINES_MAX} of them here; zoom in for the others` : "");
  // The nearest ones, in order of time.
  const nearest = indices
    .sort((one, other) => Math.abs(events[one].at - spot.at) - Math.abs(events[other].at - spot.at))
    .slice(0, LINES_MAX)
    .sort((one, other) => one - other);
  write(found, nearest);
}

function write(found, indices) {
  const near = byId("near");
  near.replaceChildren();
  for (const [look, text] of found) {
    const line = document.createElement("b");
    line.className = look;
    line.textContent = `${text}\n`;
    near.append(line);
  }
  near.append(indices.map((index) => lineOf(events[index])).join("\n"));
}

function look() {
  if (cursor >= 0) {
    const first = Math.max(0, cursor - 3);
    byId("where").textContent = `event ${cursor + 1} of ${events.length}, and those around it`;
    write([["phase", lineOf(events[cursor])]], [...Array(7).keys()].map((step) => first + step).filter((index) => index < events.length));
  } else if (held ?? pointer) describe(held ?? pointer);
}

// -- moving ------------------------------------------------------------------

let isDue = false;
function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
    look();
  });
}

function show(from, to) {
  const margin = run.end * 0.01;
  const span = Math.min(Math.max(to - from, SMALLEST), run.end + 2 * margin);
  const begin = Math.min(Math.max(from, -margin), run.end + margin - span);
  view = { from: begin, to: begin + span };
  redraw();
}

function zoom(factor, at = (view.from + view.to) / 2) {
  const span = Math.max((view.to - view.from) * factor, SMALLEST);
  const share = (at - view.from) / (view.to - view.from);
  show(at - share * span, at + (1 - share) * span);
}

const pan = (share) => show(view.from + share * (view.to - view.from), view.to + share * (view.to - view.from));
const showAll = () => show(-run.end * 0.01, run.end * 1.01);

function showViolation() {
  if (run.violation === null) return showAll();
  const span = run.violation.at - run.from;
  show(run.from, run.violation.at + Math.max(span * 0.03, 0.05));
}

function step(direction) {
  let index = cursor;
  if (index < 0) index = firstFrom(held?.at ?? (direction > 0 ? view.from : view.to)) - (direction > 0 ? 1 : 0);
  do index += direction;
  while (index >= 0 && index < events.length && !(passes(index) && isWanted(events[index])));
  if (index < 0 || index >= events.length) return;
  cursor = index;
  const { at } = events[index];
  const span = view.to - view.from;
  if (at < view.from || at > view.to) show(at - span / 2, at + span / 2);
  redraw();
}

function letGo() {
  held = pointer = null;
  cursor = -1;
  byId("where").textContent = "Point at the timeline; a click holds what is shown.";
  byId("near").replaceChildren();
  redraw();
}

const KEYS = {
  ArrowLeft: () => pan(-0.2),
  ArrowRight: () => pan(0.2),
  "+": () => zoom(0.6),
  "=": () => zoom(0.6),
  "-": () => zoom(1 / 0.6),
  0: showAll,
  Home: showAll,
  v: showViolation,
  n: () => step(1),
  p: () => step(-1),
  Escape: letGo,
};

timeline.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

timeline.addEventListener(
  "wheel",
  (event) => {
    if (event.offsetX < MARGIN) return;
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / width);
    else zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 250))), timeAt(event.offsetX));
  },
  { passive: false },
);

function spotAt(event) {
  return { at: timeAt(event.offsetX), lane: lanes.findIndex((lane) => lane.top <= event.offsetY && event.offsetY < lane.top + lane.height) };
}

let drag = null;
timeline.addEventListener("pointerdown", (event) => {
  if (event.button || event.offsetX < MARGIN) return;
  drag = { px: event.offsetX, from: view.from, to: view.to, hasMoved: false };
  timeline.setPointerCapture(event.pointerId);
});
timeline.addEventListener("pointermove", (event) => {
  if (drag !== null) {
    if (Math.abs(event.offsetX - drag.px) > 3) drag.hasMoved = true;
    const shift = ((drag.px - event.offsetX) / (width - MARGIN)) * (drag.to - drag.from);
    if (drag.hasMoved) show(drag.from + shift, drag.to + shift);
  } else if (event.offsetX >= MARGIN) {
    pointer = spotAt(event);
    if (held === null) cursor = -1;
    redraw();
  }
});
timeline.addEventListener("pointerup", (event) => {
  if (drag !== null && !drag.hasMoved) {
    held = spotAt(event);
    cursor = -1;
    redraw();
  }
  drag = null;
});
timeline.addEventListener("pointercancel", () => (drag = null));
timeline.addEventListener("dblclick", (event) => zoom(0.25, timeAt(event.offsetX)));

function centre(event) {
  if (event.buttons !== 1) return;
  const at = ((event.offsetX - MARGIN) / (overview.clientWidth - MARGIN)) * run.end;
  const half = (view.to - view.from) / 2;
  show(at - half, at + half);
}
overview.addEventListener("pointerdown", (event) => {
  overview.setPointerCapture(event.pointerId);
  centre(event);
});
overview.addEventListener("pointermove", centre);

byId("whole").onclick = showAll;
byId("before").onclick = showViolation;
byId("in").onclick = () => zoom(0.6);
byId("out").onclick = () => zoom(1 / 0.6);
byId("left").onclick = () => pan(-0.4);
byId("right").onclick = () => pan(0.4);
byId("previous").onclick = () => step(-1);
byId("next").onclick = () => step(1);
byId("messages").onchange = byId("disks").onchange = redraw;

// -- the filter --------------------------------------------------------------

let words = [];

function matches(text) {
  const line = text.toLowerCase();
  return words.every((word) => (word.startsWith("-") && word.length > 1 ? !line.includes(word.slice(1)) : line.includes(word)));
}

function filter() {
  words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = words.length ? events.map((event) => matches(lineOf(event))) : null;
  const count = shown === null ? events.length : shown.filter(Boolean).length;
  byId("count").textContent = shown === null ? `${count} events` : `${count} of ${events.length} events`;
  redraw();
}

byId("filter").oninput = filter;
byId("filter").onkeydown = (event) => {
  if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
};

new ResizeObserver(redraw).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readColours();
  redraw();
});
readColours();
showViolation();
filter();
