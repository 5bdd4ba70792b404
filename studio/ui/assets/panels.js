// The places that the server left empty: they are filled as Gradio brings them onto the page, a tab's when it is first opened.

/**
 * Fill them: `fills` has a function for each by the name of the panel. `ready()` is called once, when those named in `first` are filled and
 * `drawn()` says that the rest of what is needed is there: Gradio draws in no certain order.
 */
export function mountPanels(fills, { first, drawn, ready }) {
  const left = new Set(Object.keys(fills));
  let waiting = true;
  const look = () => {
    for (const panel of document.querySelectorAll("[data-panel]:not([data-filled])")) {
      panel.dataset.filled = "yes";
      fills[panel.dataset.panel]?.(panel);
      left.delete(panel.dataset.panel);
    }
    if (waiting && !first.some((name) => left.has(name)) && drawn()) {
      waiting = false;
      ready();
    }
    if (!left.size && !waiting) watcher.disconnect();
  };
  const watcher = new MutationObserver(look);
  watcher.observe(document.body, { childList: true, subtree: true });
  look();
}
