// What hangs on the fields of the form: their help as tooltips, and the mark of what is wrong.

const { fields } = window.latentStudioConfig;
/** Fields that are hidden, and what stands for them. */
const INSTEAD = { "branch.step": "txt2img_branch", "branch.origin": "txt2img_branch", "source.image": "img2img_image", "mask.image": "img2img_image", source: "img2img_image", mask: "img2img_image" };

/** A field's help text is its tooltip, and the words that an icon stands for are its own. */
export function installTooltips() {
  document.addEventListener("pointerover", (event) => {
    const icon = event.target.closest?.(".ls-icon");
    if (icon) icon.title ||= icon.textContent.trim();
    const block = event.target.closest?.(".block.padded");
    if (!block || block.title) return;
    const help = block.querySelector(".info-text")?.textContent.trim();
    if (help) block.title = help;
  });
}

/** Mark the field that an error is about; null takes every mark away. */
export function markField(name) {
  document.querySelectorAll(".ls-wrong").forEach((node) => node.classList.remove("ls-wrong"));
  if (!name) return;
  const bare = name.split(".").at(-1);
  const id = name.startsWith("setting:") ? `setting_page_${name.slice(8)}` : (INSTEAD[name] ?? fields[name] ?? fields[bare] ?? `txt2img_${bare}`);
  const node = document.getElementById(id);
  if (!node) return;
  node.classList.add("ls-wrong");
  node.addEventListener("input", () => node.classList.remove("ls-wrong"), { once: true });
}
