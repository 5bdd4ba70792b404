// Runs before anything is drawn: colours first, and a promise for whoever needs the page's script before it has loaded.
(() => {
  let chosen = null; // where the browser stores nothing
  const stored = () => {
    try {
      return localStorage.getItem("latent-studio-theme");
    } catch {
      return chosen;
    }
  };
  const system = matchMedia("(prefers-color-scheme: light)");
  const apply = () => {
    const wish = stored() || window.latentStudioConfig.settings.theme;
    const theme = wish === "system" ? (system.matches ? "light" : "dark") : wish;
    if (document.documentElement.dataset.theme !== theme) document.documentElement.dataset.theme = theme;
    document.body?.classList.toggle("dark", theme === "dark");
  };
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("latent-studio-theme", ({ detail }) => {
    chosen = detail ?? chosen;
    apply();
  });
  // Gradio sets its own class from the system's colours; ours wins.
  new MutationObserver(() => {
    if (document.body.classList.contains("dark") !== (document.documentElement.dataset.theme === "dark")) apply();
  }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  window.latentStudio = new Promise((resolve) => (window.latentStudioReady = resolve));
})();
