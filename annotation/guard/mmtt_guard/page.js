// The counter of words and seconds, what became of a submission, the progress, and the keys. Only on our page: elsewhere it does nothing.
(() => {
  const WORD = /[\u3400-\u9fff\uf900-\ufaff]|[^\s\u3400-\u9fff\uf900-\ufaff\u3001-\u303f\uff01-\uff0f\uff1a-\uff20]+/g;
  const SAYS = {
    en: {
      words: "words", wait: "s to look", ready: "ready: Ctrl+Enter", done: "done", back: "came back: open",
      keys: "1 2 3 view · Space hold · Z zoom · ←↑↓→ move · / write · Esc leave · Alt+1 in text",
      early: "Not sent: look a little longer.", long: "Not sent: the text is too long.",
      away: "Not sent: the server does not answer. What you wrote is kept; try again.",
      401: "Not sent: log in again in another tab, then try again.",
      409: "Not sent: you answered this pair already, in another window. Go on with the next.",
      other: "Not sent: the server refused it",
    },
    zh: {
      words: "字", wait: "秒后可提交", ready: "可以提交：Ctrl+Enter", done: "已完成", back: "个被退回：打开",
      keys: "1 2 3 视图 · 空格 对比 · Z 缩放 · ←↑↓→ 移动 · / 写字 · Esc 离开 · 输入时加 Alt",
      early: "未提交：请再多看一会儿。", long: "未提交：文字太长。",
      away: "未提交：服务器没有响应。文字已保留，请重试。",
      400: "未提交：时间未到，或内容不符合要求。",
      401: "未提交：请在另一个标签页重新登录，然后重试。",
      409: "未提交：您已在另一个窗口回答过这一对。请继续下一对。",
      other: "未提交：服务器拒绝了",
    },
  };
  const VIEWS = ["mmtt-forged", "mmtt-mask", "mmtt-pristine"], ZOOMS = ["mmtt-z1", "mmtt-z2", "mmtt-z4"];
  const find = (selector) => document.querySelector(selector);
  const seen = (selector) => Boolean(find(selector)?.offsetParent);
  const SENT = /\/api\/(tasks\/\d+\/(annotations|drafts)|annotations\/\d+|drafts\/\d+)/;
  const ZOOM = "mmtt-zoom";
  const BACK_MS = 5000; // by then the one before was judged, and has perhaps come back
  let task = null, owed = null, held = null, note = null, done = "", back = [];
  document.documentElement.classList.add("mmtt-keys");

  const says = () => SAYS[find(".pair.zh") ? "zh" : "en"];
  const ask = async () => {
    const asked = task;
    const project = location.pathname.match(/projects\/(\d+)/)?.[1];
    fetch(`/api/projects/${project}/?include=task_number,finished_task_number`)
      .then((answer) => answer.ok && answer.json())
      .then((found) => { if (found) done = `${found.finished_task_number} / ${found.task_number}`; });
    const answer = await fetch(`/mmtt/wait?task=${asked}`);
    if (!answer.ok || asked !== task) return;
    const { left, words, returned } = await answer.json();
    owed = { until: performance.now() + 1000 * left, words };
    back = returned;
  };
  const left = () => (owed ? Math.max(0, Math.ceil((owed.until - performance.now()) / 1000)) : 0);
  const count = () => {
    const typed = [...document.querySelectorAll(".mmtt-text textarea")].map((box) => box.value);
    const added = find('.mmtt-text [data-testid="textarea-regions"]');
    if (added && !added.querySelector("textarea")) typed.push(added.innerText);
    return (typed.join("\n").match(WORD) || []).length;
  };
  const broken = () => Boolean(find(".mmtt-or .lsf-choice:nth-child(2) input:checked"));
  const why = () => (count() > owed.words ? "long" : left() > 0 && !broken() ? "early" : null);
  const blocked = () => Boolean(owed && why());

  // The editor's own word on what was not saved is in English, and lacks the reason.
  const send = window.fetch;
  window.fetch = async (...request) => {
    const writes = SENT.test(request[0].url ?? request[0]) && /POST|PATCH/i.test(request[1]?.method ?? request[0].method);
    if (!writes || !task) return send(...request);
    const kept = `mmtt-${task}`;
    try {
      const answer = await send(...request);
      if (answer.ok) {
        if (!ours()) note = null;
        if (/\/annotations/.test(answer.url)) sessionStorage.removeItem(kept);
      } else {
        note = { is: answer.status, detail: (await answer.clone().json().catch(() => ({}))).detail };
        ask();
      }
      return answer;
    } catch {
      note = { is: "away" };
      return new Response("{}", { status: 503 }); // the editor would cover the page with a message that says less
    }
  };
  const ours = () => ["early", "long"].includes(note?.is);
  const refusal = (says) => says[note.is] ?? `${says.other} (${note.detail ?? note.is}).`;

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

  const drawDone = (page) => {
    let shown = find("#mmtt-done");
    if (!page) return shown?.remove();
    if (!shown) {
      shown = document.createElement("div");
      shown.id = "mmtt-done";
      document.body.append(shown);
    }
    const now = done && `${done} ${says().done}`;
    if (shown.dataset.now === `${now} ${back.length}`) return; // a link that is drawn anew under the mouse is not clicked
    shown.dataset.now = `${now} ${back.length}`;
    shown.textContent = now;
    if (!back.length) return;
    const link = document.createElement("a");
    link.textContent = `${back.length} ${says().back}`;
    link.href = `/projects/${back[0].project}/data?labeling=1`; // where it is the next
    shown.append(" · ", link);
  };

  const draw = () => {
    const page = find(".mmtt-say"), shown = find(".lsf-current-task__task-id");
    const now = page && shown ? (shown.firstChild.textContent.match(/\d+/) || [null])[0] : null;
    if (now && now !== task) { // while it sends, the editor takes the page away
      [task, owed, note] = [now, null, null];
      ask();
      setTimeout(ask, BACK_MS);
    }
    drawDone(page);
    if (!page) return;
    restore();
    if (ours()) note = blocked() ? { is: why() } : null;
    let bar = find("#mmtt-counter");
    if (!bar || bar.parentElement !== page) {
      bar?.remove();
      bar = document.createElement("div");
      bar.id = "mmtt-counter";
      bar.innerHTML = "<b></b><i></i><em></em><small></small>";
      page.append(bar);
    }
    const [words, wait, refused, keys] = bar.children;
    const over = owed && count() > owed.words;
    words.textContent = owed && (over || seen(".mmtt-text")) ? `${count()} / ${owed.words} ${says().words}` : "";
    wait.textContent = !owed || over ? "" : left() > 0 ? `${left()} ${says().wait}` : says().ready;
    refused.textContent = note ? refusal(says()) : "";
    keys.textContent = seen(".pair .panes") ? says().keys : "";
    bar.className = over ? "over" : !owed || left() > 0 ? "wait" : "ready";
  };

  const stop = (event) => {
    if (!blocked()) return false;
    event.preventDefault();
    event.stopImmediatePropagation();
    note = { is: why() };
    draw();
    find("#mmtt-counter")?.animate([{ transform: "scale(1.04)" }, { transform: "none" }], 250);
    return true;
  };
  const submit = () => find('[data-testid="bottombar-submit-button"], [data-testid="bottombar-update-button"]');
  const write = () => {
    (find(".mmtt-text textarea") || find('.mmtt-text [data-testid="htx-textbox-edit-button"]'))?.click();
    const begin = () => {
      const box = find(".mmtt-text textarea");
      box?.focus();
      box?.setSelectionRange(box.value.length, box.value.length);
      return box;
    };
    if (!begin()) setTimeout(begin); // what was sent once is a line of text until it is clicked
  };
  const move = (key) => {
    const panes = find(".pair .panes"), at = getComputedStyle(panes);
    for (const [name, back, on] of [["--x", "ArrowLeft", "ArrowRight"], ["--y", "ArrowUp", "ArrowDown"]]) {
      const to = parseFloat(at.getPropertyValue(name)) + 10 * ((key === on) - (key === back));
      panes.style.setProperty(name, `${Math.min(100, Math.max(0, to))}%`);
    }
  };
  const pick = (ids, step) => {
    const at = ids.findIndex((id) => document.getElementById(id)?.checked);
    document.getElementById(ids[(at + step) % ids.length])?.click();
  };

  addEventListener("click", (event) => {
    if (event.target.closest?.('.mmtt-text [data-testid="htx-textbox-content"]')) setTimeout(write); // after the editor's own look at the click
    const link = event.target.closest?.("#mmtt-done a");
    if (link) {
      event.preventDefault();
      event.stopImmediatePropagation(); // Label Studio would change the address and show the same pair
      location.assign(link.href);
    }
    const button = event.target.closest?.(".lsf-bottombar button");
    if (button && button === submit()) stop(event);
  }, true);

  addEventListener("keydown", (event) => {
    if (!find(".mmtt")) return;
    const writes = event.target.tagName === "TEXTAREA", looks = seen(".pair .panes");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (stop(event) || !writes) return;
      event.target.blur(); // the editor hears the key only outside of the text
      submit()?.click();
    } else if (writes && event.key === "Escape") {
      event.target.blur();
    } else if (event.ctrlKey || event.metaKey || (writes && !event.altKey)) {
      return;
    } else if (looks && /^Digit[123]$/.test(event.code)) {
      document.getElementById(VIEWS[event.code[5] - 1])?.click();
    } else if (looks && event.code === "KeyZ") {
      pick(ZOOMS, event.shiftKey ? 2 : 1);
    } else if (looks && /^Arrow/.test(event.key) && !writes) {
      move(event.key);
    } else if (looks && event.key === " " && !writes) {
      if (!held) held = VIEWS.find((id) => document.getElementById(id)?.checked);
      document.getElementById("mmtt-pristine")?.click();
    } else if (!writes && (event.code === "Slash" || event.key === "/" || (event.key === "Enter" && event.target === document.body))) {
      write();
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
  addEventListener("mousemove", () => find(".pair .panes")?.removeAttribute("style"), true); // the pointer has its own say
  addEventListener("change", (event) => {
    if (event.target.name === ZOOM) sessionStorage.setItem(ZOOM, event.target.id);
  }, true);
  new MutationObserver(() => { // a new pair has a new comparator
    const pair = find(".pair:not(.alone, .seen)");
    pair?.classList.add("seen");
    if (pair && sessionStorage.getItem(ZOOM)) document.getElementById(sessionStorage.getItem(ZOOM)).click();
  }).observe(document.body, { childList: true, subtree: true });
  document.addEventListener("visibilitychange", () => { if (task && !document.hidden) ask(); });
  setInterval(draw, 250);
})();
