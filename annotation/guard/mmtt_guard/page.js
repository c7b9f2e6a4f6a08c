// The counter of words and seconds, and the keys of the comparator. Only on our page: elsewhere it does nothing.
(() => {
  const WORD = /[\u3400-\u9fff\uf900-\ufaff]|[^\s\u3400-\u9fff\uf900-\ufaff\u3001-\u303f\uff01-\uff0f\uff1a-\uff20]+/g;
  const SAYS = {
    en: { words: "words", wait: "s to look", ready: "ready: Ctrl+Enter", keys: "1 2 3 view · Space hold · Z zoom · / write · Esc leave · Alt+1 in the text" },
    zh: { words: "字", wait: "秒后可提交", ready: "可以提交：Ctrl+Enter", keys: "1 2 3 视图 · 空格 对比 · Z 缩放 · / 写字 · Esc 离开 · 输入时加 Alt" },
  };
  const VIEWS = ["mmtt-forged", "mmtt-mask", "mmtt-pristine"], ZOOMS = ["mmtt-z1", "mmtt-z2", "mmtt-z4"];
  const find = (selector) => document.querySelector(selector);
  let task = null, owed = null, held = null, sent = null;

  const ask = async () => {
    const asked = task;
    const answer = await fetch(`/mmtt/wait?task=${asked}`);
    if (!answer.ok || asked !== task) return;
    const { left, words } = await answer.json();
    owed = { until: performance.now() + 1000 * left, words };
  };
  const left = () => (owed ? Math.max(0, Math.ceil((owed.until - performance.now()) / 1000)) : 0);
  const count = () => {
    const typed = [...document.querySelectorAll(".mmtt-text textarea")].map((box) => box.value);
    const added = find('.mmtt-text [data-testid="textarea-regions"]');
    if (added && !added.querySelector("textarea")) typed.push(added.innerText);
    return (typed.join("\n").match(WORD) || []).length;
  };
  const broken = () => Boolean(find(".mmtt-or .lsf-choice:nth-child(2) input:checked"));
  const blocked = () => Boolean(owed) && (count() > owed.words || (left() > 0 && !broken()));

  // The editor's drafts hold ticks, and of the text only what was added: a reload would lose what is being written.
  const restore = () => {
    const box = find(".mmtt-text textarea"), kept = sessionStorage.getItem(`mmtt-${task}`);
    if (!box || box.dataset.mmtt === task) return;
    box.dataset.mmtt = task;
    if (!kept || box.value || find('.mmtt-text [data-testid="textarea-regions"]')) return;
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box, kept);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };
  addEventListener("input", (event) => {
    if (task && event.target.closest?.(".mmtt-text")) sessionStorage.setItem(`mmtt-${task}`, event.target.value);
  }, true);

  const draw = () => {
    const page = find(".mmtt-say"), shown = find(".lsf-current-task__task-id");
    const now = page && shown ? (shown.firstChild.textContent.match(/\d+/) || [null])[0] : null;
    if (now !== task) {
      if (sent === task) sessionStorage.removeItem(`mmtt-${task}`);
      [task, owed] = [now, null];
      if (task) ask();
    }
    if (!page) return;
    restore();
    let bar = find("#mmtt-counter");
    if (!bar || bar.parentElement !== page) {
      bar?.remove();
      bar = document.createElement("div");
      bar.id = "mmtt-counter";
      bar.innerHTML = "<b></b><i></i><small></small>";
      page.append(bar);
    }
    const says = SAYS[find(".pair.zh") ? "zh" : "en"];
    const [words, wait, keys] = bar.children;
    const over = owed && count() > owed.words;
    words.textContent = owed ? `${count()} / ${owed.words} ${says.words}` : "";
    wait.textContent = !owed || over ? "" : left() > 0 ? `${left()} ${says.wait}` : says.ready;
    keys.textContent = says.keys;
    bar.className = over ? "over" : left() > 0 ? "wait" : "ready";
  };

  const stop = (event) => {
    if (!blocked()) return false;
    event.preventDefault();
    event.stopImmediatePropagation();
    find("#mmtt-counter")?.animate([{ transform: "scale(1.04)" }, { transform: "none" }], 250);
    return true;
  };
  const submit = () => find('[data-testid="bottombar-submit-button"], [data-testid="bottombar-update-button"]');
  const write = () => (find(".mmtt-text textarea") || find('.mmtt-text [data-testid="htx-textbox-edit-button"]'))?.click();
  const pick = (ids, step) => {
    const at = ids.findIndex((id) => document.getElementById(id)?.checked);
    document.getElementById(ids[(at + step) % ids.length])?.click();
  };

  addEventListener("click", (event) => {
    if (event.target.closest?.('.mmtt-text [data-testid="htx-textbox-content"]')) setTimeout(write); // after the editor's own look at the click
    const button = event.target.closest?.(".lsf-bottombar button");
    if (button && button === submit() && !stop(event)) sent = task;
  }, true);

  addEventListener("keydown", (event) => {
    if (!find(".mmtt")) return;
    const writes = event.target.tagName === "TEXTAREA";
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (stop(event)) return;
      sent = task;
      if (!writes) return;
      event.target.blur(); // the editor hears the key only outside of the text
      submit()?.click();
    } else if (writes && event.key === "Escape") {
      event.target.blur();
    } else if (event.ctrlKey || event.metaKey || (writes && !event.altKey)) {
      return;
    } else if (/^Digit[123]$/.test(event.code)) {
      document.getElementById(VIEWS[event.code[5] - 1])?.click();
    } else if (event.code === "KeyZ") {
      pick(ZOOMS, event.shiftKey ? 2 : 1);
    } else if (event.key === " " && !writes) {
      if (!held) held = VIEWS.find((id) => document.getElementById(id)?.checked);
      document.getElementById("mmtt-pristine")?.click();
    } else if (event.key === "/" && !writes) {
      write();
      find(".mmtt-text textarea")?.focus();
    } else {
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);
  addEventListener("keyup", (event) => {
    if (event.key !== " " || !held) return;
    document.getElementById(held)?.click();
    held = null;
  }, true);
  document.addEventListener("visibilitychange", () => { if (task && !document.hidden) ask(); });
  setInterval(draw, 250);
})();
