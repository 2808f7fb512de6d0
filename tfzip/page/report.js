// What moves on the page: the charts, the threshold, the filters. All numbers come from the data in the page.
"use strict";

(() => {
  const find = (id) => document.getElementById(id);
  const { numbers, outputs } = JSON.parse(find("data").textContent);
  const count = (value) => value.toLocaleString("en");
  const share = (part, whole) => (whole ? (100 * part) / whole : 0);

  const percent = (part, whole) => (whole ? share(part, whole).toFixed(1) + "%" : "-");

  // Charts. Each draws into `.plot` of a figure, anew whenever what it shows has changed.

  const shares = {
    low: 0, high: 100, axisY: { type: Chartist.FixedScaleAxis, low: 0, high: 100, ticks: [0, 25, 50, 75, 100],
                                labelInterpolationFnc: (value) => value + "%" },
  };
  const unit = (percent) => ({
    type: Chartist.FixedScaleAxis, low: 0, high: percent ? 100 : 1,
    ticks: percent ? [0, 25, 50, 75, 100] : [0, 0.25, 0.5, 0.75, 1],
    labelInterpolationFnc: (value) => (percent ? value + "%" : value),
  });
  const frame = { chartPadding: { top: 12, right: 24, bottom: 0, left: 8 } };

  function chart(id, kind, data, options) {
    const figure = find(id);
    if (!figure) return null;
    const drawn = new kind(figure.querySelector(".plot"), data, { ...frame, ...options });
    drawn.on("draw", (context) => {
      const said = context.type === "bar" || context.type === "point" ? context.meta : null;
      if (said) Chartist.Svg.prototype.elem.call(context.element, "title").text(said);
    });
    drawn.on("created", (context) => {
      context.svg.attr({ role: "img", "aria-label": figure.querySelector("figcaption").textContent.trim() });
    });
    return drawn;
  }

  function bars(id, edges, counts) {
    const labels = edges.slice(0, -1);
    const data = (values) => ({
      labels,
      series: [values.map((value, place) => ({
        value, meta: `${label(edges[place])} to ${label(edges[place + 1])}: ${count(value)}`,
      }))],
    });
    const every = Math.max(1, Math.round(labels.length / 5));
    const drawn = chart(id, Chartist.BarChart, data(counts), {
      axisX: { showGrid: false, labelInterpolationFnc: (value, place) => (place % every ? null : label(value)) },
      axisY: { onlyInteger: true, labelInterpolationFnc: compact, offset: 48 },
    });
    return (values) => drawn.update(data(values));
  }

  const label = (value) => String(Number(value.toPrecision(3)));
  const compact = (value) => value.toLocaleString("en", { notation: "compact" });
  const points = (across, up) => across.map((x, place) => ({ x, y: up[place] })).filter((each) => each.y !== null);
  const line = { showPoint: false, lineSmooth: false };

  // Confidence, and the threshold.

  function confidence() {
    const { thresholds, records, passing, histogram } = numbers;
    const edges = Array.from({ length: histogram.length + 1 }, (_, place) => place / histogram.length);
    const draw = bars("chart-confidence", edges, histogram);
    const slider = find("threshold"), choice = find("class");
    const chosen = () => (choice && choice.value !== "" ? Number(choice.value) : null);

    const series = () => {
      const place = chosen(), at = thresholds[slider.value];
      const shown = place === null ? passing : numbers.class_passing[place];
      const whole = place === null ? records : tableRows[place].records;
      return { series: [points(thresholds, shown.map((value) => share(value, whole))),
                        { className: "ct-marker", data: [{ x: at, y: 0 }, { x: at, y: 100 }] }] };
    };
    const tableRows = [...document.querySelectorAll("#class-table tbody tr")].map((row) => ({
      passing: row.querySelector(".passing"), bar: row.querySelector(".bar"), records: Number(row.dataset.records),
    }));
    const coverage = chart("chart-coverage", Chartist.LineChart, series(), { ...shares, ...line, showArea: true, axisX: unit(false) });
    const accuracy = numbers.known === null ? null : judged();

    const move = () => {
      const at = Number(slider.value), value = thresholds[at];
      find("threshold-value").textContent = value;
      slider.setAttribute("aria-valuetext", `${value}: ${count(passing[at])} of ${count(records)} records pass`);
      find("passing-count").textContent = count(passing[at]);
      if (numbers.known !== null) {
        find("passing-known").textContent = count(numbers.known_passing[at]);
        find("passing-right").textContent = count(numbers.right[at]);
        find("passing-accuracy").textContent = percent(numbers.right[at], numbers.known_passing[at]);
        accuracy(at);
      }
      if (find("command-threshold")) find("command-threshold").textContent = value;
      tableRows.forEach((row, place) => {
        const kept = numbers.class_passing[place][at];
        row.passing.textContent = count(kept);
        row.bar.textContent = percent(kept, row.records);
        row.bar.style.setProperty("--share", kept / row.records);
      });
      coverage.update(series());
    };
    const show = () => {
      const place = chosen(), shown = place === null ? histogram : numbers.class_histogram[place];
      draw(shown);
      coverage.update(series());
      document.querySelectorAll("#bins td").forEach((cell, bin) => { cell.textContent = count(shown[bin]); });
    };
    slider.addEventListener("input", move);
    if (choice) choice.addEventListener("change", show);
    if (slider.value !== slider.defaultValue) move();  // a browser may have kept where they stood
    if (chosen() !== null) show();
  }

  function judged() {
    const { known, known_passing: kept, right, reliability } = numbers;
    const across = kept.map((value) => share(value, known));
    const up = right.map((value, at) => (kept[at] ? share(value, kept[at]) : null));
    const series = (at) => ({ series: [
      points(across, up),
      { className: "ct-dot", data: up[at] === null ? [] : [{ x: across[at], y: up[at], meta: `${label(up[at])}% right at ${label(across[at])}%` }] },
    ] });
    const start = Number(find("threshold").value);
    const least = Math.min(100, ...up.filter((value) => value !== null));
    const low = Math.max(0, Math.floor(least / 10) * 10 - 10);
    const ticks = Array.from({ length: 6 }, (_, step) => low + (step * (100 - low)) / 5);
    const drawn = chart("chart-accuracy", Chartist.LineChart, series(start), {
      lineSmooth: false, axisX: unit(true),
      axisY: { ...shares.axisY, low, ticks, labelInterpolationFnc: (value) => label(value) + "%" },
    });
    chart("chart-calibration", Chartist.LineChart, { series: [
      reliability.map(([images, sure, rate]) => ({ x: sure, y: 100 * rate, meta: `${count(images)} images, ${label(sure)} sure, ${label(100 * rate)}% right` })),
      { className: "ct-marker", data: [{ x: 0, y: 0 }, { x: 1, y: 100 }] },
    ] }, { ...shares, lineSmooth: false, axisX: unit(false) });
    return (at) => drawn.update(series(at));
  }

  // The sample.

  function filters() {
    const names = (card) => [...card.querySelectorAll("[dir]")].map((each) => each.textContent.toLowerCase()).join("\n");
    const cards = [...document.querySelectorAll("#cards > li")].map((card) => ({
      card, text: names(card), classes: card.dataset.classes.split(" "), wrong: card.classList.contains("wrong"),
    }));
    const search = find("search"), filter = find("filter"), wrong = find("wrong");
    const apply = () => {
      const words = search.value.trim().toLowerCase(), label = filter ? filter.value : "";
      let shown = 0;
      for (const each of cards) {
        const keep = each.text.includes(words) && (!label || each.classes.includes(label)) && !(wrong && wrong.checked && !each.wrong);
        each.card.hidden = !keep;
        shown += keep;
      }
      find("shown").textContent = `${count(shown)} of ${count(cards.length)} shown`;
    };
    [search, filter, wrong].forEach((control) => control && control.addEventListener("input", apply));
    search.form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  if (numbers) confidence();
  outputs.forEach((spread, place) => { if (spread && spread.counts.length) bars(`output-${place}`, spread.edges, spread.counts); });
  if (find("cards")) filters();

  // On paper everything is open.
  const closed = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  window.addEventListener("beforeprint", () => { opened = closed(); opened.forEach((each) => { each.open = true; }); });
  window.addEventListener("afterprint", () => { opened.forEach((each) => { each.open = false; }); });
})();
