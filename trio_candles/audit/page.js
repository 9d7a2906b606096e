"use strict";
// Draws the heat-maps, and says what a minute is under the pointer, a finger or the arrow keys.
(() => {
  const MINUTES = 1440;
  const WORDS = ["not expected", "stored", "empty: nothing traded", "open gap", "unfillable gap",
    "NOT ACCOUNTED FOR (a violation)", "CONTRADICTION: two things at once (a violation)"];
  const COLOURS = ["--none", "--stored", "--empty", "--gap", "--unfillable", "--wrong", "--wrong"];
  const SIXES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const data = JSON.parse(document.getElementById("coverage-data").textContent);

  function decode(code) {
    const day = new Uint8Array(MINUTES);
    if (code[0] === "~") {
      for (let i = 1; i < code.length; i++) {
        const two = SIXES.indexOf(code[i]);
        day[2 * i - 2] = two >> 3;
        day[2 * i - 1] = two & 7;
      }
      return day;
    }
    let at = 0;
    for (const [, letter, length] of code.matchAll(/([a-g])([0-9A-Z]+)/g)) {
      const end = at + parseInt(length, 36);
      day.fill(letter.charCodeAt(0) - 97, at, end);
      at = end;
    }
    return day;
  }

  const two = (number) => String(number).padStart(2, "0");
  const clock = (minute) => `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;

  function rgb(name) {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
    probe.remove();
    return found;
  }

  // A pixel may stand for several minutes. The worst of them decides; stored and empty are mixed, as they are no fault.
  function pixelColours(day, width, palette, plain) {
    const colours = new Array(width);
    for (let x = 0; x < width; x++) {
      const low = Math.floor(x * MINUTES / width);
      const high = Math.max(low + 1, Math.floor((x + 1) * MINUTES / width));
      let alike = true;
      for (let minute = low + 1; minute < high; minute++) alike = alike && day[minute] === day[low];
      colours[x] = alike ? plain[day[low]] : mixed(day.subarray(low, high), palette, plain);
    }
    return colours;
  }

  function mixed(minutes, palette, plain) {
    const worst = [6, 5, 3, 4].find((state) => minutes.includes(state));
    if (worst !== undefined) return plain[worst];
    const stored = minutes.filter((state) => state === 1).length;
    const told = stored + minutes.filter((state) => state === 2).length;
    const share = Math.round(stored / told * 8) / 8;
    return `rgb(${palette[1].map((part, i) => Math.round(part * share + palette[2][i] * (1 - share)))})`;
  }

  function draw(canvas) {
    const days = data[canvas.dataset.series];
    const scale = window.devicePixelRatio || 1;
    const width = canvas.width = Math.round(canvas.clientWidth * scale);
    const height = canvas.height = Math.round(canvas.clientHeight * scale);
    if (!width || !height) return;
    const palette = COLOURS.map(rgb);
    const plain = palette.map((parts) => `rgb(${parts})`);
    const pen = canvas.getContext("2d");
    const line = height / days.length;
    days.forEach(([, code], row) => {
      const top = Math.round(row * line);
      const tall = Math.max(1, Math.round((row + 1) * line) - top - (line >= 5 ? Math.max(1, Math.round(scale)) : 0));
      const colours = pixelColours(decode(code), width, palette, plain);
      for (let x = 0; x < width;) {
        let end = x + 1;
        while (end < width && colours[end] === colours[x]) end++;
        pen.fillStyle = colours[x];
        pen.fillRect(x, top, end - x, tall);
        x = end;
      }
    });
  }

  function follow(canvas) {
    const days = data[canvas.dataset.series];
    const frame = canvas.parentElement.querySelector(".cursor");
    const said = canvas.closest("details").querySelector(".readout");
    let row = 0, minute = 0;

    function show() {
      const [date, code] = days[row];
      const day = decode(code);
      let low = minute, high = minute + 1;
      while (low && day[low - 1] === day[minute]) low--;
      while (high < MINUTES && day[high] === day[minute]) high++;
      const count = high - low;
      said.textContent = `${date} ${clock(minute)} UTC: ${WORDS[day[minute]]} ` +
        `(${count} min, ${clock(low)} to ${clock(high)})`;
      const tall = canvas.clientHeight / days.length;
      frame.style.cssText = `display: block; left: ${low / MINUTES * 100}%; width: max(5px, ${count / MINUTES * 100}%); ` +
        `top: ${row * tall - 2}px; height: ${tall + 3}px`;
    }
    function point(event) {
      const box = canvas.getBoundingClientRect();
      row = Math.min(days.length - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * days.length)));
      minute = Math.min(MINUTES - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * MINUTES)));
      show();
    }
    function step(by) {
      const place = row * -MINUTES + minute + by;  // newest day first: the next minute may be in the row above
      const later = Math.floor(place / MINUTES);
      if (-later < 0 || -later >= days.length) return;
      row = -later;
      minute = place - later * MINUTES;
    }
    function seek(by) {
      const fine = (state) => state <= 2;
      let day = decode(days[row][1]), at = [row, minute, day[minute]];
      for (;;) {
        const before = [row, minute];
        step(by);
        if (row === before[0] && minute === before[1]) { [row, minute] = at; return; }
        if (row !== before[0]) day = decode(days[row][1]);
        if (!fine(day[minute]) && day[minute] !== at[2]) return;
        at[2] = fine(day[minute]) ? -1 : at[2];
      }
    }
    const KEYS = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), PageUp: () => step(-60), PageDown: () => step(60),
      ArrowUp: () => { row = Math.max(0, row - 1); }, ArrowDown: () => { row = Math.min(days.length - 1, row + 1); },
      Home: () => { minute = 0; }, End: () => { minute = MINUTES - 1; }, n: () => seek(-1), p: () => seek(1),
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("focus", show);
    canvas.addEventListener("keydown", (event) => {
      const act = KEYS[event.key];
      if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      act();
      show();
    });
  }

  const canvases = [...document.querySelectorAll("canvas")];
  const drawn = new Set();
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && !drawn.has(target)) {
        drawn.add(target);
        draw(target);
      }
    }
  }, { rootMargin: "300px" });
  canvases.forEach((canvas) => { follow(canvas); seen.observe(canvas); });
  const again = () => drawn.forEach(draw);
  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(again, 100); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("beforeprint", () => canvases.forEach((canvas) => { drawn.add(canvas); draw(canvas); }));
})();
