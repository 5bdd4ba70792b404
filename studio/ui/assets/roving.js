// A row of choices is one stop of the Tab key: the arrow keys, Home and End go between them, as in tabs and lists elsewhere.

/** Keys go between what matches `selector` in `root`; `go(node)` chooses what a key leads to, before it takes the focus. */
export function installArrows(root, selector, go) {
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const nodes = [...root.querySelectorAll(selector)];
    const at = nodes.indexOf(event.target.closest(selector));
    const next = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: nodes.length - 1 }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    const node = nodes[Math.max(0, Math.min(nodes.length - 1, next))];
    go(node);
    node.focus();
  });
}

/** Mark one of `nodes` as the chosen one, and as where the Tab key stops. */
export function choose(nodes, chosen) {
  for (const node of nodes) {
    node.setAttribute("aria-selected", String(node === chosen));
    node.tabIndex = node === chosen ? 0 : -1;
  }
}
