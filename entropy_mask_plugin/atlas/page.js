"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const policies = data.summary.policies, overlap = data.summary.overlap, nDraws = data.summary.n_draws;
const byId = (name) => document.getElementById(name);
const COLORS = ["#0072b2", "#d55e00"];  // Okabe and Ito: distinct for every colour vision
const BAND_COLORS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];  // viridis: in order of lightness
const BLUES = [[247, 251, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]];
const state = {place: policies[0].checkpoints.length - 1, all: policies[0].checkpoints.length > 1, draw: 0};

// ---- small things

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const percent = (value, digits = 1) => value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)}\u00a0%`;
const decimal = (value, digits = 2) => value === null || value === undefined ? "–" : value.toFixed(digits);
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const placeOf = (policy, place = state.place) => policy === 0 ? place : overlap[place].other_place;
const views = (policy) => data.views[policy].map((_, i) => i);
const chosenViews = (policy) => state.all ? views(policy) : [placeOf(policy)];
const sameScore = policies.every((policy) => policy.score === policies[0].score);
const unit = (policy) => policies[policy].unit;
const scoreName = (policy) => policies[policy].score + (unit(policy) ? ` (${unit(policy)})` : "");  // of an axis

function label(view) {
  const progress = view.progress === null ? "" : `, ${Math.round(100 * view.progress)} % of the run`;
  return `update ${view.update.toLocaleString("en")}${progress}`;
}

// ---- colours of scores

function scale(members) {
  const scores = members.flatMap((policy) => data.views[policy].flatMap((view) => view.flatMap((p) => p.score)));
  scores.sort((a, b) => a - b);
  const low = scores[0] >= 0 ? 0 : scores[Math.floor(0.01 * scores.length)];
  return [low / 100, Math.max(scores[Math.floor(0.99 * scores.length)], low + 1) / 100];
}

const SCALES = sameScore ? Array(2).fill(scale(policies.map((_, i) => i))) : policies.map((_, i) => scale([i]));

function color(fraction) {
  const t = Math.min(1, Math.max(0, fraction)) * (BLUES.length - 1), i = Math.min(BLUES.length - 2, Math.floor(t));
  return `rgb(${BLUES[i].map((value, k) => Math.round(value + (t - i) * (BLUES[i + 1][k] - value))).join(",")})`;
}

function drawLegends() {
  const shown = sameScore ? [0] : policies.map((_, i) => i);
  byId("legends").replaceChildren(...shown.map((policy) => {
    const [low, high] = SCALES[policy];
    const stops = BLUES.map((rgb) => `rgb(${rgb.join(",")})`).join(",");
    const bar = element("i");
    bar.style.background = `linear-gradient(to right, ${stops})`;
    const name = `${sameScore ? "" : policies[policy].name + ": "}${policies[policy].score}`;
    return element("span", {className: "legend"}, name, ` ${low.toFixed(1)}`, bar, `${high.toFixed(1)} ${unit(policy)}`);
  }));
}

// ---- passages

const places = data.passages.map((tokens, passage) => policies.map((_, policy) =>
  data.views[policy].map((view) => new Map(view[passage].at.map((position, i) => [position, i])))));

function makePassages() {
  byId("passages").replaceChildren(...data.passages.map((tokens, passage) => {
    const columns = policies.map((policy, number) => {
      const text = element("div", {className: "text"});
      tokens.forEach((symbol, position) => {
        const [shown, begins, full] = data.symbols[symbol];
        const token = element("span", {className: "token", textContent: shown || full});
        Object.assign(token.dataset, {passage, policy: number, position});
        if (begins || !position) text.append(element("span", {className: "word"}), " ");
        text.lastElementChild.append(token);
      });
      return element("div", {}, ...(policies.length > 1 ? [element("h3", {className: `p${number}`, textContent: policy.name})] : []), text);
    });
    return element("div", {className: "passage", id: `passage${passage}`},
      element("h3", {textContent: `passage ${passage + 1} (block ${data.blocks[passage]})`}),
      element("div", {className: "columns"}, ...columns));
  }));
}

function paintPassages() {
  for (const token of byId("passages").getElementsByClassName("token")) {
    const {passage, policy, position} = token.dataset;
    const place = placeOf(Number(policy)), view = data.views[policy][place][passage];
    const i = places[passage][policy][place].get(Number(position));
    token.classList.toggle("special", i === undefined);
    if (i === undefined) continue;
    const [low, high] = SCALES[policy], fraction = (view.score[i] / 100 - low) / (high - low);
    token.style.background = color(fraction);
    token.style.color = fraction > 0.55 ? "#fff" : "#111";
    token.classList.toggle("masked", Boolean(view.masked[i] >> state.draw & 1));
    token.classList.toggle("guided", Boolean(view.guided[i] >> state.draw & 1));
  }
}

const ones = (bits) => bits.toString(2).replaceAll("0", "").length;

function describe(token) {
  const {passage, policy, position} = token.dataset, place = placeOf(Number(policy));
  const view = data.views[policy][place][passage], i = places[passage][policy][place].get(Number(position));
  const symbol = data.symbols[data.passages[passage][position]][2];
  if (i === undefined) return [element("b", {textContent: symbol}), " is never masked"];
  const times = ones(view.masked[i]), guided = ones(view.guided[i]);
  const best = [0, 1, 2, 3, 4].map((k) => element("tr", {},
    element("td", {}, element("code", {textContent: data.symbols[view.best[5 * i + k]][2]})),
    element("td", {textContent: percent(view.probability[5 * i + k] / 1000)})));
  return [element("b", {textContent: symbol}), ` ${policies[policy].name}`, element("br"),
    `${policies[policy].score} ${decimal(view.score[i] / 100)} ${unit(policy)}, rank ${view.rank[i]} of ${view.n}`, element("br"),
    `masked in ${times} of ${nDraws} draws${guided ? `, in ${guided} by its score` : ""}`,
    element("table", {}, element("tbody", {}, ...best))];
}

function hover(token) {
  for (const marked of document.querySelectorAll(".token.marked")) marked.classList.remove("marked");
  const box = byId("hover");
  box.hidden = !token;
  if (!token) return;
  const {passage, position} = token.dataset;
  for (const twin of document.querySelectorAll(`.token[data-passage="${passage}"][data-position="${position}"]`)) {
    twin.classList.add("marked");
  }
  box.replaceChildren(...describe(token));
  const at = token.getBoundingClientRect();
  box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 16)) + scrollX}px`;
  const below = at.bottom + box.offsetHeight + 12 < innerHeight;
  box.style.top = `${(below ? at.bottom + 6 : at.top - box.offsetHeight - 6) + scrollY}px`;
}

