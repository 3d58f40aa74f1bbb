(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const NARROW = "\u202f";

  /* ---- small helpers ---- */
  const el = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "class") node.className = value;
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const minus = (text) => text.replace("-", "−");
  const fixed = (value, digits = 3) => minus(value.toFixed(digits));
  const signed = (value, digits = 3) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
  const percent = (share) => `${(100 * share).toFixed(1)}${NARROW}%`;
  const plain = (value) => minus(String(Number(value.toPrecision(4))));
  const cellOf = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? plain(value) : value);
  const title = (id) => (data.samples[id] && data.samples[id].name) || id.replace("/", " ");
  const named = (label) => {
    if (label === null || label === undefined) return "unknown";
    return data.regression ? plain(label) : data.classes[label] ?? `class ${label}`;
  };
  const say = (text) => { $("live").textContent = text; };

  const picture = (id, size = "") => {
    const sample = data.samples[id] || {};
    if (sample.image) return el("img", { class: size === "large" ? "pic large" : "pic", src: sample.image, alt: "" });
    if (size === "tile" && !sample.text) return el("span", { class: "excerpt plain" }, el("bdi", {}, title(id)));
    if (sample.text) return el("span", { class: "excerpt", dir: "auto" }, sample.text.slice(0, size === "large" ? 900 : 120));
    if (sample.values && sample.values.length) {
      if (size !== "large") {
        return el("span", { class: "excerpt" }, ...sample.values.slice(0, 4).flatMap((v, i) => [i ? " · " : "", `${v.name} `, el("b", {}, cellOf(v.value))]));
      }
      const rest = sample.values.length - 24;
      return el("dl", { class: "values" }, ...sample.values.slice(0, 24).map((v) => el("div", {}, el("dt", {}, el("bdi", {}, v.name)), el("dd", { class: "num" }, cellOf(v.value)))),
        rest > 0 ? el("div", { class: "muted" }, `and ${rest} more`) : "");
    }
    return el("span", { class: "excerpt plain" }, el("bdi", {}, title(id)));
  };

  /* ---- colours ---- */
  const themes = ["auto", "light", "dark"];
  const themeNames = { auto: "as the system", light: "light", dark: "dark" };
  const setTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $("theme").textContent = { auto: "◐", light: "○", dark: "●" }[theme];
    $("theme").setAttribute("aria-label", `Colours: ${themeNames[theme]}`);
    $("theme").title = `Colours: ${themeNames[theme]}`;
  };
  let theme = "auto";
  try { theme = localStorage.getItem("tangrams-theme") || "auto"; } catch { /* storage may be forbidden */ }
  setTheme(themes.includes(theme) ? theme : "auto");
  $("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    setTheme(theme);
    try { localStorage.setItem("tangrams-theme", theme); } catch { /* kept for this visit only */ }
    say(`Colours ${themeNames[theme]}`);
  });

  /* ---- tips ---- */
  const tip = $("tip");
  const showTip = (target) => {
    tip.textContent = target.getAttribute("data-tip");
    tip.hidden = false;
    const box = target.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  };
  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const target = event.target.closest ? event.target.closest("[data-tip]") : null;
      if (target) showTip(target); else tip.hidden = true;
    });
  }
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  /* ---- the list of suspects as CSV ---- */
  const cell = (value) => {
    let text = String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // a spreadsheet must not run a name
    return /[",\n\r;]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const asCsv = () => {
    const head = ["rank", "id", "name", "given", "given_name", "suggested", "suggested_name", "margin", "neighbour_1", "neighbour_2"];
    const rows = data.csv.map((row, i) => [
      i + 1, row.id, row.name, row.given, named(row.given), row.suggested, named(row.suggested), row.score,
      row.neighbours[0] ?? "", row.neighbours[1] ?? "",
    ]);
    return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  };
  if ($("csv")) {
    $("csv").addEventListener("click", () => {
      const url = URL.createObjectURL(new Blob(["\ufeff", asCsv()], { type: "text/csv;charset=utf-8" }));
      const link = el("a", { href: url, download: "suspected-labels.csv" });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
      say(`Saved ${data.csv.length} rows`);
    });
  }

  /* ---- copy the command ---- */
  $("copy").addEventListener("click", async () => {
    const code = document.querySelector("#again pre code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      $("copy").textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      $("copy").textContent = "Selected";
    }
    setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
  });

  /* ---- why did it predict that? ---- */
  const explorer = $("explorer");
  if (!explorer) return;
  const grid = $("grid"), detail = $("detail"), filters = $("filters");
  const suspected = new Set(data.suspected);
  const confidence = (row) => (row.probabilities ? row.probabilities[row.predicted] : 1);
  const isWrong = (row) => !data.regression && row.predicted !== row.label;
  const differs = (row) => !data.regression && row.explained !== row.predicted;
  const rows = data.explanations
    .map((row) => ({ row, key: data.regression ? -Math.abs(row.predicted - row.label) : (isWrong(row) ? 0 : 1) + confidence(row) }))
    .sort((a, b) => a.key - b.key)
    .map(({ row }) => row);
  const byId = new Map(rows.map((row) => [row.id, row]));
  let visible = [];
  let chosen = null;

  const describe = (row) => {
    if (data.regression) return `${title(row.id)}, target ${named(row.label)}, network says ${named(row.predicted)}`;
    const right = isWrong(row) ? "wrong" : "right";
    return `${title(row.id)}, labelled ${named(row.label)}, network says ${named(row.predicted)}, ${percent(confidence(row))}, ${right}`;
  };
  const tiles = new Map(rows.map((row) => {
    const wide = !(data.samples[row.id] || {}).image;
    const caption = isWrong(row) ? `${named(row.label)}→${named(row.predicted)}` : named(row.predicted);
    const tile = el("button", {
      type: "button", class: `tile${wide ? " wide" : ""}${isWrong(row) ? " wrong" : ""}${differs(row) ? " differs" : ""}`,
      role: "option", "aria-selected": "false", "aria-label": describe(row), tabindex: "-1", "data-id": row.id,
    }, picture(row.id, "tile"), el("span", { class: "caption", "aria-hidden": "true", dir: "auto" }, caption));
    return [row.id, tile];
  }));

  const matches = (row) => {
    const form = new FormData(filters);
    const outcome = form.get("outcome") || "all";
    if (outcome === "wrong" && !isWrong(row)) return false;
    if (outcome === "right" && isWrong(row)) return false;
    if (outcome === "differ" && !differs(row)) return false;
    const wanted = form.get("class");
    if (wanted && String(row.label) !== wanted && String(row.predicted) !== wanted) return false;
    if (!data.regression && 100 * confidence(row) > Number(form.get("confidence")) + 1e-9) return false;
    const query = String(form.get("search") || "").trim().toLowerCase().replace(/\s+/g, " ");
    if (!query) return true;
    const name = title(row.id).toLowerCase();
    if (/^\d+$/.test(query)) return row.id.endsWith(`/${query}`) || name === query;
    return name.includes(query) || row.id === query.replace(" ", "/");
  };

  const refresh = () => {
    const output = $("confidence-value");
    if (output) output.textContent = `${$("confidence").value}${NARROW}%`;
    visible = rows.filter(matches);
    grid.replaceChildren(...visible.map((row) => tiles.get(row.id)));
    $("shown").textContent = `${visible.length} of ${rows.length}`;
    if (!visible.length) grid.append(el("p", { class: "muted none" }, "No test sample fits these filters."));
    if (visible.length && !visible.includes(chosen)) choose(visible[0], false);
    else if (chosen) mark();
  };

  const mark = () => {
    for (const [id, tile] of tiles) {
      const on = chosen !== null && id === chosen.id;
      tile.setAttribute("aria-selected", String(on));
      tile.tabIndex = on ? 0 : -1;
    }
    if (visible.length && !visible.includes(chosen)) tiles.get(visible[0].id).tabIndex = 0;
  };

  const choose = (row, focus) => {
    chosen = row;
    mark();
    const tile = tiles.get(row.id);
    if (focus) tile.focus({ preventScroll: true });
    if (tile.isConnected) {
      const box = tile.getBoundingClientRect(), frame = grid.getBoundingClientRect();
      if (box.top < frame.top) grid.scrollTop += box.top - frame.top - 6;
      else if (box.bottom > frame.bottom) grid.scrollTop += box.bottom - frame.bottom + 6;
    }
    detail.replaceChildren(...explanation(row));
  };

  const probabilities = (row) => {
    const top = row.probabilities.map((p, c) => [p, c]).sort((a, b) => b[0] - a[0]).slice(0, 5);
    if (!top.some(([, c]) => c === row.label)) top[top.length - 1] = [row.probabilities[row.label] ?? 0, row.label];
    return el("ul", { class: "probabilities", "aria-label": "The network's probabilities" }, ...top.map(([p, c]) => {
      const role = c === row.predicted ? "predicted" : "";
      const note = c === row.label ? el("small", { class: "muted" }, " label") : null;
      const bar = el("i");
      bar.style.width = `${100 * p}%`;
      return el("li", { class: role }, el("span", { class: "name" }, el("bdi", {}, named(c)), note ?? ""), el("span", { class: "meter" }, bar), el("span", { class: "num" }, percent(p)));
    }));
  };

  const people = (weights, side, most) => el("ul", { class: `people ${side}` }, ...weights.map(({ id, weight }) => {
    const label = (data.samples[id] || {}).label;
    const doubtful = suspected.has(id);
    const bar = el("i");
    bar.style.width = `${Math.min(100, 100 * Math.abs(weight) / most)}%`;
    return el("li", {
      class: doubtful ? "doubtful" : "", "data-tip": `${title(id)}, labelled ${named(label)}: ${signed(weight, 4)}${doubtful ? "; this label is suspect" : ""}`,
    }, picture(id), el("span", { class: "caption" }, el("bdi", {}, named(label)), doubtful ? el("b", { class: "doubt", title: "suspected label" }, " ?") : ""),
    el("span", { class: "meter" }, bar), el("span", { class: "num" }, signed(weight)));
  }));

  const total = (weights) => weights.reduce((sum, { weight }) => sum + weight, 0);
  const waterfall = (row) => {
    const support = total(row.supporters), against = total(row.opposers) + row.others_against;
    const unit = data.regression ? "prediction" : "logit";
    const steps = [
      [data.regression ? "Mean of the targets" : "Share of the class", row.base, "base"],
      [`Top ${row.supporters.length} for`, support, "for"],
      ["All others for", row.others_for, "for"],
      ["All against", against, "against"],
    ];
    let level = 0;
    const placed = steps.map(([name, value, kind]) => {
      const from = level;
      level += value;
      return { name, value, kind, from, to: level };
    });
    placed.push({ name: `= its ${unit}`, value: row.output, kind: "sum", from: 0, to: row.output });
    const ends = placed.flatMap(({ from, to }) => [from, to]).concat(0);
    const low = Math.min(...ends), span = Math.max(...ends) - low || 1;
    return el("ul", { class: "waterfall", "aria-label": `How the ${unit} adds up` }, ...placed.map(({ name, value, kind, from, to }, i) => {
      const bar = el("i", { class: kind });
      bar.style.left = `${100 * (Math.min(from, to) - low) / span}%`;
      bar.style.width = `${Math.max(0.4, 100 * Math.abs(to - from) / span)}%`;
      const zero = el("u");
      zero.style.left = `${-100 * low / span}%`;
      return el("li", { class: kind }, el("span", { class: "name" }, name), el("span", { class: "track" }, zero, bar), el("span", { class: "num" }, kind === "sum" ? fixed(value) : i === 0 ? fixed(value) : signed(value)));
    }));
  };

  const explanation = (row) => {
    const most = Math.max(1e-12, ...row.supporters.concat(row.opposers).map(({ weight }) => Math.abs(weight)));
    const shown = data.samples[row.id] || {};
    const head = el("div", { class: shown.image ? "detail-head" : "detail-head no-picture" }, shown.image || shown.text || shown.values ? picture(row.id, "large") : "", el("div", {},
      el("h3", {}, el("bdi", {}, title(row.id))),
      el("p", {}, data.regression ? "Target " : "Labelled ", el("strong", {}, el("bdi", {}, named(row.label))), data.regression ? ", network says " : ", the network says ", el("strong", {}, el("bdi", {}, named(row.predicted))),
        data.regression ? "" : ` (${percent(confidence(row))})`, isWrong(row) ? el("span", { class: "flag" }, "wrong") : ""),
      row.probabilities ? probabilities(row) : ""));
    const parts = [];
    const what = data.regression ? "" : named(row.explained);
    if (differs(row)) {
      parts.push(el("p", { class: "notice", role: "note" }, "The explanation model says ", el("strong", {}, el("bdi", {}, what)), ", not ", el("strong", {}, el("bdi", {}, named(row.predicted))),
        ". What follows explains its own answer; nothing here supports the network’s."));
    }
    parts.push(head);
    if (row.attribution) parts.push(el("figure", { class: "attribution" }, el("img", { class: "pic large", src: row.attribution, alt: "Which inputs matter" }), el("figcaption", {}, "Which inputs matter")));
    const support = data.regression ? "Pull the prediction up" : ["Support ", el("bdi", {}, what)];
    const oppose = data.regression ? "Pull it down" : ["Oppose ", el("bdi", {}, what)];
    parts.push(el("h4", {}, ...[support].flat()), people(row.supporters, "for", most));
    if (row.opposers.length) parts.push(el("h4", {}, ...[oppose].flat()), people(row.opposers, "against", most));
    parts.push(el("h4", {}, "It adds up"), waterfall(row));
    return parts;
  };

  grid.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) choose(byId.get(tile.dataset.id), true);
  });
  const columns = () => {
    const top = visible.length ? tiles.get(visible[0].id).offsetTop : 0;
    const count = visible.findIndex((row) => tiles.get(row.id).offsetTop !== top);
    return count < 0 ? Math.max(1, visible.length) : count;
  };
  grid.addEventListener("keydown", (event) => {
    if (!visible.length || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = Math.max(0, visible.indexOf(chosen));
    const last = visible.length - 1;
    const moves = {
      ArrowRight: () => at + 1, ArrowLeft: () => at - 1, ArrowDown: () => at + columns(), ArrowUp: () => at - columns(),
      Home: () => 0, End: () => last, PageDown: () => at + 5 * columns(), PageUp: () => at - 5 * columns(),
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    let next = moves[event.key]();
    if (event.key === "ArrowUp" && next < 0) next = at;
    if (event.key === "ArrowDown" && next > last) next = at;
    choose(visible[Math.min(last, Math.max(0, next))], true);
  });
  filters.addEventListener("input", refresh);
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    if (visible.length) choose(visible[0], true);
  });

  const fromHash = () => {
    let id = "";
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    if (!byId.has(id)) return;
    filters.reset();
    refresh();
    choose(byId.get(id), false);
    $("explanations").scrollIntoView();
  };
  addEventListener("hashchange", fromHash);
  refresh();
  fromHash();
})();
