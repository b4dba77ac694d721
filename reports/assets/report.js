// The pages work without this script, except for seeking, the search and the choice of colors and features.
"use strict";

function clock(timeS) {
  const tenths = Math.round(10 * timeS), whole = Math.floor(tenths / 10);
  const pad = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const shown = hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
  return `${shown}.${tenths % 10}`;
}

function setUpPlayer(player) {
  const video = player.querySelector("video"), timeline = player.querySelector(".timeline");
  const playhead = player.querySelector(".playhead"), position = player.querySelector(".position");
  const here = player.querySelector(".here"), segments = [...player.querySelectorAll(".segment")];
  const durationS = Number(player.dataset.duration);
  let frame = 0;

  function show(timeS) {
    const track = player.querySelector(".track"), left = track.getBoundingClientRect().left - timeline.getBoundingClientRect().left;
    playhead.style.left = `${left + track.clientWidth * Math.min(1, timeS / durationS)}px`;
    position.textContent = clock(timeS);
    for (const segment of segments) {
      segment.classList.toggle("current", Number(segment.dataset.t) <= timeS && timeS < Number(segment.dataset.end));
    }
  }
  function follow() {
    show(video.currentTime);
    frame = video.paused || video.ended ? 0 : requestAnimationFrame(follow);
  }
  function seek(timeS, text) {
    const inside = Math.max(0, Math.min(durationS, timeS));
    if (video) video.currentTime = inside;
    show(inside);
    here.textContent = text || segments.filter((one) => one.classList.contains("current")).map((one) => one.getAttribute("aria-label")).slice(0, 6).join(" · ");
  }
  if (video) {
    video.addEventListener("play", () => { if (!frame) frame = requestAnimationFrame(follow); });
    for (const event of ["seeked", "pause", "timeupdate"]) video.addEventListener(event, () => show(video.currentTime));
    video.addEventListener("error", () => { player.querySelector(".playback").hidden = false; });
    if (video.error) player.querySelector(".playback").hidden = false;
  }
  timeline.addEventListener("click", (event) => {
    const segment = event.target.closest(".segment"), track = event.target.closest(".track");
    if (segment) { seek(Number(segment.dataset.t), segment.getAttribute("aria-label")); return; }
    if (!track || track.closest(".axis")) return;
    const box = track.getBoundingClientRect();
    seek(durationS * (event.clientX - box.left) / box.width);
  });
  timeline.addEventListener("keydown", (event) => {
    const segment = event.target.closest(".segment");
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!segment || step === undefined) return;
    event.preventDefault();
    const row = [...segment.parentElement.querySelectorAll(".segment")];
    const next = row[Math.max(0, Math.min(row.length - 1, row.indexOf(segment) + step))];
    segment.tabIndex = -1; next.tabIndex = 0; next.focus();
  });
  for (const button of document.querySelectorAll(".seek")) {
    button.addEventListener("click", () => { seek(Number(button.dataset.t)); player.scrollIntoView({ block: "nearest" }); });
  }
  addEventListener("resize", () => show(video ? video.currentTime : 0));
  show(0);
}

function setUpFeatures(player) {
  const source = document.getElementById("explorer"), shared = globalThis.arabesqueFeatures;
  if (!source || !shared) return;
  const durationS = Number(player.dataset.duration), streams = JSON.parse(source.textContent);
  for (const stream of Object.values(streams)) stream.bytes = Uint8Array.from(atob(stream.values), (letter) => letter.charCodeAt(0));
  const format = (value) => Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(Number(value.toPrecision(3)));

  function draw(select) {
    const name = select.dataset.stream, index = Number(select.value), own = streams[name], all = shared[name];
    const count = own.start_s.length, dim = all.names.length, low = own.low[index], high = own.high[index];
    const values = [...Array(count).keys()].map((row) => low + (high - low) * own.bytes[row * dim + index] / 255);
    const mean = all.mean[index], deviation = all.deviation[index];
    const bottom = Math.min(low, mean - 2 * deviation), span = Math.max(high, mean + 2 * deviation) - bottom || 1;
    const y = (value) => (98 - 96 * (value - bottom) / span).toFixed(1);
    const path = values.map((value, row) => `${(500 * (own.start_s[row] + own.end_s[row]) / durationS).toFixed(1)},${y(value)}`).join(" ");
    const row = select.closest(".row"), svg = row.querySelector("svg.feature-curve");
    svg.innerHTML = `<rect class="band" x="0" width="1000" y="${y(mean + deviation)}" height="${Math.max(0.5, 192 * deviation / span).toFixed(1)}"/><polyline class="curve" points="${path}"/>`;
    const z = own.deviations[index];
    row.querySelector(".label small").textContent = `${format(low)} … ${format(high)}` + (z === null ? "" : `, ${z >= 0 ? "+" : "−"}${Math.abs(z).toFixed(1)} deviations`);
    row.querySelector(".track").setAttribute("aria-label", `${all.names[index]}: ${format(low)} to ${format(high)}; all videos ${format(mean)} ± ${format(deviation)}`);
  }
  for (const select of player.querySelectorAll("select.feature")) {
    select.addEventListener("change", () => draw(select));
    draw(select);
  }
  for (const button of document.querySelectorAll(".show-feature")) {
    button.addEventListener("click", () => {
      const select = [...player.querySelectorAll("select.feature")].find((one) => one.dataset.stream === button.dataset.stream);
      select.value = button.dataset.index;
      draw(select);
      select.closest(".row").scrollIntoView({ block: "center" });
    });
  }
}

function setUpColors(part) {
  const select = part.querySelector(".color-mode");
  if (!select) return;
  select.addEventListener("change", () => paint(part, select.value));
}
function paint(part, mode) {
  for (const legend of part.querySelectorAll(".legend")) legend.hidden = legend.dataset.mode !== mode;
  for (const dot of part.querySelectorAll(".dot")) dot.style.fill = dot.dataset[mode] ? `var(--${dot.dataset[mode]})` : "";
}

function setUpSearch(search) {
  const videos = globalThis.arabesqueVideos, found = document.getElementById("found"), input = search.querySelector("input");
  if (!videos) return;
  search.hidden = false;
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase(), hits = wanted ? videos.filter(([id]) => id.toLowerCase().includes(wanted)) : [];
    found.replaceChildren(...hits.slice(0, 20).map(([id, page]) => {
      const item = document.createElement("li"), link = document.createElement("a");
      link.textContent = id; link.href = `videos/${page}.html`; item.append(link);
      return item;
    }));
    if (wanted && hits.length !== Math.min(hits.length, 20)) found.append(Object.assign(document.createElement("li"), { textContent: `… and ${hits.length - 20} more` }));
    if (wanted && !hits.length) found.append(Object.assign(document.createElement("li"), { textContent: "no video has this in its id" }));
  });
}

for (const player of document.querySelectorAll(".player")) { setUpPlayer(player); setUpFeatures(player); }
for (const part of document.querySelectorAll(".colorable")) { setUpColors(part); const first = part.querySelector(".legend"); if (first) paint(part, first.dataset.mode); }
const search = document.getElementById("search");
if (search) setUpSearch(search);