// ---- numbers of a policy, at a checkpoint or over all

function number(policy, key) {
  return state.all ? policies[policy].all_checkpoints[key] : policies[policy].checkpoints[placeOf(policy)][key];
}

function card(title, value, note) {
  return element("div", {className: "card"}, element("h3", {textContent: title}),
    ...policies.map((policy, i) => element("p", {className: `p${i}`}, element("span", {textContent: policy.name, title: policy.name}),
      element("b", {textContent: value(i)}))), element("small", {textContent: note}));
}

const ofEach = (key, write) => [...new Set(policies.map((_, i) => write(number(i, key))))].join(", ");

function drawCards() {
  const cards = [
    card("mask rate", (i) => percent(number(i, "mask_rate")), "of the maskable tokens"),
    card("masks by score", (i) => percent(number(i, "guided_fraction"), 0), "of the masks, the others are random"),
    card("repeats from epoch to epoch", (i) => percent(number(i, "jaccard_of_epochs"), 0),
      `Jaccard; by chance ${ofEach("jaccard_by_chance", (value) => percent(value, 0))}`),
    card("never masked", (i) => percent(number(i, "never_masked_fraction"), 0),
      `of the tokens; by chance ${ofEach("never_masked_by_chance", (value) => percent(value, 0))}`),
    card("score of masked tokens", (i) => decimal(number(i, "mean_score_of_masked")),
      `${sameScore ? unit(0) : "each in its own unit"}; of all: ${policies.map((_, i) => decimal(number(i, "mean_score"))).join(", ")}`),
  ];
  if (overlap.length) {
    const at = state.all ? data.summary.overlap_all_checkpoints : overlap[state.place];
    cards.push(element("div", {className: "card"}, element("h3", {textContent: "overlap of the two"}),
      element("p", {}, element("span", {textContent: "Jaccard"}), element("b", {textContent: percent(at.jaccard, 0)})),
      element("small", {textContent: `by chance ${percent(at.jaccard_by_chance, 0)}` +
        (policies[0].seed === policies[1].seed ? "; same seed: their random masks share noise" : "")})));
  }
  byId("cards").replaceChildren(...cards);
}

