// The one script of all explorers: controls over pages that Python rendered. No framework, no fetch; it may run twice.
(() => {
  "use strict";
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  const keepKeys = (node) => node.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab takes arrow keys

  class Explorer {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
      this.controls = this.data.controls;
      this.value = Object.fromEntries(this.controls.map((control) => [control.name, control.start]));
      this.size = Object.fromEntries(this.controls.map((control) => [control.name, control.options?.length]));
      this.bar = make("div", { class: "rlino-controls", role: "group", "aria-label": "Controls" });
      this.status = make("p", { class: "rlino-status", role: "status", "aria-live": "polite" });
      root.querySelectorAll(".rlino-static").forEach((note) => note.remove());
      root.prepend(this.bar, this.status);
      this.controls.forEach((control) => this.build(control));
      this.fit();
      this.show();
      this.bar.querySelectorAll("select,input,button").forEach(keepKeys);
    }

    // --- controls -----------------------------------------------------------------------------------------------

    build(control) {
      const slider = control.kind !== "menu";
      control.input = slider ? make("input", { type: "range", min: 0, step: 1 }) : make("select");
      control.text = make("output");
      control.box = make("span", { class: "rlino-control" }, make("label", {}, `${control.label} `, control.input));
      if (slider) control.box.append(control.text);
      for (const [by, sign, word] of control.buttons ? [[-1, "‹", "Previous"], [1, "›", "Next"]] : []) {
        const button = make("button", { type: "button", "aria-label": `${word}: ${control.label}` }, sign);
        button.addEventListener("click", () => {
          this.choose(control, control.open[control.open.indexOf(this.value[control.name]) + by]);
        });
        control.box.append(button);
      }
      control.input.addEventListener(slider ? "input" : "change", () => {
        this.choose(control, control.open[Number(slider ? control.input.value : control.input.selectedIndex)]);
      });
      this.bar.append(control.box);
    }

    choose(control, value) {
      if (value === undefined) return; // a button at an end
      this.value[control.name] = value;
      if (control.kind === "stop") this.value.token = this.stops[value];
      if (control.kind === "step" || control.kind === "stop") this.step();
      else {
        this.fit();
        this.show();
      }
      this.say(control);
    }

    say(control) {
      const cards = [...this.root.querySelectorAll("[data-kind]")];
      const kept = cards.filter((card) => !card.hidden).length;
      const count = cards.length ? `; ${kept} of ${cards.length} responses shown` : "";
      this.status.textContent = `${control.label}: ${this.textOf(control, this.value[control.name])}${count}.`;
    }

    textOf(control, value) {
      return control.options ? control.options[value] : `${value} of ${control.open[control.open.length - 1]}`;
    }

    // Which options lead to a page, given the controls before this one. A page is a place in a slot's dense array.
    optionsOf(k) {
      const { name, options } = this.controls[k];
      let open = options.map((_, value) => value);
      for (const { by, views } of Object.values(this.data.slots)) {
        const pages = this.data.views[views];
        if (!by.includes(name) || Array.isArray(pages)) continue; // an array has a page for every choice
        const before = by.filter((other) => this.controls.findIndex((control) => control.name === other) < k);
        const reached = new Set();
        for (const place of Object.keys(pages)) {
          const at = this.placeToValues(by, Number(place));
          if (before.every((other) => at[other] === this.value[other])) reached.add(at[name]);
        }
        open = open.filter((value) => reached.has(value));
      }
      return open;
    }

    placeToValues(by, place) {
      const at = {};
      for (const name of [...by].reverse()) {
        at[name] = place % this.size[name];
        place = Math.floor(place / this.size[name]);
      }
      return at;
    }

    // Fit each control to those before it: the same option where it is there, the nearest one, or the first.
    fit() {
      this.controls.forEach((control, k) => {
        if (!control.options) return;
        control.open = this.optionsOf(k);
        const value = this.value[control.name];
        if (!control.open.includes(value)) {
          const name = control.options[value].split(" · ")[0];
          const same = control.open.find((other) => control.options[other].split(" · ")[0] === name);
          const near = [...control.open].sort((a, b) => Math.abs(a - value) - Math.abs(b - value))[0];
          this.value[control.name] = same ?? (control.nearest ? near : (control.first ?? control.open)
            .find((other) => control.open.includes(other)));
        }
        this.refresh(control);
      });
    }

    refresh(control) {
      const place = control.open.indexOf(this.value[control.name]);
      const text = control.open.length ? this.textOf(control, this.value[control.name]) : "";
      if (control.kind === "menu") {
        control.input.replaceChildren(...control.open.map((value) => make("option", {}, control.options[value])));
        control.input.selectedIndex = place;
      } else {
        control.input.max = Math.max(control.open.length - 1, 0);
        control.input.value = place;
        control.input.setAttribute("aria-valuetext", text);
        control.text.textContent = text;
      }
      control.box.hidden = control.open.length < 2;
      const ends = [place < 1, place >= control.open.length - 1];
      // not disabled itself, which would take the focus away
      control.box.querySelectorAll("button").forEach((button, k) => button.setAttribute("aria-disabled", ends[k]));
    }

    // --- what is seen -------------------------------------------------------------------------------------------

    show() {
      for (const [name, { by, views }] of Object.entries(this.data.slots)) {
        const place = by.reduce((sum, control) => sum * this.size[control] + this.value[control], 0);
        const page = this.data.views[views][place];
        const slot = this.root.querySelector(`[data-slot="${name}"]`);
        if (slot.page === page && page !== undefined) continue;
        slot.page = page;
        // escaped by Python, all of it
        slot.innerHTML = page === undefined ? "" : this.data.fragments[page].map((part) => this.data.parts[part]).join("");
        slot.querySelectorAll("pre[data-trace]").forEach((box) => this.fill(box));
        slot.querySelectorAll("[tabindex]").forEach(keepKeys);
      }
      if (this.data.dots) this.place();
      this.act();
      const stepped = this.root.querySelector("[data-steps]");
      if (stepped && stepped !== this.stepped) {
        this.stepped = stepped;
        this.marks = JSON.parse(stepped.dataset.marks);
        this.stops = JSON.parse(stepped.dataset.stops);
        this.value.token = this.stops[1] ?? Number(stepped.dataset.steps); // the first attempt, if there is one
      }
      if (stepped) this.step();
    }

    // A dot for each problem, at its chances in thousandths under two models at this k; Python computed all numbers.
    place() {
      const { names, chances, moves, looks, width } = this.data.dots;
      const { a, b, k, problem } = this.value;
      const at = (p) => (width * Math.sqrt(p / 1000)).toFixed(1);
      [...this.root.querySelector("[data-dots]").children].forEach((dot, i) => {
        const [one, other] = [chances[a][k][i], chances[b][k][i]];
        const look = { ...looks[moves[a][b][i]], transform: `translate(${at(one)} -${at(other)})` };
        for (const [name, value] of Object.entries(look)) dot.firstChild.setAttribute(name, value);
        dot.lastChild.textContent = `${names[i]}: A ${one / 10}%, B ${other / 10}%`;
        dot.onclick = () => this.choose(this.controls.find((control) => control.name === "problem"), i);
        if (i !== problem) return;
        this.root.querySelector("[data-ring]").setAttribute("transform", dot.getAttribute("transform") + look.transform);
        this.root.querySelector("[data-dot]").textContent = `○ ${dot.lastChild.textContent}`;
      });
    }

    // The tokens of a response, as text.
    fill(box) {
      const { tokens, values, foreign = "" } = this.data.traces[box.dataset.trace];
      const columns = Object.entries(values).map(([name, numbers]) => [name, numbers.split(" ")]);
      box.replaceChildren(...tokens.map((text, t) => {
        const numbers = columns.map(([name, all]) => ` · ${name} ${all[all.length > 1 ? t : 0]}`).join("");
        const short = text.length > 60 ? `${text.slice(0, 59)}…”, ${text.length} characters` : `${text}”`;
        const author = foreign[t] === "1" ? " · not the policy's" : "";
        const tip = `“${short.replace(/[\n\t]/g, "")}\ntoken ${t + 1}${author}${numbers.replaceAll("-", "−")}`;
        return make("span", author ? { title: tip, class: "rlino-foreign" } : { title: tip }, text);
      }));
    }

    // Colour, filter and order change nothing but looks.
    act() {
      const chosen = {};
      for (const { act, values, name } of this.controls) if (act) chosen[act] = values[this.value[name]];
      const part = Number(this.root.querySelector("[data-part]")?.dataset.part ?? -1); // where two responses part, a bar
      for (const box of this.root.querySelectorAll("pre[data-trace]")) {
        const trace = this.data.traces[box.dataset.trace];
        const marks = trace.levels[chosen.colour ?? Object.keys(trace.levels)[0]] ?? "";
        [...box.children].forEach((token, t) => {
          token.style.backgroundColor = this.data.colours[marks[t]] ?? "";
          token.classList.toggle("rlino-below", "abcdefgh".includes(marks[t] ?? "."));
          token.classList.toggle("rlino-part", t === part);
        });
      }
      for (const legend of this.root.querySelectorAll("[data-legend]")) {
        legend.hidden = legend.dataset.legend !== chosen.colour;
      }
      const cards = [...this.root.querySelectorAll("[data-kind]")];
      for (const card of cards) card.hidden = !card.dataset.kind.split(" ").includes(chosen.show ?? "all");
      const keyOf = (card) => Number(JSON.parse(card.dataset.keys)[chosen.sort]);
      if (chosen.sort) cards.sort((a, b) => keyOf(a) - keyOf(b)).forEach((card) => card.parentNode.append(card));
    }

    // After so many tokens: what is written, what is under way, what is still to come.
    step() {
      const token = this.value.token;
      const last = Number(this.stepped.dataset.steps);
      for (const node of this.root.querySelectorAll("[data-id]")) {
        const spans = this.marks[node.dataset.id] ?? [];
        node.classList.toggle("rlino-later", !spans.some(([from]) => from <= token));
        node.classList.toggle("rlino-now", spans.some(([from, to]) => from <= token && token <= to));
        if (node.matches("tr") && node.classList.contains("rlino-now")) node.setAttribute("aria-current", "step");
        else node.removeAttribute("aria-current");
      }
      for (const box of this.root.querySelectorAll("pre[data-trace].rlino-stepped")) {
        [...box.children].forEach((piece, t) => {
          piece.hidden = t >= token;
          piece.classList.toggle("rlino-last", t === token - 1);
        });
        box.scrollTop = box.scrollHeight;
      }
      for (const control of this.controls) {
        if (control.kind === "step") control.open = [...Array(last + 1).keys()];
        else if (control.kind === "stop") {
          control.open = [...this.stops.keys()];
          this.value[control.name] = this.stops.reduce((at, stop, k) => (k && this.stops[k - 1] < token ? k : at), 0);
        } else continue;
        this.refresh(control);
      }
    }
  }

  for (const root of document.querySelectorAll("section.rlino-explorer:not([data-ready])")) {
    root.dataset.ready = "true";
    new Explorer(root);
  }
})();