// ---- charts

const MAP = {width: 560, height: 400, left: 48, right: 14, top: 12, bottom: 40};

function ticks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({length: last - first + 1}, (_, i) => (first + i) * step)
    .map((value) => [value, Number(value.toFixed(digits)).toLocaleString("en", {minimumFractionDigits: digits})]);
}

function frame(box, xs, ys, xLabel, yLabel) {
  const x = (value) => box.left + (value - xs[0]) / (xs[1] - xs[0] || 1) * (box.width - box.left - box.right);
  const y = (value) => box.height - box.bottom - (value - ys[0]) / (ys[1] - ys[0] || 1) * (box.height - box.top - box.bottom);
  const svg = drawn("svg", {viewBox: `0 0 ${box.width} ${box.height}`, role: "img"});
  for (const [u, text] of ticks(...xs)) {
    svg.append(drawn("line", {class: "grid", x1: x(u), x2: x(u), y1: box.top, y2: box.height - box.bottom}),
      drawn("text", {x: x(u), y: box.height - box.bottom + 16, "text-anchor": "middle"}, text));
  }
  for (const [v, text] of ticks(...ys)) {
    svg.append(drawn("line", {class: "grid", x1: box.left, x2: box.width - box.right, y1: y(v), y2: y(v)}),
      drawn("text", {x: box.left - 6, y: y(v) + 4, "text-anchor": "end"}, text));
  }
  svg.append(drawn("text", {x: (box.left + box.width) / 2, y: box.height - 6, "text-anchor": "middle"}, xLabel),
    drawn("text", {x: 12, y: box.height / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${box.height / 2})`}, yLabel));
  return [svg, x, y];
}

function typesOf(policy) {
  const of = chosenViews(policy), masked = data.types.masked[policy], score = data.types.score[policy];
  return data.types.symbol.map((symbol, i) => ({
    symbol: data.symbols[symbol][2], text: data.symbols[symbol][0], positions: data.types.positions[i], band: data.types.band[i],
    rate: data.types.per_million[i], x: sum(of.map((v) => score[v][i])) / of.length / 100,
    y: sum(of.map((v) => masked[v][i])) / (of.length * nDraws * data.types.positions[i]),
  }));
}

function domain(members) {
  const all = members.flatMap((policy) => data.types.score[policy].flat());
  const low = all.reduce((a, b) => Math.min(a, b), Infinity), high = all.reduce((a, b) => Math.max(a, b), -Infinity);
  return [low >= 0 ? 0 : low / 100, Math.max(low + 1, high) / 100];
}

const DOMAINS = sameScore ? Array(2).fill(domain(policies.map((_, i) => i))) : policies.map((_, i) => domain([i]));

function drawMaps() {
  const query = byId("find").value.trim().toLowerCase();
  const shown = policies.map((_, policy) => typesOf(policy));
  const top = Math.min(100, 10 * Math.ceil(10 * Math.max(0.1, ...shown.flat().map((type) => type.y))));
  byId("maps").replaceChildren(...policies.map((policy, number_) => {
    const [svg, x, y] = frame(MAP, DOMAINS[number_], [0, top], `mean ${scoreName(number_)}`, "masked, % of its tokens");
    const rate = 100 * number(number_, "mask_rate");
    svg.append(drawn("line", {class: "chance", x1: MAP.left, x2: MAP.width - MAP.right, y1: y(rate), y2: y(rate)}));
    for (const type of [...shown[number_]].sort((a, b) => b.positions - a.positions)) {
      const found = query && type.text.toLowerCase() === query;
      svg.append(drawn("circle", {class: `type${found ? " found" : query ? " dim" : ""}`, cx: x(type.x).toFixed(1), cy: y(100 * type.y).toFixed(1),
        r: (1.5 + 0.55 * Math.sqrt(type.positions)).toFixed(1), fill: BAND_COLORS[type.band]},
        drawn("title", {}, `${type.symbol}: masked ${percent(type.y)}, mean ${policy.score} ${decimal(type.x)} ${unit(number_)}, ` +
          `${type.positions} tokens here, ${type.rate.toLocaleString("en")} per million`)));
    }
    return element("div", {}, element("h3", {className: `p${number_}`, textContent: policy.name}), svg);
  }));
}

function drawBands() {
  byId("bands").replaceChildren("per million tokens: ", ...data.bands.map((name, i) => {
    const dot = element("i");
    dot.style.background = BAND_COLORS[i];
    return element("span", {}, dot, name);
  }));
}

function drawMaskedFractions() {
  const values = (policy, key) => {
    const of = policies[policy].masked_fraction[key];
    return state.all ? of.all_checkpoints : of.at_checkpoints[placeOf(policy)];
  };
  const keys = Object.keys(policies[0].masked_fraction);
  const top = Math.max(...policies.flatMap((_, policy) => keys.flatMap((key) => values(policy, key).map((v) => v || 0))));
  byId("fractions").replaceChildren(...keys.map((key) => {
    const of = policies[0].masked_fraction[key], kept = of.labels.map((_, i) => i).filter((i) => of.positions[i]);
    const row = 10 * policies.length + 8, height = row * kept.length + 8, x = (value) => 150 + 330 * value / top;
    const svg = drawn("svg", {viewBox: `0 0 560 ${height}`, role: "img"});
    kept.forEach((group, place) => {
      svg.append(drawn("text", {x: 142, y: place * row + row / 2 + 3, "text-anchor": "end"}, of.labels[group]));
      policies.forEach((policy, i) => {
        const value = values(i, key)[group], y = place * row + 4 + 10 * i;
        svg.append(drawn("rect", {x: 150, y, width: Math.max(0, x(value) - 150), height: 9, fill: COLORS[i]},
          drawn("title", {}, `${policy.name}: ${percent(value)} of ${of.positions[group].toLocaleString("en")} tokens`)),
          drawn("text", {x: x(value) + 5, y: y + 8.5, "font-size": 10.5}, percent(value)));
      });
    });
    const rates = new Set(policies.map((_, i) => x(number(i, "mask_rate")).toFixed(1)));
    svg.prepend(...[...rates].map((rate) => drawn("line", {class: "chance", x1: rate, x2: rate, y1: 0, y2: height})));
    return element("div", {}, element("h3", {textContent: of.title}), svg);
  }));
}

const CURVE = {width: 360, height: 260, left: 56, right: 16, top: 12, bottom: 40};
const DASHES = {solid: "", dashed: "7 4", dotted: "2 4"};

function curve(title, lines, yLabel, top) {
  const xs = [0, Math.max(...policies.flatMap((policy) => policy.checkpoints.map((view) => view.update)))];
  const values = lines.flatMap((line) => line.points.map((point) => point[1]));
  const low = Math.min(0, ...values);
  const [svg, x, y] = frame(CURVE, xs, [low, top ?? Math.max(0.01, ...values) * 1.08], "updates", yLabel);
  const now = x(policies[0].checkpoints[state.place].update);
  svg.append(drawn("line", {class: "axis", x1: now, x2: now, y1: CURVE.top, y2: CURVE.height - CURVE.bottom}));
  for (const line of lines) {
    const points = line.points.map(([u, v]) => `${x(u).toFixed(1)},${y(v).toFixed(1)}`);
    svg.append(drawn("polyline", {points: points.join(" "), fill: "none", stroke: line.color, "stroke-width": 2, "stroke-dasharray": DASHES[line.dash]}));
    for (const [u, v] of line.points) {
      svg.append(drawn("circle", {cx: x(u), cy: y(v), r: 3, fill: line.color}, drawn("title", {}, `${line.name}: ${decimal(v, 3)} at update ${u}`)));
    }
  }
  const styles = [...new Map(lines.map((line) => [line.dash, line.name])).entries()];
  const key = element("p", {className: "note", textContent: styles.map(([dash, name]) => `${dash}: ${name}`).join("; ")});
  return element("div", {}, element("h3", {textContent: title}), svg, key);
}

function lines(key, name, dash, factor = 1) {
  return policies.map((policy, i) => ({name, dash, color: COLORS[i], points: policy.checkpoints
    .filter((view) => view[key] !== null).map((view) => [view.update, factor * view[key]])})).filter((line) => line.points.length);
}

function drawCurves() {
  const charts = [
    curve("masks that follow the scores", [...lines("guided_fraction_intended", "intended", "dashed", 100), ...lines("guided_fraction", "realised", "solid", 100)],
      "% of the masks", 100),
    curve("how much of the choice repeats", [...lines("jaccard_of_epochs", "from draw to draw", "solid"),
      ...lines("jaccard_with_checkpoint_before", "with the checkpoint before", "dashed"), ...lines("jaccard_by_chance", "by chance", "dotted")], "Jaccard overlap", 1),
    curve(`mean ${sameScore ? policies[0].score : "score"}`, [...lines("mean_score_of_masked", "masked tokens", "solid"), ...lines("mean_score", "all tokens", "dotted")], sameScore ? unit(0) : "", null),
  ];
  if (overlap.length) {
    const points = (key) => overlap.filter((at) => at[key] !== null).map((at) => [at.update, at[key]]);
    charts.push(curve("overlap of the two policies", [{name: "overlap", dash: "solid", color: "#333", points: points("jaccard")},
      {name: "by chance", dash: "dotted", color: "#777", points: points("jaccard_by_chance")}], "Jaccard overlap", 1));
  }
  byId("curves").replaceChildren(...charts);
}

const MODELS = {teacher: "scores of the teacher", self: "scores of the own weights", ema: "scores of the weights' average"};

function drawSources() {
  const head = ["policy", "checkpoint", "source of the masks", "intended", "realised", "mask rate intended", "realised"];
  const rows = policies.flatMap((policy, i) => chosenViews(i).flatMap((place) => {
    const view = policy.checkpoints[place], guided = view.guided_fraction || 0;
    const chance = ["chance", percent(1 - view.guided_fraction_intended), percent(1 - guided)];
    const rate = [view.mask_rate_intended === null ? "a fixed number" : percent(view.mask_rate_intended), percent(view.mask_rate)];
    const sources = view.source ? [[MODELS[view.source] || `scores of ${view.source}`, percent(view.guided_fraction_intended), percent(guided)], chance] : [chance];
    return sources.map((cells, k) => [k ? "" : policy.name, k ? "" : label(view), ...cells, ...(k ? ["", ""] : rate)]);
  }));
  byId("sources").replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...head.map((text) => element("th", {textContent: text})))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((text) => element("td", {textContent: text})))))));
}

// ---- controls

function drawStatistics() {
  drawCards();
  drawMaps();
  drawMaskedFractions();
  drawCurves();
  drawSources();
}

function moveTo(place) {
  state.place = place;
  const others = overlap.length ? overlap[place].other_update : null;
  byId("which").value = label(policies[0].checkpoints[place]) +
    (others !== null && others !== overlap[place].update ? ` (${policies[1].name}: update ${others.toLocaleString("en")})` : "");
  hover(null);
  paintPassages();
  drawStatistics();
}

const slider = byId("checkpoint"), n = policies[0].checkpoints.length;
slider.max = n - 1;
slider.value = state.place;
slider.addEventListener("input", () => moveTo(Number(slider.value)));
byId("controls").hidden = n === 1;
if (n === 1) byId("controls").style.display = "none";
byId("all").checked = state.all;
byId("all").addEventListener("change", (event) => { state.all = event.target.checked; drawStatistics(); });
byId("draw").append(...Array.from({length: nDraws}, (_, i) => element("option", {value: i, textContent: `${i + 1} of ${nDraws}`})));
byId("draw").addEventListener("change", (event) => { state.draw = Number(event.target.value); paintPassages(); });
byId("passage").append(element("option", {value: -1, textContent: "all"}),
  ...data.passages.map((_, i) => element("option", {value: i, textContent: i + 1})));
byId("passage").addEventListener("change", (event) => data.passages.forEach((_, i) => {
  byId(`passage${i}`).hidden = event.target.value >= 0 && Number(event.target.value) !== i;
}));
byId("find").addEventListener("input", drawMaps);
for (const kind of ["mouseover", "click"]) {
  document.addEventListener(kind, (event) => hover(event.target.closest?.(".token[data-passage]") || null));
}
drawLegends();
drawBands();
makePassages();
moveTo(state.place);
document.body.dataset.ready = "yes";
